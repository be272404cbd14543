"""What moves bytes: one narrow port, and the transports that implement it.

Owns nothing itself: `port` describes links, listeners and transports, `registry` finds the
transport of a scheme, and each transport is a module of its own that is imported when it is first
used. Nothing in here knows messages or handlers.
"""

from __future__ import annotations

from pyipc.transports.port import Link as Link
from pyipc.transports.port import Listener as Listener
from pyipc.transports.port import Peer as Peer
from pyipc.transports.port import Transport as Transport

__all__ = ["Link", "Listener", "Peer", "Transport"]
