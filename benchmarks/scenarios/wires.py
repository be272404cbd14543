"""The bytes of each library, for peers that are none: plain sockets that speak just enough of it to do harm."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import pickle
import socket
import struct
from multiprocessing.connection import Client
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "BRINE",
    "CLAIM",
    "LINES",
    "NODE_IPC",
    "PICKLE",
    "PYIPC",
    "PYRO",
    "SP",
    "WEBSOCKET",
    "WIRES",
    "ZMTP",
    "Wire",
]

#: Bytes that a message is said to have, where its length is said.
CLAIM = 4 * 1024**3
#: Of lengths with four bytes.
CLAIM_32 = 2**32 - 1
PATIENCE = 5.0


def _connected(place: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(PATIENCE)
    sock.connect(place)
    return sock


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wire:
    """How to speak to one library's server.

    Args:
        key: What it is called on a command line.
        message: The bytes of a message with this JSON as its data.
        claim: The beginning of a message of 4 GiB; ``None`` where messages end with a delimiter instead.
        endless: The beginning of a message without an end; empty where messages have lengths.
        is_job: Whether its message is one that a program hears of.
        connect: Connects to a path, and says and hears what comes before the first message.
    """

    key: str
    message: Callable[[bytes], bytes]
    claim: bytes | None = None
    endless: bytes = b""
    is_job: bool = True
    connect: Callable[[str], socket.socket] = _connected


# --- messages that end with a delimiter ----------------------------------------------------------------------------


def _event(data: bytes) -> bytes:
    return b'{"type":"job","data":' + data + b"}\f"


def _greet_pyipc(place: str) -> socket.socket:
    hello = {"versions": [1], "features": ["attachments"], "max_attachments_size": 2**22, "heartbeat": None}
    sock = _connected(place)
    sock.sendall(json.dumps({"type": "pyipc.hello", "data": hello}).encode() + b"\f")
    while not sock.recv(4_096).endswith(b"\f"):
        pass
    return sock


LINES = Wire(key="lines", message=lambda data: data + b"\n", endless=b'{"n": 1, "s": "')
NODE_IPC = Wire(key="node-ipc", message=_event, endless=b'{"type":"job","data":{"n":1,"s":"')
#: The claim is that of an attachment: frames have no length.
PYIPC = Wire(
    key="pyipc",
    message=_event,
    claim=b"\x01" + CLAIM.to_bytes(8, "big"),
    endless=NODE_IPC.endless,
    connect=_greet_pyipc,
)

# --- multiprocessing -----------------------------------------------------------------------------------------------


def _greet_multiprocessing(place: str) -> socket.socket:
    """With the key: before it is shown, a server takes 256 bytes."""
    with Client(place, authkey=b"secret password") as connection:
        sock = socket.socket(fileno=os.dup(connection.fileno()))
    sock.settimeout(PATIENCE)
    return sock


def _pickled(data: bytes) -> bytes:
    body = pickle.dumps(json.loads(data))
    return struct.pack("!i", len(body)) + body


PICKLE = Wire(key="pickle", message=_pickled, claim=struct.pack("!iQ", -1, CLAIM), connect=_greet_multiprocessing)

# --- ZeroMQ --------------------------------------------------------------------------------------------------------

_ZMTP_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
_ZMTP_READY = b"\x05READY\x0bSocket-Type" + struct.pack("!I", 3) + b"REQ\x08Identity" + struct.pack("!I", 0)
#: Every request begins with an empty part, to which more belongs.
_ZMTP_REQUEST = b"\x01\x00"


def _greet_zmq(place: str) -> socket.socket:
    sock = _connected(place)
    sock.sendall(_ZMTP_GREETING + b"\x04" + bytes([len(_ZMTP_READY)]) + _ZMTP_READY)
    heard = b""
    while len(heard) < len(_ZMTP_GREETING) + 2:
        heard += sock.recv(4_096)
    return sock


ZMTP = Wire(
    key="zmtp",
    message=lambda data: _ZMTP_REQUEST + b"\x02" + struct.pack("!Q", len(data)) + data,
    claim=_ZMTP_REQUEST + b"\x02" + struct.pack("!Q", CLAIM),
    connect=_greet_zmq,
)

# --- nng -----------------------------------------------------------------------------------------------------------

_SP_REQ = 0x30
_SP_REQUEST_ID = struct.pack("!I", 0x80000001)


def _greet_nng(place: str) -> socket.socket:
    sock = _connected(place)
    sock.sendall(b"\0SP\0" + struct.pack("!HH", _SP_REQ, 0))
    heard = b""
    while len(heard) < 8:
        heard += sock.recv(8)
    return sock


SP = Wire(
    key="sp",
    message=lambda data: b"\x01" + struct.pack("!Q", len(data) + 4) + _SP_REQUEST_ID + data,
    claim=b"\x01" + struct.pack("!Q", CLAIM) + _SP_REQUEST_ID,
    connect=_greet_nng,
)

# --- WebSocket -----------------------------------------------------------------------------------------------------


def _greet_websocket(place: str) -> socket.socket:
    sock = _connected(place)
    key = base64.b64encode(bytes(16)).decode()
    sock.sendall(
        "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    heard = b""
    while b"\r\n\r\n" not in heard:
        heard += sock.recv(4_096)
    return sock


#: A text, whole, with eight bytes of length, masked with zeros.
_TEXT = b"\x81\xff"
WEBSOCKET = Wire(
    key="websocket",
    message=lambda data: _TEXT + struct.pack("!Q", len(data)) + bytes(4) + data,
    claim=_TEXT + struct.pack("!Q", CLAIM) + bytes(4),
    connect=_greet_websocket,
)

# --- Pyro5 ---------------------------------------------------------------------------------------------------------

_PYRO_CONNECT, _PYRO_INVOKE, _PYRO_JSON = 1, 4, 3


def _pyro(kind: int, body: bytes, size: int | None = None) -> bytes:
    length = len(body) if size is None else size
    return struct.pack("!4sHBBHHII16sHH", b"PYRO", 502, kind, _PYRO_JSON, 0, 0, length, 0, bytes(16), 0, 0x4DC5) + body


def _greet_pyro(place: str) -> socket.socket:
    sock = _connected(place)
    sock.sendall(_pyro(_PYRO_CONNECT, b'{"handshake": "hello", "object": "desk"}'))
    sock.recv(65_536)
    return sock


PYRO = Wire(
    key="pyro",
    message=lambda data: _pyro(
        _PYRO_INVOKE, b'{"object": "desk", "method": "job", "params": [' + data + b'], "kwargs": {}}'
    ),
    claim=_pyro(_PYRO_INVOKE, b"", CLAIM_32),
    connect=_greet_pyro,
)

# --- RPyC ----------------------------------------------------------------------------------------------------------


def _brine(data: bytes) -> bytes:
    """A ping, which carries whatever it is given; no method, whose object would have to be asked for first."""
    from rpyc.core import brine, consts

    body: bytes = brine.dump((consts.MSG_REQUEST, 1, (consts.HANDLE_PING, (consts.LABEL_VALUE, (data,)))))
    return struct.pack("!LB", len(body), 0) + body + b"\n"


BRINE = Wire(key="brine", message=_brine, claim=struct.pack("!LB", CLAIM_32 - 1, 0), is_job=False)

#: By their keys.
WIRES = {wire.key: wire for wire in (LINES, NODE_IPC, PYIPC, PICKLE, ZMTP, SP, WEBSOCKET, PYRO, BRINE)}
