"""A client: what is in ``ipc.of``."""

from __future__ import annotations

import copy
import logging
from typing import TYPE_CHECKING, Any, Final

import trio

import pyipc
from pyipc.node_ipc.config import CLOSE_TIMEOUT, MOST_WAITING, connection_options
from pyipc.node_ipc.emitter import Emitter
from pyipc.node_ipc.encoding import to_bytes
from pyipc.node_ipc.syncing import SyncQueue

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyipc.node_ipc.config import Config

__all__ = ["Client"]

logger: logging.Logger = logging.getLogger("pyipc.node_ipc")

#: What happens to a client here, and what no server can make it believe.
_LIFECYCLE: Final = frozenset({"connect", "disconnect", "destroy", "error"})


class Client(Emitter):
    """A connection to one server, made again whenever it is lost. Made by `IPC.connect_to` and `IPC.connect_to_net`.

    Events: ``connect``; ``disconnect(reason)``, with a `pyipc.Disconnected`, once for each ``connect``;
    ``error(error)``, for every attempt that failed and every connection that broke; ``destroy``, when it is over and
    will not come back; in raw mode ``data(bytes)``; and whatever the server emits, with its ``data``.

    Attributes:
        id: Its name in ``ipc.of``.
        config: The options.
        path: The path, or the host.
        port: The port, or ``None``.
        retries_remaining: How often it will try again without success.
        explicitly_disconnected: Whether the program wants it to end.
        destroyed: Whether it is over.
    """

    def __init__(
        self,
        id: str,
        config: Config,
        endpoint: pyipc.Endpoint,
        path: str,
        port: int | None,
        start: Callable[..., None],
    ) -> None:
        super().__init__(start)
        self.id: str = id
        self.config: Config = config
        self.path: str = path
        self.port: int | None = port
        self.retries_remaining: float = config.max_retries or 0
        self.explicitly_disconnected: bool = False
        self.destroyed: bool = False
        self._endpoint = endpoint
        self._raw = config.raw_buffer
        self._options = {
            "reconnect_interval": config.retry / 1000,
            "reconnect_max_interval": max(config.retry / 1000, 0.001),
            "reconnect_factor": 1.0,
            "reconnect_jitter": False,
            **connection_options(config),
        }
        self._router = pyipc.Router()
        self._router.on("**", self._hear)
        self._client: pyipc.Client | None = None
        self._early: list[tuple[str, Any]] = []
        self._leaving = trio.Event()
        self._trying = trio.CancelScope()
        # Set while there is no connection of which the program was told.
        self._offline = trio.Event()
        self._offline.set()
        self._queue: SyncQueue | None = None
        if config.sync:
            timeout = None if config.sync_timeout is None else config.sync_timeout / 1000
            self._queue = SyncQueue(self._send, self._fail, timeout, MOST_WAITING)

    def __repr__(self) -> str:
        state = "destroyed" if self.destroyed else "not connected" if self._offline.is_set() else "connected"
        return f"<Client {self.id!r} {state}>"

    @property
    def is_over(self) -> bool:
        """Whether it takes nothing more: it was disconnected, or gave up."""
        return self.explicitly_disconnected or self.destroyed

    # --- sending ---

    def emit(self, event: Any, data: object = None) -> None:
        """Send an event; in raw mode, ``emit(bytes)``. What is emitted without a connection waits for one.

        Args:
            event: The name; in raw mode, what to send: bytes, a list of numbers, or text in ``config.encoding``.
            data: Anything that has a JSON form.

        Raises:
            LocalProtocolError: The name or the data cannot be sent.
            ConnectionClosed: The client is over, or too much waits for a connection.
            trio.WouldBlock: Too much waits to be sent; `flush` waits until it is.
        """
        if self.is_over:
            raise pyipc.ConnectionClosed(
                f"the client {self.id!r} was disconnected, or gave up; connect_to makes another"
            )
        if self._raw:
            event, data = "data", to_bytes(event, self.config.encoding)
        if self._queue is not None:
            self._queue.add(event, data)
        elif self._client is None:
            if len(self._early) >= MOST_WAITING:
                raise trio.WouldBlock("too much was emitted before the program runs")
            self._early.append((event, copy.deepcopy(data)))
        else:
            self._send(event, data)

    async def flush(self) -> None:
        """Wait until everything emitted so far is with the operating system.

        Raises:
            ConnectionClosed: There is no connection, or it ended meanwhile.

        Cancellation: nothing is unsent by it.
        """
        if self._client is None:
            await trio.lowlevel.checkpoint()
            raise pyipc.ConnectionClosed(f"the client {self.id!r} is not connected")
        await self._client.flush()

    def _send(self, event: str, data: object) -> None:
        assert self._client is not None
        try:
            self._client.emit_nowait(event, data)
        except trio.WouldBlock:
            raise trio.WouldBlock(
                f"{self.id!r} reads too slowly, and too much waits to be sent; "
                f"await ipc.of[{self.id!r}].flush() now and then"
            ) from None

    # --- living ---

    async def run(self) -> None:
        """Be a client until there is no more to do; whoever made it runs it.

        Cancellation: closes at once.
        """
        try:
            with self._trying:
                async with pyipc.connect(
                    self._endpoint,
                    router=self._router,
                    wait=False,
                    on_connect=self._on_connect,
                    on_disconnect=self._on_disconnect,
                    on_failed_connect=self._on_failed_connect,
                    **self._options,
                ) as self._client:
                    await self._use(self._client)
        except pyipc.IPCError as error:  # an address that this system does not have; or not everything could be sent
            self._fail(error)
        finally:
            self.destroyed = True
            client, self._client = self._client, None
        if self._trying.cancelled_caught and client is not None and client.statistics().offline_messages:
            lost = client.statistics().offline_messages
            logger.warning("gave up on %r; %d messages that waited for a connection are lost", self.id, lost)
        self._announce("destroy")

    async def _use(self, client: pyipc.Client) -> None:
        for event, data in self._early:
            try:
                self._send(event, data)
            except Exception as error:
                self._fail(error)
        self._early.clear()
        if self._queue is None:
            await self._leaving.wait()
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._queue.run)
            await self._leaving.wait()
            with trio.move_on_after(self._options.get("close_timeout", CLOSE_TIMEOUT)):
                await self._queue.drain()
            nursery.cancel_scope.cancel()

    def disconnect(self) -> None:
        """Send what is queued, close, and do not come back."""
        self.explicitly_disconnected = True
        self._leaving.set()

    def _count_down(self) -> None:
        if self.explicitly_disconnected:
            return
        if self.config.stop_retrying or self.retries_remaining < 1:
            self._trying.cancel()
        else:
            self.retries_remaining -= 1

    # --- what happens to it ---

    async def _on_connect(self, connection: pyipc.Connection) -> None:
        await self._offline.wait()  # until the end of the last connection was told
        self._offline = trio.Event()
        if self._queue is not None:
            self._queue.connected()
        self._announce("connect")
        self.retries_remaining = self.config.max_retries or 0

    def _on_disconnect(self, reason: pyipc.Disconnected) -> None:
        if self._queue is not None:
            self._queue.disconnected()
        if isinstance(reason.error, Exception):
            self._fail(reason.error)
        self._offline.set()
        self._announce("disconnect", reason)
        self._count_down()

    def _on_failed_connect(self, error: pyipc.IPCError) -> None:
        self._fail(error)
        if isinstance(error, pyipc.AddressError):
            self._trying.cancel()  # no other attempt would fare better
        self._count_down()

    def _fail(self, error: Exception) -> None:
        logger.info("%r: %s", self.id, error)
        self._announce("error", error)

    async def _hear(self, message: pyipc.Message[Any]) -> None:
        if self._queue is not None:
            self._queue.heard()
        if message.event in _LIFECYCLE:
            logger.warning("the server of %r sent %r, which only happens here; it was ignored", self.id, message.event)
            return
        await self.publish(message.event, message.data)
