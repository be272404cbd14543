"""The options of node-ipc, with its names in snake_case, its defaults and its units."""

from __future__ import annotations

import dataclasses
import math
import socket
from typing import TYPE_CHECKING, Any, Final, Literal

import pyipc

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping

__all__ = [
    "Config",
    "Interface",
    "client_options",
    "connection_options",
    "framing_of",
    "most_retries",
    "sync_timeout",
]

#: What may wait to be sent to one peer, in bytes, before `emit` refuses more.
_MAX_WAITING: Final = 8 * 1024 * 1024
#: How many messages may wait for a connection, or for their turn.
_MOST_WAITING: Final = 100_000
#: With these node-ipc's own JSON mode delivers what pyipc does, since JSON is UTF-8 here whatever the option says.
_TEXT_ENCODINGS: Final = frozenset({"utf8", "utf-8", "ascii", "latin1", "binary"})


@dataclasses.dataclass(slots=True)
class Interface:
    """Which of its own addresses a client calls from. pyipc lets the system choose: what is set here is refused."""

    local_address: str | None = None
    local_port: int | None = None
    family: int | None = None
    hints: int | None = None
    lookup: Callable[..., object] | None = None


@dataclasses.dataclass(slots=True)
class Config:
    """The options of an `IPC`. A server reads them when it starts, a client when it is made.

    Attributes:
        appspace: The middle of the default path of a socket.
        socket_root: Its beginning.
        id: Its end, for a server; not sent to anybody.
        encoding: How a ``str`` that is emitted in raw mode becomes bytes: ``"utf8"``, ``"latin1"``, ``"hex"``, ...
        raw_buffer: Bytes as they are, without frames: ``emit(bytes)`` and the event ``"data"``.
        sync: A client sends one message at a time, the next when something has arrived.
        sync_timeout: Milliseconds after which it sends the next all the same; ``None`` for never. Not in node-ipc.
        unlink: Whether a server may replace the socket of one that is no more.
        delimiter: The control character that ends a frame.
        silent: Whether `IPC.log` says nothing.
        log_in_color: Whether it shows objects in color, where the output is a terminal.
        log_depth: How deep it looks into objects; ``None`` for all the way.
        logger: What it calls, with one text.
        max_connections: How many clients a server takes.
        retry: Milliseconds between two attempts to connect.
        max_retries: How often a client tries again after the first attempt, or after a connection was lost.
        stop_retrying: Whether it does not; looked at whenever it would.
        readable_all: Whether everybody may read the file of the socket.
        writable_all: Whether everybody may connect to it: the mode lets them, and their user is not checked.
        network_host: The default host.
        network_port: The default port.
        interface: Refused unless empty.
        tls: ``private``, ``public``, ``trusted_connections``, ``request_cert`` and ``reject_unauthorized`` as in
            node-ipc, a `pyipc.TLS`, or an ``ssl.SSLContext``. For network addresses.
        allow: Who may be on the other side, as for `pyipc.Endpoint`. Not in node-ipc.
        options: Any of `pyipc.Options`, such as ``max_frame_size``. Not in node-ipc.
    """

    appspace: str = "app."
    socket_root: str = "/tmp/"
    id: str = dataclasses.field(default_factory=socket.gethostname)
    encoding: str = "utf8"
    raw_buffer: bool = False
    sync: bool = False
    sync_timeout: float | None = 30_000
    unlink: bool = True
    delimiter: str = "\f"
    silent: bool = False
    log_in_color: bool = True
    log_depth: int | None = 5
    logger: Callable[[str], object] = print
    max_connections: int = 100
    retry: float = 500
    max_retries: float = math.inf
    stop_retrying: bool = False
    readable_all: bool = False
    writable_all: bool = False
    network_host: str = "127.0.0.1"
    network_port: int = 8000
    interface: Interface = dataclasses.field(default_factory=Interface)
    tls: Mapping[str, object] | pyipc.TLS | ssl.SSLContext | Literal[False] | None = None
    allow: Any = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def framing_of(config: Config) -> pyipc.Json | pyipc.Raw:
    """How bytes are divided into messages.

    Raises:
        ValueError: The delimiter or the encoding cannot work.
    """
    if config.raw_buffer:
        return pyipc.Raw()
    if config.encoding not in _TEXT_ENCODINGS:
        raise ValueError(
            f"with config.encoding = {config.encoding!r} no JSON message would ever be delivered; leave it at 'utf8', "
            "or set config.raw_buffer"
        )
    return pyipc.Json(delimiter=config.delimiter.encode())


def connection_options(config: Config) -> dict[str, Any]:
    """The options that connections have in common; those of ``config.options`` come last."""
    return {
        "outbox_high_water_size": _MAX_WAITING,
        "max_outbox_size": _MAX_WAITING,
        "max_offline_messages": _MOST_WAITING,
        "max_offline_size": _MAX_WAITING,
        **config.options,
    }


def client_options(config: Config) -> dict[str, Any]:
    """The options of a client's connection, which is made again after always the same time.

    Raises:
        ValueError: The time cannot work.
    """
    seconds = _number("retry", config.retry, "milliseconds") / 1000
    return {
        "reconnect_interval": seconds,
        "reconnect_max_interval": max(seconds, 0.001),
        "reconnect_factor": 1.0,
        "reconnect_jitter": False,
        **connection_options(config),
    }


def most_retries(config: Config) -> float:
    """How often a client tries again.

    Raises:
        ValueError: It cannot be so often.
    """
    if not config.max_retries:  # `None` and `False` are none, too
        return 0
    return _number("max_retries", config.max_retries, "attempts; math.inf for no end, 0 for none")


def sync_timeout(config: Config) -> float | None:
    """Seconds that a message waits for the answer to the one before; ``None`` for ever.

    Raises:
        ValueError: It cannot be so long.
    """
    if config.sync_timeout is None:
        return None
    return _number("sync_timeout", config.sync_timeout, "milliseconds, or None") / 1000


def _number(name: str, value: object, unit: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise ValueError(f"config.{name} must be a number of {unit}, and not less than 0; it is {value!r}")
    return value
