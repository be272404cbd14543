"""Messages between processes, on trio: one server and client API over sockets, pipes and brokers.

``docs/`` has a tutorial, how-to guides and the reference; the README shows the first steps.
"""

from pyipc.admission import ANYONE as ANYONE
from pyipc.attaching import Attached as Attached
from pyipc.client import Client as Client
from pyipc.connecting import connect as connect
from pyipc.connection import Connection as Connection
from pyipc.endpoint import Endpoint as Endpoint
from pyipc.errors import AddressError as AddressError
from pyipc.errors import AddressInUse as AddressInUse
from pyipc.errors import CertificateFileError as CertificateFileError
from pyipc.errors import ConnectError as ConnectError
from pyipc.errors import ConnectionClosed as ConnectionClosed
from pyipc.errors import ConnectionLost as ConnectionLost
from pyipc.errors import HandshakeFailed as HandshakeFailed
from pyipc.errors import InsecureAddress as InsecureAddress
from pyipc.errors import InvalidData as InvalidData
from pyipc.errors import InvalidEventName as InvalidEventName
from pyipc.errors import IPCError as IPCError
from pyipc.errors import ListenError as ListenError
from pyipc.errors import LocalProtocolError as LocalProtocolError
from pyipc.errors import MessageTooLarge as MessageTooLarge
from pyipc.errors import NoHandler as NoHandler
from pyipc.errors import PeerLacksFeature as PeerLacksFeature
from pyipc.errors import PeerNotAllowed as PeerNotAllowed
from pyipc.errors import PeerRefused as PeerRefused
from pyipc.errors import ProtocolError as ProtocolError
from pyipc.errors import Refused as Refused
from pyipc.errors import RemoteError as RemoteError
from pyipc.errors import RemoteProtocolError as RemoteProtocolError
from pyipc.errors import RequestError as RequestError
from pyipc.errors import RequestTimeout as RequestTimeout
from pyipc.errors import SubscriptionOverflow as SubscriptionOverflow
from pyipc.errors import Unconfirmed as Unconfirmed
from pyipc.errors import Undelivered as Undelivered
from pyipc.errors import UnencodableData as UnencodableData
from pyipc.errors import UnsafePath as UnsafePath
from pyipc.errors import UnsupportedByTransport as UnsupportedByTransport
from pyipc.hosting import Host as Host
from pyipc.hosting import hosted_by as hosted_by
from pyipc.instrument import Instrument as Instrument
from pyipc.listening import EventStream as EventStream
from pyipc.message import Message as Message
from pyipc.options import Options as Options
from pyipc.protocol.addresses import Address as Address
from pyipc.protocol.addresses import parse_address as parse_address
from pyipc.protocol.framing import Json as Json
from pyipc.protocol.framing import Raw as Raw
from pyipc.router import Router as Router
from pyipc.server import Server as Server
from pyipc.statistics import BroadcastReport as BroadcastReport
from pyipc.statistics import ClientStatistics as ClientStatistics
from pyipc.statistics import ConnectionStatistics as ConnectionStatistics
from pyipc.statistics import Disconnected as Disconnected
from pyipc.statistics import DrainReport as DrainReport
from pyipc.statistics import ServerStatistics as ServerStatistics
from pyipc.statistics import SubscriptionStatistics as SubscriptionStatistics
from pyipc.streams import Stream as Stream
from pyipc.subscription import Subscription as Subscription
from pyipc.transports.port import Certificate as Certificate
from pyipc.transports.port import Peer as Peer
from pyipc.transports.tls_settings import TLS as TLS

__version__ = "0.1.0"

__all__ = [
    "ANYONE",
    "TLS",
    "Address",
    "AddressError",
    "AddressInUse",
    "Attached",
    "BroadcastReport",
    "Certificate",
    "CertificateFileError",
    "Client",
    "ClientStatistics",
    "ConnectError",
    "Connection",
    "ConnectionClosed",
    "ConnectionLost",
    "ConnectionStatistics",
    "Disconnected",
    "DrainReport",
    "Endpoint",
    "EventStream",
    "HandshakeFailed",
    "Host",
    "IPCError",
    "InsecureAddress",
    "Instrument",
    "InvalidData",
    "InvalidEventName",
    "Json",
    "ListenError",
    "LocalProtocolError",
    "Message",
    "MessageTooLarge",
    "NoHandler",
    "Options",
    "Peer",
    "PeerLacksFeature",
    "PeerNotAllowed",
    "PeerRefused",
    "ProtocolError",
    "Raw",
    "Refused",
    "RemoteError",
    "RemoteProtocolError",
    "RequestError",
    "RequestTimeout",
    "Router",
    "Server",
    "ServerStatistics",
    "Stream",
    "Subscription",
    "SubscriptionOverflow",
    "SubscriptionStatistics",
    "Unconfirmed",
    "Undelivered",
    "UnencodableData",
    "UnsafePath",
    "UnsupportedByTransport",
    "__version__",
    "connect",
    "hosted_by",
    "parse_address",
]
