"""A server: ``ipc.server``."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import trio

import pyipc
from pyipc.node_ipc.config import connection_options
from pyipc.node_ipc.dialing import Dialing
from pyipc.node_ipc.emitter import Emitter
from pyipc.node_ipc.encoding import to_bytes
from pyipc.node_ipc.places import local_endpoint, network_endpoint
from pyipc.node_ipc.socket import Socket

if TYPE_CHECKING:
    from pyipc.node_ipc.config import Config
    from pyipc.node_ipc.tasks import Tasks

__all__ = ["Server"]

logger: logging.Logger = logging.getLogger("pyipc.node_ipc")

_LIMITS: Final = ("max_connections", "max_connections_per_peer")
#: Over UDP an address is no connection in node-ipc's sense, so its option does not count; but memory has an end.
_MOST_ADDRESSES: Final = 1_024
#: How long a label may be, in characters or digits: the client chooses it, and it stays as long as the connection.
_LONGEST_LABEL: Final = 256
#: What happens to a server here, and what no client can make it believe.
_LIFECYCLE: Final = frozenset({"start", "connect", "socket.disconnected", "close", "error"})


class Server(Emitter):
    """Serves everybody who connects. Made by `IPC.serve` and `IPC.serve_net`; listens when it is started.

    Events: ``start(where)``, with a dictionary of ``path``, or of ``address`` and ``port``; ``connect(socket)``;
    ``socket.disconnected(socket, id)``; ``close(socket)``; ``error(error)``, if it cannot listen, and
    ``error(error, socket)``, if a connection broke; in raw mode ``data(bytes, socket)``; and whatever clients emit,
    with ``data, socket``. Over UDP, a socket is an address that something has come from.

    Attributes:
        config: The options.
        path: The path, or the host.
        port: The port that was asked for, or ``None``.
        udp: ``"udp4"``, ``"udp6"`` or ``None``.
        server: The server below, while it listens.
    """

    def __init__(
        self,
        config: Config,
        path: str,
        port: int | None,
        udp: str | None,
        tasks: Tasks,
    ) -> None:
        super().__init__(tasks.start)
        self._tasks = tasks
        self.config: Config = config
        self.path: str = path
        self.port: int | None = port
        self.udp: str | None = udp
        self.server: pyipc.Server | None = None
        self._raw = False
        self._sockets: dict[pyipc.Connection, Socket] = {}
        self._dialing: Dialing | None = None
        self._stopping: trio.Event | None = None

    def __repr__(self) -> str:
        state = f"{len(self._sockets)} sockets" if self.server is not None else "not listening"
        return f"<Server {self.path}{'' if self.port is None else f' {self.port}'}, {state}>"

    @property
    def sockets(self) -> list[Socket]:
        """Who is connected, in the order of connecting."""
        return list(self._sockets.values())

    @property
    def is_started(self) -> bool:
        """Whether it listens, or is about to."""
        return self._stopping is not None

    # --- listening ---

    def start(self) -> None:
        """Listen. When it does, ``start`` happens; if it cannot, ``error``.

        Raises:
            RuntimeError: It listens already.
            AddressError, ValueError: An option or the place cannot be used.
        """
        if self._stopping is not None:
            raise RuntimeError("the server has been started already; stop() it first")
        config = self.config
        if self.port is None:
            endpoint = local_endpoint(config, self.path, listens=True)
        else:
            endpoint = network_endpoint(config, self.path, self.port, udp=self.udp, listens=True)
        self._raw = config.raw_buffer
        limit = dict.fromkeys(_LIMITS, _MOST_ADDRESSES if self.udp else config.max_connections)
        server = pyipc.Server(endpoint, **{**limit, **connection_options(config)})
        self._stopping = trio.Event()
        self._tasks.start_service(self._run, server, self._stopping)

    def stop(self) -> None:
        """Stop listening, send every client what is queued for it, and close."""
        if self._stopping is not None:
            self._stopping.set()

    async def _run(self, server: pyipc.Server, stopping: trio.Event) -> None:
        started = trio.Event()

        async def welcome(connection: pyipc.Connection) -> None:
            await started.wait()  # what the program does at the start comes first
            socket = self._sockets[connection] = Socket(connection, self._start)
            self._announce("connect", socket)

        server.on("**", self._hear)
        server.on_connect(welcome)
        server.on_disconnect(self._on_disconnect)
        try:
            self._refuse_to_replace()
            async with server:
                self.server = server
                if self.udp is not None:
                    self._dialing = Dialing(server, self._start, lambda error: self._announce("error", error))
                self._announce("start", self._where(server))
                started.set()
                await stopping.wait()
        except pyipc.IPCError as error:  # it cannot listen, or not everything could be sent in the end
            logger.warning("%s", error)
            self._announce("error", error)
        finally:
            self.server = self._dialing = self._stopping = None

    def _refuse_to_replace(self) -> None:
        if not self.config.unlink and self.port is None and os.path.lexists(self.path):
            raise pyipc.AddressInUse(
                f"there is a socket at {self.path!r} already, and config.unlink is False; remove it, or share its "
                "listener with serve('fd:3')"
            )

    def _where(self, server: pyipc.Server) -> dict[str, object]:
        address = server.addresses[0]
        return {"path": self.path} if self.port is None else {"address": address.host, "port": address.port}

    # --- sending ---

    def emit(self, socket: Socket | Mapping[str, Any], event: Any, data: object = None) -> None:
        """Send an event to one client; in raw mode, ``emit(socket, bytes)``.

        Args:
            socket: Whom to send it to. Over UDP also a dictionary of ``address`` and ``port``; where one of them is
                missing, everybody.
            event: The name; in raw mode, what to send: bytes, a list of numbers, or text in ``config.encoding``.
            data: Anything that has a JSON form.

        Raises:
            LocalProtocolError: The name or the data cannot be sent.
            trio.WouldBlock: The client reads too slowly; `Socket.flush` waits until it has read.
            RuntimeError: An address was given, and this is no UDP server that listens.
        """
        if isinstance(socket, Mapping):
            if not socket.get("address") or not socket.get("port"):
                self.broadcast(event, data)
                return
            self._emit_to_address(str(socket["address"]), int(socket["port"]), event, data)
            return
        if self._dialing is not None and socket.destroyed:
            # It was silent for too long, or closed here; but nothing keeps us from sending to where it was.
            self._emit_to_address(str(socket.address), socket.port or 0, event, data)
            return
        connection = socket.connection
        name, data = self._outgoing(event, data)
        try:
            connection.emit_nowait(name, data)
        except trio.WouldBlock:
            raise trio.WouldBlock(
                f"{connection.peer.address} reads too slowly, and too much waits to be sent; "
                "await socket.flush() now and then"
            ) from None
        except pyipc.ConnectionClosed as error:
            # That it has gone is told by an event, and was perhaps not known yet to whoever wants to send.
            logger.info("%r was not sent to %s: %s", name, connection.peer.address, error)

    def _emit_to_address(self, host: str, port: int, event: Any, data: object) -> None:
        if self._dialing is None:
            raise RuntimeError("only a UDP server that listens sends to an address; emit to a socket")
        name, data = self._outgoing(event, data)
        self._dialing.emit(host, port, name, data)

    def broadcast(self, event: Any, data: object = None) -> pyipc.BroadcastReport:
        """Send an event to every client; in raw mode, ``broadcast(bytes)``.

        It is encoded once. A client that reads too slowly is disconnected.

        Returns:
            How many it was sent to.

        Raises:
            LocalProtocolError: The name or the data cannot be sent.
        """
        name, data = self._outgoing(event, data)
        if self.server is None:
            return pyipc.BroadcastReport(0, 0)
        return self.server.broadcast_nowait(name, data)

    def _outgoing(self, event: Any, data: object) -> tuple[str, object]:
        return ("data", to_bytes(event, self.config.encoding)) if self._raw else (event, data)

    # --- what happens to it ---

    def _on_disconnect(self, reason: pyipc.Disconnected) -> None:
        assert isinstance(reason.connection, pyipc.Connection)
        if self._dialing is not None:
            self._dialing.forget(reason.connection)
        socket = self._sockets.pop(reason.connection, None)
        if socket is None:
            return  # it ended before anybody was told of it
        if reason.error is not None:
            self._announce("error", reason.error, socket)
        self._announce("socket.disconnected", socket, socket.id)
        self._announce("close", socket)

    async def _hear(self, message: pyipc.Message[Any]) -> None:
        socket = self._sockets[message.connection]
        event, data = message.event, message.data
        if event in _LIFECYCLE:
            logger.warning("%s sent %r, which only happens here; it was ignored", socket.peer.address, event)
            return
        label = _label_of(data)
        if label is not None:
            socket.id = label
        await self.publish(event, data, socket)


def _label_of(data: object) -> str | int | float | None:
    """The ``id`` in the data of a message, if it has one that may be a label."""
    label = data.get("id") if isinstance(data, dict) else None
    if isinstance(label, str):
        return label if 0 < len(label) <= _LONGEST_LABEL else None
    if isinstance(label, int | float) and not isinstance(label, bool) and 0 < abs(label) < 10**_LONGEST_LABEL:
        return label
    return None
