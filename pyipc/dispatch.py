"""Bringing what arrives to its handlers: in order, without waiting, without deadlock.

One task at a time *leads*: it reads a batch and deals with each item in turn. Handlers run right
there. A handler that never waits, which is the usual case, thus costs no task and no scheduler
turn. The moment that one does wait, the lead passes to another task, together with the rest of the
batch, so reading never stops for user code; the task that led stays with the handler.

Events of a connection are handled one after the other: while one is at work, later ones queue in
the inbox. Requests run beside them, up to a limit of slots; a handler that waits for its own
connection gives up its slot, since the answer may depend on another request being served.
"""

from __future__ import annotations

import functools
import logging
import math
from typing import TYPE_CHECKING, Any, cast

import trio

from pyipc.arrival import Arrival, FullRequest
from pyipc.delivering import Delivery, deliver
from pyipc.digesting import digest, digest_on
from pyipc.errors import InvalidData
from pyipc.lineage import descends_from
from pyipc.message import Message
from pyipc.nursery import errors_told
from pyipc.protocol.codec import Event, convert
from pyipc.protocol.messages import Cancel, Introduced, Request
from pyipc.refusals import is_refusal, tell_of
from pyipc.rounds import level_of
from pyipc.waiting import begin

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from pyipc.connection import Connection
    from pyipc.inbox import Inbox
    from pyipc.options import Options
    from pyipc.outbox import Outbox
    from pyipc.protocol.conversation import Inbound
    from pyipc.reader import Reader
    from pyipc.responder import Responder
    from pyipc.router import Handler, Router
    from pyipc.transports.port import Link
    from pyipc.waiting import Waiting

__all__ = ["Dispatcher"]

logger: logging.Logger = logging.getLogger("pyipc.dispatch")

# One task waits in reserve, so that passing the lead on usually costs no new task.
_MAX_SPARE = 1
# A handler that does not wait must not keep everybody else waiting for a whole inbox.
_TURN = 256
# An iterator that is used up stays so: one will do for all.
_NOTHING: Iterator[Inbound] = iter(())


