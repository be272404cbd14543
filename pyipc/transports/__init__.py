"""What moves bytes: one narrow port, and the transports that implement it.

Owns nothing itself: `port` describes links, listeners and transports, `registry` finds the
transport of a scheme, and each transport is a module of its own; those that need the operating
system are imported when they are first used. Nothing in here knows messages or handlers.
"""

from __future__ import annotations

from pyipc.transports.claims import ClaimListener as ClaimListener
from pyipc.transports.claims import SocketClaim as SocketClaim
from pyipc.transports.claims import socket_adopter as socket_adopter
from pyipc.transports.credentials import peer_credentials as peer_credentials
from pyipc.transports.memory import memory_link_pair as memory_link_pair
from pyipc.transports.pipe_instance import PipeInstance as PipeInstance
from pyipc.transports.port import Carrier as Carrier
from pyipc.transports.port import Certificate as Certificate
from pyipc.transports.port import Claim as Claim
from pyipc.transports.port import Link as Link
from pyipc.transports.port import Listener as Listener
from pyipc.transports.port import Peer as Peer
from pyipc.transports.port import Place as Place
from pyipc.transports.port import Transport as Transport
from pyipc.transports.registry import transport_for as transport_for
from pyipc.transports.sockets import SocketLink as SocketLink
from pyipc.transports.sockets import SocketListener as SocketListener
from pyipc.transports.sockets import refuse_unknown_options as refuse_unknown_options

__all__ = [
    "Carrier",
    "Certificate",
    "Claim",
    "ClaimListener",
    "Link",
    "Listener",
    "Peer",
    "PipeInstance",
    "Place",
    "SocketClaim",
    "SocketLink",
    "SocketListener",
    "Transport",
    "memory_link_pair",
    "peer_credentials",
    "refuse_unknown_options",
    "socket_adopter",
    "transport_for",
]
