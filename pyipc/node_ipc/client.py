"""A client: what is in ``ipc.of``."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, cast

import trio

import pyipc
from pyipc.node_ipc.backlog import Backlog
from pyipc.node_ipc.config import client_options, most_retries, sync_timeout
from pyipc.node_ipc.emitter import Emitter
from pyipc.node_ipc.encoding import to_bytes
from pyipc.node_ipc.syncing import SyncQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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

    Raises:
        TypeError, ValueError: An option cannot work.

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
        self.retries_remaining: float = most_retries(config)
        self.explicitly_disconnected: bool = False
        self.destroyed: bool = False
        self._endpoint = endpoint
        self._raw = config.raw_buffer
        self._option_values: dict[str, Any] = client_options(config)
        self._options = pyipc.Options.of(cast("Any", self._option_values))  # which finds what cannot work
        self._router = pyipc.Router()
        self._router.on("**", self._hear)
        self._client: pyipc.Client | None = None
        # What was emitted before it runs; with `sync`, what has not had its turn.
        self._backlog = Backlog(endpoint, self._options, "their turn comes" if config.sync else "the program runs")
        self._leaving = trio.Event()
        self._trying = trio.CancelScope()
        # The program is told of one connection at a time, in their order; others may have come and gone meanwhile.
        self._turn = trio.Lock()
        self._told: object = None
        # Set while there is no connection of which the program was told.
        self._offline = trio.Event()
        self._offline.set()
        self._queue: SyncQueue | None = None
        if config.sync:
            self._queue = SyncQueue(self._backlog, self._send, self._fail, sync_timeout(config))

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
            trio.WouldBlock: Too much waits to be sent; `flush` waits until it is. Or, before the program runs and
                with ``config.sync``: too much waits until it can be.
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
            self._backlog.add(event, data)
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
                    **self._option_values,
                ) as self._client:
                    await self._use(self._client)
        except pyipc.IPCError as error:  # an address that this system does not have; or not everything could be sent
            self._fail(error)
        finally:
            self.destroyed = True
            client, self._client = self._client, None
        lost = len(self._backlog)
        if self._trying.cancelled_caught and client is not None:
            lost += client.statistics().offline_messages
        if lost:
            logger.warning("%d messages that waited to be sent to %r are lost", lost, self.id)
            self._fail(pyipc.Undelivered(lost, f"{lost} messages to {self.id!r} were not sent before it was over"))
        self._announce("destroy")

    async def _use(self, client: pyipc.Client) -> None:
        if self._queue is None:
            for event, data in self._backlog.take_all():  # without giving way: what is emitted now comes after it
                with self._failure_told():
                    client.emit_nowait(event, data)
            await self._leaving.wait()
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._queue.run)
            await self._leaving.wait()
            nursery.cancel_scope.cancel()
        # Nobody will wait for the answers any more.
        with trio.move_on_after(self._options.close_timeout):
            for event, data in self._backlog.take_all():
                with self._failure_told():
                    await client.emit(event, data)

    @contextmanager
    def _failure_told(self) -> Iterator[None]:
        try:
            yield
        except pyipc.IPCError as error:
            self._fail(error)

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
        async with self._turn:
            await self._offline.wait()  # until the end of the last connection was told
            self._offline = trio.Event()
            self._told = connection
        if self._queue is not None:
            self._queue.connected()
        self._announce("connect")
        self.retries_remaining = most_retries(self.config)

    def _on_disconnect(self, reason: pyipc.Disconnected) -> None:
        was_told = reason.connection is self._told
        if was_told and self._queue is not None:
            self._queue.disconnected()
        if isinstance(reason.error, Exception):
            self._fail(reason.error)
        if was_told:
            self._told = None
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
