"""A worker, as its own program sees it."""

from __future__ import annotations

import functools
import logging
import traceback
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar, overload

import trio

import pyipc
from pyipc.cluster.correspondence import Correspondence
from pyipc.cluster.linking import WorkerPeer
from pyipc.cluster.taking import Wanted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from pyipc.cluster.environment import Invitation
    from pyipc.cluster.hosting import WorkerHost
    from pyipc.cluster.linking import Colleague
    from pyipc.cluster.links import Links
    from pyipc.cluster.listeners import HandedStream
    from pyipc.cluster.superior import Superior

__all__ = ["Worker"]

logger: logging.Logger = logging.getLogger("pyipc.cluster")

F = TypeVar("F", bound="Callable[[pyipc.Message[Any]], object]")


class Worker(Correspondence):
    """This process, as a worker of a cluster. Made by `join`, and given to the function that a worker runs.

    Args:
        invitation: What the primary told it.
        primary: Whom it tells how it gets on.
        messages: The client for what programs say.
        router: The handlers of that client.
        links: Its connections with other workers.
        host: Through whom its servers listen.
        from_primary: The connection for what programs say, once it is there.

    Attributes:
        id: Its id.
        role: Its role; may be empty.
        generation: How many processes this worker has had, this one included.
        links: Its connections with other workers.
        exited_after_disconnect: Whether it is to end for good, because it wants to.
        is_run: Whether its program waits in `run`, or has done so to the end.
    """

    def __init__(
        self,
        invitation: Invitation,
        primary: Superior,
        messages: pyipc.Client,
        router: pyipc.Router,
        links: Links,
        host: WorkerHost,
        from_primary: set[pyipc.Connection],
    ) -> None:
        self.id: str = invitation.id
        self.role: str = invitation.role
        self.generation: int = invitation.generation
        self._invitation = invitation
        self._primary = primary
        self._messages = messages
        self._router = router
        self.links: Links = links
        self._host = host
        self._from_primary = from_primary
        self._wanted = Wanted(router, primary.taking)
        self._is_asking = False
        self._draining = trio.Event()
        self._left = trio.Event()
        self._drain_deadline = float("inf")
        self._busy = 0
        self._idle = trio.Event()
        self._idle.set()
        self._is_ready = False
        self._has_left = False
        self.exited_after_disconnect: bool = False
        self.is_run: bool = False

    def __repr__(self) -> str:
        role = f" ({self.role})" if self.role else ""
        state = "draining" if self.draining else "ready" if self._is_ready else "starting"
        return f"<Worker {self.id!r}{role} {state}, generation {self.generation}>"

    # --- what it is ---

    @property
    def is_connected(self) -> bool:
        """Whether its primary can be reached."""
        return self._messages.connected

    @property
    def draining(self) -> bool:
        """Whether it is to finish what is under way, and to take nothing new."""
        return self._draining.is_set()

    async def wait_draining(self) -> None:
        """Wait until it is to finish what is under way.

        Cancellation: nothing is changed by it.
        """
        await self._draining.wait()

    # --- readiness ---

    async def ready(self) -> None:
        """Tell the primary that this worker can do its work. May be called more than once.

        Without a call a worker is ready when its first server listens, or when it waits in `run`; with the setting
        ``wait_ready`` a call it must be.

        Raises:
            ConnectionClosed: The primary is gone.

        Cancellation: it may have been told.
        """
        self._tell_ready()
        await self._primary.flush()  # what the program does next may be long, and nothing is sent meanwhile

    def _tell_ready(self) -> None:
        if not self._is_ready:
            self._is_ready = True
            self._host.begin.set()
            self._primary.ready()

    def can_serve(self) -> None:
        """A server of this worker listens."""
        if not self._invitation.wait_ready and self._primary.is_connected:
            self._tell_ready()

    async def run(self) -> None:
        """Be ready, and wait until this worker is to leave: for workers that only answer messages.

        Cancellation: nothing is changed by it.
        """
        if not self._invitation.wait_ready:
            await self.ready()
        self.is_run = True
        try:
            await self._left.wait()
        except trio.Cancelled:
            self.is_run = False
            raise

    @asynccontextmanager
    async def busy(self) -> AsyncIterator[None]:
        """A block that a worker which is to leave finishes first."""
        self._busy += 1
        if self._busy == 1:
            self._idle = trio.Event()
        try:
            yield
        finally:
            self._busy -= 1
            if not self._busy:
                self._idle.set()

    # --- handlers ---

    @overload
    def on(self, pattern: str, handler: None = None) -> Callable[[F], F]: ...

    @overload
    def on(self, pattern: str, handler: F) -> F: ...

    def on(self, pattern: str, handler: Any = None) -> Any:
        """Handle what comes from the primary, or from other workers. See `pyipc.Server.on`.

        What the primary sends while this worker starts waits, with its sender, until there is a handler for it or the
        worker is ready.
        """
        if handler is None:
            return functools.partial(self.on, pattern)
        self._router.on(pattern, handler)
        self._wanted.look()
        return handler

    @overload
    def once(self, pattern: str, handler: None = None) -> Callable[[F], F]: ...

    @overload
    def once(self, pattern: str, handler: F) -> F: ...

    def once(self, pattern: str, handler: Any = None) -> Any:
        """Likewise, but only the next time."""
        if handler is None:
            return functools.partial(self.once, pattern)
        self._router.once(pattern, handler)
        self._wanted.look()
        return handler

    def off(self, pattern: str, handler: Any = None) -> None:
        """Handle it no more; without a handler, remove all of this pattern that were registered here."""
        self._router.off(pattern, handler)

    def events(self, pattern: str, *, max_buffered: int = 1_024) -> pyipc.EventStream[Any]:
        """What the primary sends under a name as an asynchronous iterator. See `pyipc.Client.events`."""
        stream = self._messages.events(pattern, max_buffered=max_buffered)
        self._wanted.listen(pattern)
        return stream

    def expect(self, pattern: str, *, max_buffered: int = 1_024) -> pyipc.EventStream[Any]:
        """Listen for an answer of the primary that comes as an event. See `pyipc.Client.expect`."""
        stream = self._messages.expect(pattern, max_buffered=max_buffered)
        self._wanted.listen(pattern)
        return stream

    def want(self, event: str) -> None:
        """The primary has something under a name; see `Wanted.want`."""
        self._wanted.want(event)

    async def tell_failure(self, error: BaseException) -> None:
        """Tell the primary why the program failed, for its log.

        Cancellation: it may have been told.
        """
        await self._primary.failed(one_line(error))

    @property
    def default_drain_timeout(self) -> float | None:
        """Seconds that it may take to leave, where nobody says otherwise."""
        return self._invitation.drain_timeout

    # --- listening ---

    @property
    def host(self) -> pyipc.Host:
        """Through whom its servers listen: the primary. `join` makes it the host of all that the program starts."""
        return self._host

    async def open_listeners(self, address: str | pyipc.Address) -> list[trio.abc.Listener[HandedStream]]:
        """Listen through the primary for something that is not of pyipc, such as an HTTP server.

        What is accepted are streams of trio; a server for listeners of trio takes them as they are::

            await trio.serve_listeners(handle, await worker.open_listeners("tcp://127.0.0.1:8000"))

        Once the worker is to leave nothing more is accepted, and it ends when all these streams are closed.

        Args:
            address: Where, such as ``"tcp://127.0.0.1:8000"`` or ``"unix:/run/app.sock"``.

        Raises:
            AddressInUse: Another program listens there, or this worker does already.
            ListenError: The primary cannot listen there.
            AddressError: The address is wrong, or cannot be shared between processes.
            ConnectionClosed: The primary is gone.

        Cancellation: the primary gives the address up after a while.
        """
        return await self._host.open_listeners(address)

    # --- talking to other workers ---

    def connect(
        self, id: str | None = None, *, role: str | None = None, router: pyipc.Router | None = None, **options: Any
    ) -> AbstractAsyncContextManager[pyipc.Client]:
        """Connect to another worker, for the length of an ``async with`` block, without the primary in between.

        What is sent there goes to the handlers that are registered with its `on`. Entering waits until that worker is
        ready; two that wait for each other before they are ready wait in vain. If its process ends, or is replaced, the
        client connects to the next one.

        Args:
            id: Its id.
            role: Or its role: the ready worker with the least to do is chosen, and another when that is gone.
            router: Handlers for what it sends back.
            **options: Any of `pyipc.Options`. By default there is no limit to how long it may take to start, nor to how
                long a request may take.

        Returns:
            What yields a client, with all that `pyipc.connect` gives.

        Raises:
            UnknownWorker: There is no such worker, or none any more. On entering.
            TypeError: There is neither an id nor a role, or there are both.
        """
        return self.links.connect(id, role, router, options)

    def to(self, id: str | None = None, *, role: str | None = None) -> Colleague:
        """Another worker, for what is to be sent to it now and then: ``await worker.to("mailer-1").request(...)``.

        One connection is made when it is first needed, and kept. With a role it goes to the same worker as long as that
        is there.

        Raises:
            TypeError: There is neither an id nor a role, or there are both.
        """
        return self.links.to(id, role)

    def sender_of(self, message: pyipc.Message[Any]) -> str | None:
        """The id of the worker that a message came from, as the primary tells; ``"primary"``; or ``None``.

        ``None`` is for messages of others, such as clients of a server in this worker.
        """
        peer = message.connection.peer
        if isinstance(peer, WorkerPeer):
            return peer.worker
        return "primary" if message.connection in self._from_primary else None

    # --- its end ---

    def disconnect(self) -> None:
        """Begin to leave, for good: finish what is under way, tell the primary that this was meant, and end."""
        self.exited_after_disconnect = True
        self.begin_draining(self._invitation.drain_timeout)

    def begin_draining(self, timeout: float | None) -> None:
        """It is to leave.

        Args:
            timeout: Seconds that it may take; ``None`` for as long as it likes.
        """
        deadline = trio.current_time() + (float("inf") if timeout is None else timeout)
        self._drain_deadline = min(self._drain_deadline, deadline)
        self._draining.set()

    @property
    def drain_deadline(self) -> float:
        """When it must be done, in trio's time."""
        return self._drain_deadline

    async def drain(self) -> None:
        """Wait until it is to leave, and then until nothing is under way any more, or the time is over.

        Cancellation: nothing is changed by it.
        """
        await self._draining.wait()
        await trio.lowlevel.checkpoint()  # whoever waits to hear of it may have something to finish
        with trio.move_on_at(self._drain_deadline), suppress(pyipc.ConnectionClosed):
            await self._finish()
            await self.leave()
        self._left.set()

    async def _finish(self) -> None:
        """Let what is under way here come to its end."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.links.drain)
            await self._host.drain()
        while self._busy:
            await self._idle.wait()

    async def leave(self) -> None:
        """Have the primary send nothing more, and wait until all that it has sent is handled.

        Raises:
            ConnectionClosed: The primary is gone.

        Cancellation: nothing more may be sent.
        """
        if self._has_left:
            await trio.lowlevel.checkpoint()
            return
        self._has_left = True
        await self._primary.leave(self._messages, for_good=self.exited_after_disconnect)


def one_line(error: BaseException) -> str:
    """An error in one line, for a log."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return "".join(traceback.format_exception_only(error)).strip().splitlines()[-1][:500]
