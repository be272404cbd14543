"""Handling an event whose sender wants to hear what became of it: once, however often it comes."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

from pyipc.arrival import Arrival
from pyipc.errors import ConnectionLost, InvalidData, LocalProtocolError, UnencodableData
from pyipc.nursery import errors_told
from pyipc.protocol.codec import convert, ready_json
from pyipc.protocol.features import Deliver, Outcome
from pyipc.refusals import what_went_wrong
from pyipc.sessions import HANDLED, Receipts, Session, Standing

if TYPE_CHECKING:
    from pyipc.connection import Connection
    from pyipc.dispatch import Dispatcher
    from pyipc.message import FullMessage
    from pyipc.router import Handler
    from pyipc.sessions import Verdict

__all__ = ["Delivery", "deliver"]

logger: logging.Logger = logging.getLogger("pyipc.dispatch")

_CUT_OFF: Verdict = ("handler-failed", "this side was closed before the handler was done", None)
# A context for a handler that nothing protects.
_OPEN = contextlib.nullcontext()


class Delivery(Arrival):
    """An event on the way to its handlers, and its number.

    Attributes:
        number: As it was sent.
        lowest: The lowest number that its sender may still want to know of.
        again: Whether it was sent before.
        redelivered: Whether it may have been handled before this side was started.
    """

    __slots__ = ("again", "lowest", "number", "redelivered")

    def __init__(self, frame: Deliver) -> None:
        super().__init__(frame.event, frame.data, traceparent=frame.traceparent)
        self.number: int = frame.number
        self.lowest: int = frame.lowest
        self.again: bool = frame.again
        self.redelivered: bool = False

    def message(self, data: Any, connection: Connection) -> FullMessage[Any]:
        """What a handler gets; see `Arrival.message`."""
        message = super().message(data, connection)
        message.redelivered = self.redelivered
        return message


async def deliver(dispatcher: Dispatcher, delivery: Delivery) -> None:
    """Handle an event unless it was handled before, and tell the peer how that ended.

    One that is being handled, perhaps since it came over an earlier connection, is waited for, so that those behind it
    keep their order.
    """
    connection = dispatcher._connection
    receipts = connection._receipts
    if receipts is None:
        receipts = connection._receipts = Receipts()
    sessions = connection._owner.sessions
    number = delivery.number
    is_duplicate = False
    while not receipts.is_superseded(connection):
        standing = receipts.look(number, delivery.lowest)
        if standing is Standing.FORGOTTEN:
            return
        if standing is Standing.NEW:
            break
        if not is_duplicate and sessions is not None:
            sessions.duplicates += 1
        is_duplicate = True
        if not isinstance(standing, Standing):
            _answer(connection, number, standing)
            return
        await receipts.wait_for_change()
    else:
        return
    delivery.redelivered = delivery.again
    if delivery.again and sessions is not None:
        sessions.redelivered += 1
    receipts.begin(number)
    handling = _Handling(dispatcher, delivery, receipts)
    verdict = _CUT_OFF
    try:
        await handling.run()
        verdict = handling.verdict
    finally:
        verdict = receipts.settle(number, verdict)
    _answer(connection, number, verdict)


class _Handling:
    """Brings one event to all of its handlers.

    Attributes:
        verdict: How it ended: by the first handler that failed, if one did.
    """

    def __init__(self, dispatcher: Dispatcher, delivery: Delivery, receipts: Receipts) -> None:
        self._dispatcher = dispatcher
        self._delivery = delivery
        # Where nothing is sent again, there is nothing to protect a handler for.
        self._shelter = dispatcher._connection._owner.shelter if isinstance(receipts, Session) else None
        self.verdict: Verdict = HANDLED

    async def run(self) -> None:
        dispatcher, name = self._dispatcher, self._delivery.type
        heard = False
        for handler in dispatcher._router.handlers_for(name):
            if handler.once and not dispatcher._router.discard(handler):
                continue  # another connection was faster
            heard = True
            with errors_told(self._failed):
                await self._call(handler)
        if not heard:
            dispatcher.unheard += 1
            self.verdict = ("no-handler", f"nothing here handles the event {name!r}", None)

    async def _call(self, handler: Handler) -> None:
        connection, delivery = self._dispatcher._connection, self._delivery
        data = delivery.data
        if handler.data_type is not None:
            try:
                data = convert(data, handler.data_type)
            except InvalidData as error:
                # The peer's fault, not the handler's, and no reason to write a traceback for each event.
                logger.warning(
                    "%s sent %r with data that does not fit at %s", connection.peer.address, delivery.type, error.path
                )
                self._refuse(error)
                return
        result = handler.call(delivery.message(data, connection))
        if hasattr(type(result), "__await__"):
            with _OPEN if self._shelter is None else self._shelter.around(connection):
                await result

    def _failed(self, error: Exception) -> None:
        self._dispatcher._report("a handler", self._delivery.type, error)
        self._refuse(error)

    def _refuse(self, error: Exception) -> None:
        if self.verdict is not HANDLED:
            return
        code, message, data = what_went_wrong(error)
        try:
            self.verdict = code, message, None if data is None else ready_json(data, self._delivery.type)
        except UnencodableData:
            self.verdict = code, message, None


def _answer(connection: Connection, number: int, verdict: Verdict) -> None:
    """Tell the peer how an event ended, if it is still there."""
    code, message, data = verdict
    conversation = connection._conversation
    try:
        frame = conversation.say(Outcome(number, code, message, data))
    except LocalProtocolError:
        # Whoever waits must hear of it, even where its details cannot be sent.
        frame = conversation.say(Outcome(number, code))
    outbox = connection._outbox
    if outbox.direct and not outbox.frames:
        with contextlib.suppress(ConnectionLost):  # nobody is left to answer to
            outbox.push_now(frame, connection._reader.time)  # nothing follows that could go in the same write
    else:
        connection._responder._send(frame)
