"""Bringing what arrives to its handlers: in order, without waiting, without deadlock.

One task at a time *leads*: it reads a batch and deals with each item in turn. Handlers run right
there. A handler that never waits, which is the usual case, thus costs no task and no scheduler
turn. The moment that one does wait, the lead passes to another task, together with the rest of the
batch, so reading never stops for user code; the task that waited stays with its handler.

Events of a connection are handled one after the other: while one is at work, later ones queue in
the inbox. Requests run beside them, up to a limit of slots; a handler that waits for its own
connection gives up its slot, since the answer may depend on another request being served.
"""

from __future__ import annotations

import collections
import contextvars
import inspect
import logging
import math
from typing import TYPE_CHECKING, Any, cast

import trio

from pyipc.errors import ConnectionLost, InvalidData, LocalProtocolError, MessageTooLarge, RemoteProtocolError
from pyipc.message import Message
from pyipc.protocol.codec import Event, convert
from pyipc.protocol.messages import Cancel, Introduced, Malformed, Request
from pyipc.slots import Slot, current_slot
from pyipc.watched import Watched

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from pyipc.connection import Connection
    from pyipc.options import Options
    from pyipc.outbox import Outbox
    from pyipc.protocol.conversation import Conversation, Inbound
    from pyipc.reader import Reader
    from pyipc.router import Handler, Router
    from pyipc.transports.port import Link

__all__ = ["Batch", "Dispatcher"]

logger: logging.Logger = logging.getLogger("pyipc.dispatch")

# One task waits in reserve, so that passing the lead on usually costs no new task.
_MAX_SPARE = 1
# A handler that does not wait must not keep everybody else waiting for a whole inbox.
_TURN = 256
_MAX_ERROR_TEXT = 1_000
# What an event takes in memory besides its bytes; without it, a flood of tiny ones would weigh nothing.
_ITEM_SIZE = 256


class Batch:
    """What was read at once.

    Its bytes weigh in full for as long as one of its items waits: to share them out among the items would let a
    peer hide a large one among many that never wait.

    Attributes:
        items: What the bytes say, in order.
        size: How many bytes they are.
        time: When they were read, in trio's time.
        waiting: How many of the items wait for a handler.
    """

    __slots__ = ("items", "size", "time", "waiting")

    def __init__(self, items: list[Inbound], size: int, time: float) -> None:
        self.items: list[Inbound] = items
        self.size: int = size
        self.time: float = time
        self.waiting: int = 0


