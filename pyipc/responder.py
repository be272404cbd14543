"""Answering the requests of one peer: beside its events, up to a limit of slots.

A request whose handler never waits is answered where it was found. Any other takes a slot, and when all are taken
later requests wait in the inbox. A handler that waits for the connection its request came from lends its slot to
others meanwhile, since what it waits for may depend on another request being served.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, cast

import trio

from pyipc.arrival import FullRequest
from pyipc.attaching import Attached, note_sent, wrap
from pyipc.errors import ConnectionLost, LocalProtocolError, RemoteProtocolError
from pyipc.message import FullMessage, Message
from pyipc.nursery import errors_told
from pyipc.outbox import SHARE_SIZE
from pyipc.producing import Producers
from pyipc.protocol.codec import convert
from pyipc.protocol.features import OpenStream, ReceivedOpening
from pyipc.protocol.messages import Malformed
from pyipc.refusals import is_refusal, tell_of, what_went_wrong
from pyipc.slots import Slot, current_slot
from pyipc.waiting import Waiting

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Awaitable, Callable

    from pyipc.connection import Connection
    from pyipc.inbox import Inbox
    from pyipc.options import Options
    from pyipc.outbox import Outbox
    from pyipc.protocol.conversation import Conversation
    from pyipc.protocol.messages import Request
    from pyipc.protocol.parcels import Frame
    from pyipc.reader import Reader
    from pyipc.router import Router

__all__ = ["Answering", "Responder"]

# What most handlers return: to look for __await__ in vain costs more than to look here first.
_JSON_TYPES = frozenset({dict, list, str, int, float, bool, type(None)})


class Answering:
    """A request whose handler has begun, and waits.

    Attributes:
        request: The request.
        waiting: The rest of its handler.
        slot: The slot that the handler has.
        token: Undoes the setting of `current_slot`.
    """

    __slots__ = ("request", "slot", "token", "waiting")

    def __init__(
        self, request: Request | FullRequest, waiting: Waiting, slot: Slot, token: contextvars.Token[Slot | None]
    ) -> None:
        self.request: Request | FullRequest = request
        self.waiting: Waiting = waiting
        self.slot: Slot = slot
        self.token: contextvars.Token[Slot | None] = token


class Responder:
    """Finds the handler of each request, awaits it in a slot, and sends what it returns.

    Args:
        connection: What messages say they came from; it ends when the peer breaks the protocol, or does not read.
        conversation: Makes the bytes of answers.
        outbox: Takes them.
        inbox: Holds the requests that wait for a slot.
        reader: Knows when the present request was read.
        router: Finds handlers.
        options: Limits.
        spawn: Starts a task that lives as long as the connection.

    Attributes:
        spawn: As given.
        held_up: Whether requests have to wait although there are slots.
        ended: Whether the task that sends an answer may be the connection's last.
        slots_used: Requests being handled.
        held_size: Bytes of what is attached to them, and to the openings of streams that are served.
        received: Requests that were brought to handlers.
        failed: Handlers that failed.
        refused: Handlers that refused.
        failed: Handlers that raised.
        producers: Serves streams; made for the first.
    """

    __slots__ = (
        "_connection",
        "_conversation",
        "_inbox",
        "_max_held_size",
        "_max_slots",
        "_outbox",
        "_reader",
        "_router",
        "_running",
        "_waiting",
        "ended",
        "failed",
        "held_size",
        "held_up",
        "producers",
        "received",
        "refused",
        "slots_used",
        "spawn",
    )

    def __init__(
        self,
        connection: Connection,
        *,
        conversation: Conversation,
        outbox: Outbox,
        inbox: Inbox,
        reader: Reader,
        router: Router,
        options: Options,
        spawn: Callable[..., None],
    ) -> None:
        self._connection = connection
        self._conversation = conversation
        self._outbox = outbox
        self._waiting = inbox.requests
        self._inbox = inbox
        self._reader = reader
        self._router = router
        self._max_slots = options.max_concurrent_requests
        self._max_held_size = options.max_inbox_size
        self._running: dict[int, trio.CancelScope] = {}
        self.spawn: Callable[..., None] = spawn
        self.held_up: bool = False
        self.ended: bool = False
        self.slots_used: int = 0
        self.held_size: int = 0
        self.received: int = 0
        self.failed: int = 0
        self.refused: int = 0
        self.producers: Producers | None = None

    def take(self, request: Request | FullRequest, slot: Slot | None = None) -> Answering | None:
        """Answer a request at once, or let it wait; if its handler waits, return what is to be `finish`-ed.

        Args:
            request: The request.
            slot: The slot that it has, if it has waited for one.
        """
        if slot is None:
            if request.call in self._running or request.call in self._waiting:
                if self._connection._link.reliable:  # else the datagram came twice
                    self._refuse_number(request.call)
                return None
            if (
                self.held_up
                or self._waiting
                or self.slots_used >= self._max_slots
                or (self.held_size and self._holds_too_much())
            ):
                self._inbox.put_request(request)
                if self.held_size >= self._max_held_size:
                    self.start_queued()  # this side may wait for the peer by now
                return None
        self.received += 1
        try:
            handler = self._router.responder_for(request.event)
            if handler is None or (handler.once and not self._router.discard(handler)):
                self._fail(request, "no-handler", f"nothing here handles the request {request.event!r}")
                return None
            data = request.data
            if handler.data_type is not None:
                data = convert(data, handler.data_type)
            message: Message[Any]
            held = 0
            if type(request) is FullRequest:
                message = request.message(data, self._connection)
                held = request.size
            elif not request.traceparent:
                message = Message(request.event, data, self._connection)
            else:
                message = FullMessage(request.event, data, self._connection, traceparent=request.traceparent)
            result: object = handler.call(message)
        except Exception as error:
            self._refuse(request, error)
            return None
        if type(result) not in _JSON_TYPES and hasattr(type(result), "__await__"):
            return self._begin(request, cast("Awaitable[object]", result), slot or Slot(self, held))
        self._reply(request, result)
        return None

    def _refuse_number(self, call: int) -> None:
        error = RemoteProtocolError("control", f"the peer used the number of call {call} twice")
        self._connection._settle(Malformed(error, fatal=True))

    def take_stream(self, opening: OpenStream) -> None:
        """Begin to serve a stream, or let it wait for the greeting."""
        if opening.call in self._running or opening.call in self._waiting:
            self._refuse_number(opening.call)
        elif self.held_up or (isinstance(opening, ReceivedOpening) and self._holds_too_much()):
            self._inbox.put_request(opening)
        else:
            self._begin_stream(opening)

    def _begin_stream(self, opening: OpenStream) -> None:
        if self.producers is None:
            self.producers = Producers(
                self._connection,
                conversation=self._conversation,
                outbox=self._outbox,
                router=self._router,
                spawn=self.spawn,
                running=self._running,
                hold=self._hold,
            )
        self.producers.begin(opening)

    def _holds_too_much(self) -> bool:
        """Whether handlers hold as much as they may of what is attached.

        Not while this side waits for the peer: its answer may depend on what else the peer asks, and reading does not
        pause for it then, so that it would soon be too much.
        """
        return self.held_size >= self._max_held_size and not self._connection.is_waiting

    def _hold(self, size: int) -> None:
        """A stream holds so many bytes that are attached to its opening; negative when it is over."""
        self.held_size += size
        if size < 0:
            self.start_queued()

    def _begin(self, request: Request | FullRequest, answer: Awaitable[object], slot: Slot) -> Answering | None:
        """Take the first step of an async handler, and answer if it was the last."""
        token = current_slot.set(slot)
        steps = answer.__await__()
        try:
            step = next(steps)
        except StopIteration as done:
            self._reply(request, done.value)
        except Exception as error:
            self._refuse(request, error)
        else:
            return Answering(request, Waiting(steps, step), slot, token)
        current_slot.reset(token)
        slot.release()
        return None

    async def finish(self, scope: trio.CancelScope, answering: Answering) -> None:
        """Await a handler that waits, in the task that began it, and send what it returns.

        Args:
            scope: What a cancelled request cancels.
            answering: What `take` returned.

        Cancellation: nothing is answered.
        """
        request = answering.request
        self._running[request.call] = scope
        try:
            with errors_told(functools.partial(self._refuse, request)):
                self._reply(request, await answering.waiting)
        finally:
            self._running.pop(request.call, None)
            current_slot.reset(answering.token)
            answering.slot.release()
            if self._connection._quiet is not None:
                self._connection._note_quiet()

    def is_current(self) -> bool:
        """Whether the present task is at work for a handler of a request."""
        slot = current_slot.get()
        return slot is not None and slot.belongs_to(self)

    def start_queued(self) -> None:
        """Start requests that waited for a slot, as far as there are slots."""
        free = self._max_slots - self.slots_used
        while self._waiting and free > 0 and not self.held_up and not self._holds_too_much():
            request, read = self._waiting.pop(next(iter(self._waiting)))
            self._inbox.shed(read)
            if isinstance(request, OpenStream):
                self._begin_stream(request)
                continue
            free -= 1
            # Slot and scope are taken now: until the task runs, the limit holds and a cancel finds it.
            scope = self._running[request.call] = trio.CancelScope()
            held = request.size if isinstance(request, FullRequest) else 0
            self.spawn(self._serve, scope, request, Slot(self, held), scope=scope)

    async def _serve(self, scope: trio.CancelScope, request: Request | FullRequest, slot: Slot) -> None:
        """Handle a request that has waited, in a task of its own."""
        try:
            answering = self.take(request, slot)
            if answering is not None:
                await self.finish(scope, answering)
        finally:
            slot.release()
            self._running.pop(request.call, None)
            if self._connection._quiet is not None:
                self._connection._note_quiet()

    @property
    def has_requests(self) -> bool:
        """Whether there is anything that the peer could cancel: requests and streams, at work or waiting."""
        return bool(self._running or self._waiting)

    @property
    def handlers_at_work(self) -> int:
        """Requests whose handlers have begun, and wait."""
        return len(self._running)

    def cancel(self, call: int) -> None:
        """Cancel a request that waits or is being handled; the peer wants no answer any more."""
        waiting = self._waiting.pop(call, None)
        if waiting is not None:
            self._inbox.shed(waiting[1])
            if self._connection._quiet is not None:
                self._connection._note_quiet()
        scope = self._running.get(call)
        if scope is not None:
            scope.cancel()

    def cancel_all(self) -> None:
        """Cancel every request: nobody is left to answer to."""
        while self._waiting:
            _, (_, read) = self._waiting.popitem()
            self._inbox.shed(read)
        for scope in list(self._running.values()):
            scope.cancel()

    # --- answers ---

    def _reply(self, request: Request | FullRequest, result: object) -> None:
        try:
            if type(result) is Attached:
                self._reply_attached(request.call, result)
                return
            frame = self._conversation.reply(request.call, result)
            outbox = self._outbox
            if outbox.direct and not outbox.frames:
                outbox.push_now(frame, self._reader.time)  # nothing follows that could go in the same write
            else:
                self._send(frame)
        except LocalProtocolError as error:
            self._refuse(request, error)
        except ConnectionLost:
            pass  # nobody is left to answer to

    def _reply_attached(self, call: int, result: Attached[Any]) -> None:
        frame = self._conversation.reply(call, result.data)
        if result.attachments:
            parcel = wrap(self._conversation, frame, result.attachments)
            self._send(parcel)
            note_sent(self._connection, parcel)
        else:
            self._send(frame)

    def _refuse(self, request: Request | FullRequest, error: Exception) -> None:
        """Tell the peer why its request has no answer."""
        code, message, data = what_went_wrong(error)
        if code != "invalid-data":  # which is the peer's fault
            self.failed += tell_of(error, f"the handler of the request {request.event!r}", self._connection)
            self.refused += is_refusal(error)
        self._fail(request, code, message, data)

    def _fail(self, request: Request | FullRequest, code: str, message: str, data: Any = None) -> None:
        self._send(self._conversation.failure(request.call, code, message, data))

    def _send(self, frame: Frame) -> None:
        """Queue an answer. A peer that asks but never reads is closed rather than waited for."""
        outbox = self._outbox
        try:
            if not outbox.offer(frame):
                self._connection._on_overflow()
            elif self.ended or (outbox.corked and outbox.size >= SHARE_SIZE):
                # Either this task may be the connection's last, or the peer can begin with what there is.
                outbox.flush_nowait()
        except ConnectionLost:
            pass  # nobody is left to answer to