class Dispatcher:
    """Deals with everything that one peer sends.

    Args:
        connection: What messages say they came from.
        link: Where it comes from.
        reader: Makes items of it, and knows whose turn it is to read.
        inbox: Holds what has to wait.
        outbox: Takes what handlers send.
        responder: Deals with requests.
        router: Finds the handlers of events.
        options: Limits.
        greet: Called before anything else, with the connection.
        greet_after_hello: Whether "anything else" includes the peer's introduction.

    Attributes:
        paused: Whether reading has stopped until there is room.
        resumed_at: When reading last went on after a pause, in trio's time.
        received: Events that were brought to handlers.
        unheard: Events that no handler was interested in.
        failed: Handlers that failed.
        refused: Handlers that refused.
        bystanders: How many tasks wait at length for the peer and are no handlers of this connection.
    """

    __slots__ = (
        "_connection",
        "_discarding",
        "_ended",
        "_greet",
        "_greet_after_hello",
        "_greeting",
        "_high_water_size",
        "_inbox",
        "_items",
        "_lane",
        "_lane_busy",
        "_leader",
        "_leading_task",
        "_link",
        "_misfits",
        "_outbox",
        "_pause",
        "_reader",
        "_responder",
        "_router",
        "_spares",
        "bystanders",
        "failed",
        "paused",
        "received",
        "refused",
        "resumed_at",
        "unheard",
    )

    def __init__(
        self,
        connection: Connection,
        *,
        link: Link,
        reader: Reader,
        inbox: Inbox,
        outbox: Outbox,
        responder: Responder,
        router: Router,
        options: Options,
        greet: Callable[[Connection], object] | None,
        greet_after_hello: bool = False,
    ) -> None:
        self._connection = connection
        self._link = link
        self._reader = reader
        self._inbox = inbox
        self._outbox = outbox
        self._responder = responder
        self._router = router
        self._high_water_size = options.inbox_high_water_size
        self._greet = greet
        self._greet_after_hello = greet_after_hello
        self._leader: trio.CancelScope | None = None
        # Made when they are first needed, which in most connections is never.
        self._spares: trio.lowlevel.ParkingLot | None = None
        self._pause: trio.lowlevel.ParkingLot | None = None
        self._items: Iterator[Inbound] = _NOTHING
        self._lane_busy = False
        # The tasks that lead, and that handle events of which a handler waits. They know what they are called from.
        self._leading_task: trio.lowlevel.Task | None = None
        self._lane: trio.lowlevel.Task | None = None
        self._greeting: trio.lowlevel.Task | None = None
        self._ended = False
        self._discarding = False
        self._misfits = 0
        self.paused: bool = False
        self.resumed_at: float = -math.inf
        self.received: int = 0
        self.unheard: int = 0
        self.failed: int = 0
        self.refused: int = 0
        self.bystanders: int = 0

    # --- the tasks ---

    async def work(self, scope: trio.CancelScope) -> None:
        """Be one of the connection's tasks, until it has ended or there are enough of them.

        Args:
            scope: The scope around this task alone.
        """
        while not self._ended and not scope.cancel_called:
            if self._leader is None:
                self._leader = scope
                self._leading_task = trio.lowlevel.current_task()
                await self._lead(scope)
                continue
            if self._spares is None:
                self._spares = trio.lowlevel.ParkingLot()
            if len(self._spares) >= _MAX_SPARE:
                return
            await self._spares.park()

    def _hand_over(self) -> None:
        """Let another task lead; the caller is about to wait."""
        self._leader = self._leading_task = None
        self._outbox.uncork()
        if self._spares:
            self._spares.unpark()
        else:
            scope = trio.CancelScope()
            self._responder.spawn(self.work, scope, scope=scope)

    async def _lead(self, scope: trio.CancelScope) -> None:
        """Read and dispatch until the peer has sent its last, or another task has the lead."""
        if self._greet is not None and not self._greet_after_hello:
            greeting = self._greet_peer()
            if greeting is not None:
                await self._finish_greeting(greeting)
                return
        outbox, router, connection = self._outbox, self._router, self._connection
        reader, receive, responder = self._reader, self._link.receive, self._responder
        conversation = connection._conversation
        while True:
            # What one name means is looked up once for as many of its events as come in a row.
            name, version, simple = "", -1, None
            handlers: tuple[Handler, ...] = ()
            for item in self._items:
                if type(item) is Event:
                    if self._lane_busy:
                        self._inbox.put_event(item)
                        continue
                    self.received += 1
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
                        try:
                            result = simple(Message(name, item.data, connection))
                            if result is None or not hasattr(type(result), "__await__"):
                                continue
                            waiting = begin(result)
                        except Exception as error:
                            self._report("a handler", name, error)
                            continue
                        if waiting is None:
                            continue
                        others = iter(())
                    await self._finish_event(item, waiting, others)
                    return
                if type(item) is Request:
                    answer = responder.take(item)
                    if answer is not None:
                        self._hand_over()
                        await responder.finish(scope, answer)
                        return
                    if connection._reason is not None:
                        break
                elif type(item) is Cancel:
                    responder.cancel(item.call)
                else:
                    arrival = connection._settle(item)
                    if isinstance(arrival, FullRequest):
                        answer = responder.take(arrival)
                        if answer is not None:
                            self._hand_over()
                            await responder.finish(scope, answer)
                            return
                    elif arrival is not None:
                        if self._lane_busy:
                            self._inbox.put_event(arrival)
                            continue
                        self.received += 1
                        if type(arrival) is Delivery:
                            others = iter(())
                            waiting = begin(deliver(self, arrival))
                        else:
                            others = iter(arrival.handlers or router.handlers_for(arrival.type))
                            waiting = self._call_handlers(arrival, others)
                        if waiting is None:
                            continue
                        await self._finish_event(arrival, waiting, others)
                        return
                    if type(item) is Introduced and self._greet is not None:
                        greeting = self._greet_peer()
                        if greeting is not None:
                            await self._finish_greeting(greeting)
                            return
                    if connection._reason is not None:
                        break  # what stands behind the end, or behind what it was ended for, is not heard
            outbox.direct = outbox.corked = False
            outbox.shared = 0
            if outbox.frames:  # which may be empty ones
                outbox.flush_nowait()
            if self._inbox.size >= self._high_water_size:
                await self._wait_for_room()
            if conversation.is_busy:
                items: list[Inbound] | None = await digest_on(connection)
            elif reader.is_due and await reader.rest():
                items, reader.passed = reader.passed, None
            else:
                # Here and not in a method of the reader, as each level of coroutines is run through for every read.
                try:
                    chunk = await receive()
                except Exception as error:  # what a third party's link raises must not end more than its connection
                    connection._on_broken_link(error)
                    items = None
                else:
                    items = digest(connection, chunk)
            if items is None:
                self._end()
                return
            if self._discarding:
                continue
            self._items = iter(items)
            outbox.direct = len(items) == 1
            outbox.corked = True

    async def _wait_for_room(self) -> None:
        """Read no more until enough of what has arrived is handled, or reading is the only way on.

        Where a handler of this connection waits for the peer, what it waits for may stand behind any number of events,
        none of which can be handled before: it is read on, to the hard limit, and beyond that there is no way on. Where
        somebody else waits for long, such as a generator for credit, the handlers that are at work will most likely
        end without. Yet one of them may wait for just him, in a way that cannot be seen. So more is read, and then no
        more, and the connection stays. So it is while this side serves requests or streams of the peer, who may want
        to cancel them: that too stands behind the events. (Behind other requests it waits for less.)
        """
        self._connection._owner.weigh(self._connection)
        while not (self._discarding or self._connection.is_waiting):  # else it could be kept waiting for ever
            inbox, has_requests = self._inbox, self._responder.has_requests
            inbox.room = self._high_water_size * (1 + has_requests)
            if self.bystanders or (has_requests and self._lane_busy):
                inbox.room = inbox.extra_room
            if inbox.size < inbox.room:
                break
            self.paused = True
            if self._pause is None:
                self._pause = trio.lowlevel.ParkingLot()
            await self._pause.park()
        if self.paused:
            self.paused = False
            self.resumed_at = trio.current_time()

    @property
    def is_at_work(self) -> bool:
        """Whether a handler is at work that waits for something."""
        return self._lane_busy or self._responder.slots_used > 0

    @property
    def is_lane_busy(self) -> bool:
        """Whether a handler of an event is at work, so that later events have to wait."""
        return self._lane_busy

    def is_handling_event(self) -> bool:
        """Whether the present task is at work for a handler of an event, or is one that such a handler has started."""
        if self._lane is not None and descends_from(self._lane):
            return True
        # The first step of a handler is taken by the task that leads. So is that of a request's, which has a slot.
        return (
            not self._lane_busy
            and trio.lowlevel.current_task() is self._leading_task
            and not self._responder.is_current()
        )

    def is_handling(self) -> bool:
        """Whether the present task is at work for any handler of this connection, or is one that such has started."""
        if self._leading_task is trio.lowlevel.current_task() or self._responder.is_current():
            return True
        handler = self._lane or self._greeting
        return handler is not None and descends_from(handler)

    @property
    def handlers_at_work(self) -> int:
        """How many handlers are at work, also those that have lent their slots."""
        return self._lane_busy + self._responder.handlers_at_work

    def _end(self) -> None:
        self._leader = self._leading_task = None
        self._ended = self._responder.ended = True
        if self._spares:
            self._spares.unpark_all()

    def resume(self) -> None:
        """Look again whether reading may go on."""
        if self.paused and self._pause is not None:
            self._pause.unpark_all()

    def discard(self) -> None:
        """From now on read only to see the end; handlers at work go on."""
        self._discarding = True
        self._items = _NOTHING
        self._inbox.clear()
        self.resume()

    # --- the lane: events, one after the other ---

    def _greet_peer(self) -> Waiting | None:
        """Call what is to be told of the connection before any message is; if it waits, return the rest of it."""
        assert self._greet is not None
        greet, self._greet = self._greet, None
        task, self._leading_task = self._leading_task, None  # it handles no event meanwhile
        self._greeting = task
        try:
            result = greet(self._connection)
            waiting = begin(cast("Awaitable[object]", result)) if hasattr(type(result), "__await__") else None
        except Exception as error:
            self._report("the on_connect handler", "on_connect", error)
            waiting = None
        finally:
            self._leading_task = task
        if waiting is None:
            self._greeting = None
        return waiting

    async def _finish_greeting(self, greeting: Waiting) -> None:
        """Let everything that arrives wait for a greeting that waits itself."""
        self._lane_busy = self._responder.held_up = True
        task = self._leading_task
        self._hand_over()
        with errors_told(functools.partial(self._report, "the on_connect handler", "on_connect")):
            await greeting
        self._responder.held_up = False
        self._responder.start_queued()
        self._greeting = None
        self._lane = task
        await self._drain()

    def _call_handlers(
        self, event: Event | Arrival, handlers: Iterator[Handler], *, heard: bool = False
    ) -> Waiting | None:
        """Call handlers until one waits; return the rest of that one. ``heard`` says that others were called before."""
        message: Message[Any] | None = None
        for handler in handlers:
            if handler.once and not self._router.discard(handler):
                continue  # another connection was faster
            heard = True
            if handler.data_type is None:
                message = message or self._message(event, event.data)
                given = message
            else:
                try:
                    given = self._message(event, convert(event.data, handler.data_type))
                except InvalidData as error:
                    # The peer's fault, not the handler's, and no reason to write a traceback for each event.
                    self._misfits += 1
                    what = self._connection.peer.address, event.type, error.path
                    logger.log(level_of(self._misfits), "%s sent %r with data that does not fit at %s", *what)
                    continue
                except Exception as error:  # converting runs code of the declared type
                    self._report("the declared type of a handler for", event.type, error)
                    continue
            try:
                result = handler.call(given)
                waiting = begin(result) if hasattr(type(result), "__await__") else None
            except Exception as error:
                self._report("a handler", event.type, error)
            else:
                if waiting is not None:
                    return waiting
        if not heard:
            self.unheard += 1
        return None

    def _message(self, event: Event | Arrival, data: Any) -> Message[Any]:
        if type(event) is Event:
            return Message(event.type, data, self._connection)
        return event.message(data, self._connection)  # type: ignore[union-attr]

    async def _finish_event(self, event: Event | Arrival, waiting: Waiting | None, others: Iterator[Handler]) -> None:
        """Pass the lead on, finish an event of which a handler waits, and all that queued behind it."""
        self._lane_busy = True
        self._lane = self._leading_task
        self._hand_over()
        await self._finish_handlers(event, waiting, others)
        await self._drain()

    async def _finish_handlers(
        self, event: Event | Arrival, waiting: Waiting | None, others: Iterator[Handler]
    ) -> None:
        while waiting is not None:
            with errors_told(functools.partial(self._report, "a handler", event.type)):
                await waiting
            waiting = self._call_handlers(event, others, heard=True)

    async def _drain(self) -> None:
        """Finish all that queued behind an event, and leave the lane."""
        turn = 0
        inbox = self._inbox
        while inbox.events:
            event, read = inbox.events.popleft()
            self.received += 1
            if type(event) is Delivery:
                handlers: Iterator[Handler] = iter(())
                waiting = begin(deliver(self, event))
            else:
                chosen = event.handlers if type(event) is Arrival else None
                handlers = iter(chosen or self._router.handlers_for(event.type))
                waiting = self._call_handlers(event, handlers)
            if waiting is not None:
                await self._finish_handlers(event, waiting, handlers)
            inbox.shed(read)
            turn += 1
            if turn % _TURN == 0:
                await trio.lowlevel.checkpoint()
        self._lane = None
        self._lane_busy = False
        if self._connection._quiet is not None:
            self._connection._note_quiet()

    def _report(self, what: str, name: str, error: Exception) -> None:
        self.failed += tell_of(error, f"{what} {name!r}", self._connection)
        self.refused += is_refusal(error)