class Dispatcher:
    """Deals with everything that one peer sends.

    Args:
        connection: What messages say they came from.
        conversation: Makes the bytes of answers.
        outbox: Takes them.
        router: Finds handlers.
        options: Limits.
        link: Where it comes from.
        reader: Makes batches of it, and knows whose turn it is to read.
        settle: Deals with what is not for users.
        overflow: Called when more has arrived than may wait here.
        greet: Called before anything else, with the connection.

    Attributes:
        size: Bytes of the reads of which something waits for a handler, and 256 more for each such item.
        slots_used: Requests being handled.
        paused: Whether reading has stopped until there is room.
        resumed_at: When reading last went on after a pause, in trio's time.
        events_received: Events and requests that arrived for handlers.
        unheard: Events that no handler was interested in.
        handler_errors: Handlers that raised.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        conversation: Conversation,
        outbox: Outbox,
        router: Router,
        options: Options,
        link: Link,
        reader: Reader,
        settle: Callable[[Inbound], None],
        overflow: Callable[[], None],
        greet: Callable[[Connection], object] | None,
        greet_after_hello: bool = False,
    ) -> None:
        self._connection = connection
        self._conversation = conversation
        self._outbox = outbox
        self._router = router
        self._options = options
        self._link = link
        self._reader = reader
        self._settle = settle
        self._overflow = overflow
        self._greet = greet
        self._greet_after_hello = greet_after_hello
        self._spawn: Callable[..., None] = _not_running
        self._leader: trio.CancelScope | None = None
        self._spares = trio.lowlevel.ParkingLot()
        self._pause = trio.lowlevel.ParkingLot()
        self._items: Iterator[Inbound] = iter(())
        self._batch = Batch([], 0, 0.0)
        self._inbox: collections.deque[tuple[Event, Batch]] = collections.deque()
        self._queued: dict[int, tuple[Request, Batch]] = {}
        self._running: dict[int, trio.CancelScope] = {}
        self._lane_busy = False
        self._alone = False
        self._opening = False
        self._ended = False
        self._discarding = False
        self.size: int = 0
        self.slots_used = 0
        self.paused: bool = False
        self.resumed_at: float = -math.inf
        self.events_received: int = 0
        self.unheard: int = 0
        self.handler_errors: int = 0

    # --- the tasks ---

    def begin(self, spawn: Callable[..., None]) -> None:
        """Learn how to start tasks beside the first one, whose `work` comes next."""
        # Tasks are started by handlers that are about to wait. They must not inherit what those have set.
        pristine = contextvars.copy_context()
        self._spawn = lambda task, *args: pristine.copy().run(spawn, task, *args)

    async def work(self) -> None:
        """Be one of the connection's tasks, until it has ended or there are enough of them."""
        with trio.CancelScope() as scope:
            while not self._ended and not scope.cancel_called:
                if self._leader is None:
                    self._leader = scope
                    await self._lead(scope)
                elif len(self._spares) < _MAX_SPARE:
                    await self._spares.park()
                else:
                    return

    def _hand_over(self) -> None:
        """Let another task lead; the caller is about to wait."""
        self._leader = None
        self._alone = self._outbox.corked = False
        self._outbox.flush_nowait()
        if self._spares:
            self._spares.unpark()
        else:
            self._spawn(self.work)

    async def _lead(self, scope: trio.CancelScope) -> None:
        """Read and dispatch until the peer has sent its last, or another task has the lead."""
        if self._greet is not None and not self._greet_after_hello:
            await self._open(scope)
            if self._leader is not scope:
                return
        outbox, router, connection = self._outbox, self._router, self._connection
        reader, receive = self._reader, self._link.receive
        while True:
            # What one name means is looked up once for as many of its events as come in a row.
            name, version, simple = "", -1, None
            handlers: tuple[Handler, ...] = ()
            for item in self._items:
                if type(item) is Event:
                    if self._lane_busy:
                        self._enqueue(item)
                        continue
                    if item.type != name or router.version != version:
                        name, version = item.type, router.version
                        handlers = router.handlers_for(name)
                        simple = handlers[0].call if len(handlers) == 1 and handlers[0].is_simple else None
                    if simple is None:
                        others = iter(handlers)
                        waiting = self._call_handlers(item, others)
                        if waiting is None:
                            continue
                    else:
                        # The usual case, without iterators: one handler, untyped, for every event.
                        self.events_received += 1
                        try:
                            waiting = simple(Message(name, item.data, connection))
                        except Exception:
                            self._report("a handler", name)
                            continue
                        if waiting is None or not hasattr(type(waiting), "__await__"):
                            continue
                        others = iter(())
                    await self._run_lane(scope, item, waiting, others)
                    if self._leader is not scope:
                        return
                elif type(item) is Request:
                    answer = self._on_request(item)
                    if answer is not None:
                        await self._answer(scope, item, answer, Slot(self), leading=True)
                        if self._leader is not scope:
                            return
                elif type(item) is Cancel:
                    self._on_cancel(item.call)
                else:
                    self._settle(item)
                    if type(item) is Introduced and self._greet is not None:
                        await self._open(scope)
                        if self._leader is not scope:
                            return
            self._alone = outbox.corked = False
            if outbox.size:
                outbox.flush_nowait()
            if self.size >= self._options.inbox_high_water_size:
                await self._wait_for_room()
            if reader.is_due and await reader.rest():
                batch = reader.passed
            else:
                # Here and not in a method of the reader, as each level of coroutines is run through for every batch.
                try:
                    chunk = await receive()
                except ConnectionLost as error:
                    reader.broken(error)
                    batch = None
                else:
                    batch = reader.digest(chunk)
            if batch is None:
                self._end()
                return
            if self._discarding:
                continue
            self._items = iter(batch.items)
            self._batch = batch
            self._alone = len(batch.items) == 1
            outbox.corked = True

    async def _wait_for_room(self) -> None:
        """Read no more until enough of what has arrived is handled, or reading is the only way on."""
        while self.size >= self._options.inbox_high_water_size and not self._must_read():
            self.paused = True
            await self._pause.park()
        if self.paused:
            self.paused = False
            self.resumed_at = trio.current_time()

    def _must_read(self) -> bool:
        """Whether stopping to read could keep this side waiting for ever."""
        return self._discarding or self._connection.is_waiting

    def _end(self) -> None:
        self._leader = None
        self._ended = True
        self._spares.unpark_all()

    def resume(self) -> None:
        """Look again whether reading may go on."""
        if self.paused:
            self._pause.unpark_all()

    def discard(self) -> None:
        """From now on read only to see the end; handlers at work go on."""
        self._discarding = True
        self._items = iter(())
        self._inbox.clear()
        self._queued.clear()
        self.size = 0
        self.resume()

    def cancel_requests(self) -> None:
        """Cancel every request at work: nobody is left to answer to."""
        self._queued.clear()
        for scope in list(self._running.values()):
            scope.cancel()

    # --- the lane: events, one after the other ---

    async def _open(self, scope: trio.CancelScope) -> None:
        """Greet the peer before any of its messages is handled."""
        assert self._greet is not None
        greet, self._greet = self._greet, None
        try:
            result = greet(self._connection)
            if inspect.isawaitable(result):
                self._lane_busy = self._opening = True
                await Watched(result, self._hand_over)
        except Exception:
            self._report("the on_connect handler", "on_connect")
        self._opening = False
        self.start_queued()
        if self._leader is not scope:
            await self._drain()
        self._lane_busy = False

    def _enqueue(self, event: Event) -> None:
        self._inbox.append((event, self._batch))
        self._grow()

    def _grow(self) -> None:
        """One more item of the present batch waits."""
        batch = self._batch
        self.size += _ITEM_SIZE + (0 if batch.waiting else batch.size)
        batch.waiting += 1
        if self.size > self._options.max_inbox_size:
            self._overflow()

    def _shrink(self, batch: Batch) -> None:
        """One item of a batch waits no more."""
        batch.waiting -= 1
        self.size -= _ITEM_SIZE + (0 if batch.waiting else batch.size)
        if self.paused and self.size < self._options.inbox_high_water_size:
            self._pause.unpark_all()

    def _call_handlers(self, event: Event, handlers: Iterator[Handler]) -> Awaitable[object] | None:
        """Call handlers until one has to be awaited; that one's awaitable is returned."""
        self.events_received += 1
        message = None
        heard = False
        for handler in handlers:
            if handler.once and not self._router.discard(handler):
                continue  # another connection was faster
            heard = True
            if handler.data_type is None:
                message = message or Message(event.type, event.data, self._connection)
                given = message
            else:
                try:
                    given = Message(event.type, convert(event.data, handler.data_type), self._connection)
                except InvalidData as error:
                    # The peer's fault, not the handler's, and no reason to write a traceback for each event.
                    address = self._connection.peer.address
                    logger.warning("%s sent %r with data that does not fit at %s", address, event.type, error.path)
                    continue
            try:
                result = handler.call(given)
            except Exception:
                self._report("a handler", event.type)
            else:
                if hasattr(type(result), "__await__"):
                    return cast("Awaitable[object]", result)
        if not heard:
            self.unheard += 1
        return None

    async def _run_lane(
        self, scope: trio.CancelScope, event: Event, waiting: Awaitable[object] | None, handlers: Iterator[Handler]
    ) -> None:
        """Finish an event whose handler is to be awaited; if that cost the lead, also all that queued behind it."""
        self._lane_busy = True
        while waiting is not None:
            try:
                await (Watched(waiting, self._hand_over) if self._leader is scope else waiting)
            except Exception:
                self._report("a handler", event.type)
            waiting = self._call_handlers(event, handlers)
        if self._leader is not scope:
            await self._drain()
        self._lane_busy = False

    async def _drain(self) -> None:
        turn = 0
        while self._inbox:
            event, batch = self._inbox.popleft()
            handlers = iter(self._router.handlers_for(event.type))
            while (waiting := self._call_handlers(event, handlers)) is not None:
                try:
                    await waiting
                except Exception:
                    self._report("a handler", event.type)
            self._shrink(batch)
            turn += 1
            if turn % _TURN == 0:
                await trio.lowlevel.checkpoint()

    # --- requests, beside the lane ---

    def _on_request(self, request: Request) -> Awaitable[object] | None:
        """Answer a request at once, queue it, or return what is to be awaited for its answer."""
        if request.call in self._running or request.call in self._queued:
            error = RemoteProtocolError("control", f"the peer used the number of call {request.call} twice")
            self._settle(Malformed(error, fatal=True))
            return None
        if self._opening or self._queued or self.slots_used >= self._options.max_concurrent_requests:
            self._queued[request.call] = (request, self._batch)
            self._grow()
            return None
        return self._call_responder(request)

    def _call_responder(self, request: Request) -> Awaitable[object] | None:
        self.events_received += 1
        try:
            handler = self._router.responder_for(request.event)
            if handler is None or (handler.once and not self._router.discard(handler)):
                self._fail(request, "no-handler", f"nothing here handles the request {request.event!r}")
                return None
            data = request.data
            if handler.data_type is not None:
                data = convert(data, handler.data_type)
            result: object = handler.call(Message(request.event, data, self._connection))
        except Exception as error:
            self._refuse(request, error)
            return None
        if hasattr(type(result), "__await__"):
            return cast("Awaitable[object]", result)
        self._reply(request, result)
        return None

    async def _answer(
        self, scope: trio.CancelScope, request: Request, answer: Awaitable[object], slot: Slot, *, leading: bool
    ) -> None:
        """Await a request's handler in a slot and send what it returns."""
        token = current_slot.set(slot)
        self._running[request.call] = scope
        try:
            result = await (Watched(answer, self._hand_over) if leading else answer)
        except Exception as error:
            self._refuse(request, error)
        else:
            self._reply(request, result)
        finally:
            del self._running[request.call]
            current_slot.reset(token)
            slot.release()

    def start_queued(self) -> None:
        """Start requests that waited for a slot, as far as there are slots."""
        free = self._options.max_concurrent_requests - self.slots_used
        while self._queued and free > 0 and not self._opening:
            request, batch = self._queued.pop(next(iter(self._queued)))
            self._shrink(batch)
            free -= 1
            # Slot and scope are taken now: until the task runs, the limit holds and a cancel finds it.
            scope = self._running[request.call] = trio.CancelScope()
            self._spawn(self._serve, scope, request, Slot(self))

    async def _serve(self, scope: trio.CancelScope, request: Request, slot: Slot) -> None:
        answer = self._call_responder(request)
        if answer is None:
            del self._running[request.call]
            slot.release()
        else:
            with scope:
                await self._answer(scope, request, answer, slot, leading=False)

    def _on_cancel(self, call: int) -> None:
        queued = self._queued.pop(call, None)
        if queued is not None:
            self._shrink(queued[1])
        scope = self._running.get(call)
        if scope is not None:
            scope.cancel()

    # --- answers ---

    def _reply(self, request: Request, result: object) -> None:
        try:
            frame = self._conversation.reply(request.call, result)
        except LocalProtocolError as error:
            self._refuse(request, error)
        else:
            self._send(frame)

    def _refuse(self, request: Request, error: Exception) -> None:
        """Tell the peer why its request has no answer."""
        if isinstance(error, InvalidData):
            self._fail(request, "invalid-data", str(error), {"path": error.path})
            return
        self._report("the handler of the request", request.event)
        code = "reply-too-large" if isinstance(error, MessageTooLarge) else "handler-failed"
        self._fail(request, code, f"{type(error).__name__}: {error}"[:_MAX_ERROR_TEXT])

    def _fail(self, request: Request, code: str, message: str, data: Any = None) -> None:
        self._send(self._conversation.failure(request.call, code, message, data))

    def _send(self, frame: bytes) -> None:
        """Queue an answer. A peer that asks but never reads is closed rather than waited for."""
        outbox = self._outbox
        try:
            if self._alone and not outbox.size:
                outbox.push_now(frame, self._batch.time)  # nothing follows that could go in the same write
            elif not outbox.offer(frame):
                self._overflow()
            elif self._ended:
                outbox.flush_nowait()  # this task may be the connection's last
        except ConnectionLost:
            pass  # nobody is left to answer to

    def _report(self, what: str, name: str) -> None:
        self.handler_errors += 1
        logger.exception("%s %r failed (%s)", what, name, self._connection.peer.address)


def _not_running(*args: object) -> None:
    raise RuntimeError("the connection is not running")
