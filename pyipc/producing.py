"""Streams that the peer has asked for: async generators, each in a task of its own, no faster than the peer takes.

A generator goes on while the peer has given credit and the outbox has room. Else it stands at its ``yield``. It is
cancelled there, or where it waits itself, as soon as the peer wants no more or the connection ends, and its ``finally``
blocks run.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

import trio

from pyipc.arrival import Arrival
from pyipc.attaching import Attached, note_sent, wrap
from pyipc.errors import ConnectionClosed, InvalidData
from pyipc.message import Message
from pyipc.nursery import errors_told
from pyipc.pace import Pace
from pyipc.protocol.codec import convert
from pyipc.protocol.features import EndOfStream, ReceivedOpening
from pyipc.protocol.parcels import Parcel, SmallParcel
from pyipc.refusals import is_refusal, tell_of, what_went_wrong

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyipc.connection import Connection
    from pyipc.outbox import Outbox
    from pyipc.protocol.conversation import Conversation
    from pyipc.protocol.features import Credit, OpenStream
    from pyipc.protocol.parcels import Frame
    from pyipc.router import Router

__all__ = ["Producers"]

logger: logging.Logger = logging.getLogger("pyipc.streams")

# So many bytes are sent at once, and not less than a part of what there is credit for: so both sides are at work at the
# same time, and few writes do.
_SHARE_SIZE = 16 * 1024
_SHARES = 8


class _Production:
    """A stream that is being served."""

    __slots__ = ("call", "credited", "event", "held", "items", "rows", "scope", "share", "size", "unsent")

    def __init__(self, opening: OpenStream, rows: AsyncGenerator[object, None]) -> None:
        self.call = opening.call
        self.event = opening.event
        self.held = sum(map(len, opening.attachments)) if isinstance(opening, ReceivedOpening) else 0
        self.items = opening.items
        self.size = opening.size
        self.share = opening.items // _SHARES
        self.unsent = 0
        self.rows = rows
        self.scope = trio.CancelScope()
        self.credited = trio.lowlevel.ParkingLot()


class _Stalled(Exception):
    """The peer gives no credit."""


class Producers:
    """Serves the streams that one peer has asked for.

    Args:
        connection: What messages say they came from.
        conversation: Makes the bytes of items.
        outbox: Takes them.
        router: Finds handlers.
        spawn: Starts a task that lives as long as the connection.
        running: Where the scope of each stream is to be found by whoever cancels a call, by its number.
        hold: Told of the bytes that are attached to an opening, and when its stream is over of as many less.

    Attributes:
        served: Streams that were brought to handlers.
        sent: Items that were sent.
        failed: Handlers that failed.
        refused: Handlers that refused.
    """

    __slots__ = (
        "_connection",
        "_conversation",
        "_hold",
        "_max_streams",
        "_max_wait",
        "_outbox",
        "_productions",
        "_router",
        "_running",
        "_spawn",
        "failed",
        "refused",
        "sent",
        "served",
    )

    def __init__(
        self,
        connection: Connection,
        *,
        conversation: Conversation,
        outbox: Outbox,
        router: Router,
        spawn: Callable[..., None],
        running: dict[int, trio.CancelScope],
        hold: Callable[[int], None],
    ) -> None:
        self._connection = connection
        self._conversation = conversation
        self._outbox = outbox
        self._router = router
        self._spawn = spawn
        self._max_streams = connection._options.max_concurrent_streams
        timeout = connection._options.stream_stall_timeout
        self._max_wait = math.inf if timeout is None else timeout
        self._running = running
        self._hold = hold
        self._productions: dict[int, _Production] = {}
        self.served: int = 0
        self.sent: int = 0
        self.failed: int = 0
        self.refused: int = 0

    def __len__(self) -> int:
        return len(self._productions)

    def begin(self, opening: OpenStream) -> None:
        """Start to serve a stream, or say why not."""
        call, event = opening.call, opening.event
        if len(self._productions) >= self._max_streams:
            text = f"{self._max_streams} streams are under way on this connection already (max_concurrent_streams)"
            self._fail(call, "too-many", text)
            return
        try:
            handler = self._router.responder_for(event)
            if handler is not None and not handler.streams:
                text = f"{event!r} gives one answer here and is no stream; ask with request()"
                self._fail(call, "not-a-stream", text)
                return
            if handler is None or (handler.once and not self._router.discard(handler)):
                self._fail(call, "no-handler", f"nothing here handles the stream {event!r}")
                return
            self.served += 1
            data = opening.data if handler.data_type is None else convert(opening.data, handler.data_type)
            message: Message[Any]
            if opening.traceparent or isinstance(opening, ReceivedOpening):
                attachments = opening.attachments if isinstance(opening, ReceivedOpening) else ()
                arrival = Arrival(event, data, attachments=attachments, traceparent=opening.traceparent)
                message = arrival.message(data, self._connection)
            else:
                message = Message(event, data, self._connection)
            rows = handler.function(message)
            if not isinstance(rows, AsyncGenerator):
                raise TypeError(f"{handler.name} made {type(rows).__name__}, and no async generator")
        except Exception as error:
            self._refuse(call, event, error)
            return
        production = self._productions[call] = _Production(opening, rows)
        # Noted now: until the task runs, a cancel finds it.
        self._running[call] = production.scope
        self._hold(production.held)
        self._spawn(self._serve, production, scope=production.scope)

    def credit(self, credit: Credit) -> None:
        """The peer has room for more of a stream."""
        production = self._productions.get(credit.call)
        if production is not None:
            production.items += credit.items
            production.size += credit.size
            production.credited.unpark_all()

    def cancel_all(self) -> None:
        """End every stream: nobody is left to take it."""
        for production in list(self._productions.values()):
            production.scope.cancel()

    # --- the task of one stream ---

    async def _serve(self, production: _Production) -> None:
        call = production.call
        try:
            with errors_told(functools.partial(self._refuse, call, production.event)):
                if await self._produce(production):
                    self._send(self._conversation.say(EndOfStream(call)))
        finally:
            self._productions.pop(call, None)
            self._running.pop(call, None)
            self._hold(-production.held)
            self._connection._note_quiet()

    async def _produce(self, production: _Production) -> bool:
        """Send what a generator yields; say whether anybody is left to hear of its end."""
        rows, scope, outbox = production.rows, production.scope, self._outbox
        pace = Pace(self._connection._now)
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            step = rows.__anext__()
            while True:
                try:
                    item = await step
                except StopAsyncIteration:
                    return True
                try:
                    frame = (
                        self._conversation.item(production.call, item)
                        if type(item) is not Attached
                        else self._attached(production.call, item)
                    )
                    if (
                        production.items <= 0
                        or production.size <= 0
                        or outbox.size >= outbox.high_water_size
                        or pace.is_due()
                        or not self._connection.is_open
                    ):
                        await self._wait_for_turn(production)
                        pace.begin()
                except ConnectionClosed:
                    return False
                except _Stalled:
                    self._give_up(production)
                    return False
                except trio.Cancelled as cancelled:
                    if scope.cancel_called:
                        raise
                    # It may be of a scope that the generator itself has entered: it hears of it where it stands.
                    await trio.lowlevel.cancel_shielded_checkpoint()
                    step = rows.athrow(cancelled)
                    continue
                production.items -= 1
                production.size -= len(frame) - 1
                production.unsent += 1
                outbox.push(frame)
                if type(item) is Attached and isinstance(frame, Parcel | SmallParcel):
                    note_sent(self._connection, frame)
                if outbox.size >= _SHARE_SIZE or production.unsent >= production.share:
                    production.unsent = 0
                    outbox.flush_nowait()
                self.sent += 1
                step = rows.__anext__()
        finally:
            await rows.aclose()

    def _attached(self, call: int, item: Attached[Any]) -> Frame:
        frame = self._conversation.item(call, item.data)
        return wrap(self._conversation, frame, item.attachments) if item.attachments else frame

    async def _wait_for_turn(self, production: _Production) -> None:
        """Wait until the next item may be sent. Always a schedule point.

        Raises:
            ConnectionClosed: It may not any more.
            _Stalled: The peer has taken nothing for so long that it is not waited for any longer.
        """
        outbox, connection = self._outbox, self._connection
        outbox.flush_nowait()
        if production.items > 0 and production.size > 0 and outbox.size < outbox.high_water_size:
            await trio.lowlevel.checkpoint()
        else:
            # More is read meanwhile, since the credit may be behind much else.
            with connection.waiting_at_length():
                with trio.move_on_after(self._max_wait) as patience:
                    while production.items <= 0 or production.size <= 0:
                        await production.credited.park()
                if patience.cancelled_caught:
                    raise _Stalled
                if outbox.size >= outbox.high_water_size:
                    await outbox.wait_for_room()
        if not connection.is_open:
            raise connection._gone()

    # --- what cannot be answered ---

    def _give_up(self, production: _Production) -> None:
        """End a stream whose peer gives no credit: what the generator holds, others may be waiting for."""
        event, seconds = production.event, self._max_wait
        text = f"nothing of the stream {event!r} was taken for {seconds:g} s (stream_stall_timeout)"
        logger.info("%s: %s; its handler was ended", self._connection.peer.address, text)
        self._fail(production.call, "stalled", text)

    def _refuse(self, call: int, event: str, error: Exception) -> None:
        """Tell the peer why there is no more of a stream."""
        if not isinstance(error, InvalidData):
            self.failed += tell_of(error, f"the handler of the stream {event!r}", self._connection)
            self.refused += is_refusal(error)
        self._fail(call, *what_went_wrong(error))

    def _fail(self, call: int, code: str, message: str, data: Any = None) -> None:
        self._send(self._conversation.failure(call, code, message, data))

    def _send(self, frame: bytes) -> None:
        """Queue the end of a stream. A peer that asks but never reads is closed rather than waited for."""
        connection = self._connection
        if connection.is_open and not connection._offer(frame):
            connection._on_overflow()
