"""Events whose sender waits until they are handled: what is sent and has no outcome yet.

Here is what both sides do. A client sends again what a lost connection left open, which is in `pyipc.resending`.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import trio

from pyipc.attaching import frozen, send_packed
from pyipc.calls import error_of
from pyipc.errors import ConnectionLost, LocalProtocolError, PeerLacksFeature, Unconfirmed, UnsupportedByTransport
from pyipc.finishing import check_hears
from pyipc.options import Unset, check_timeout
from pyipc.protocol.codec import ready_json
from pyipc.protocol.features import CONFIRM, Deliver
from pyipc.protocol.messages import MAX_WINDOW
from pyipc.protocol.names import check_event_name
from pyipc.protocol.traces import check_traceparent

if TYPE_CHECKING:
    from pyipc.attaching import Records
    from pyipc.connection import Connection
    from pyipc.options import Options
    from pyipc.protocol.features import Outcome
    from pyipc.protocol.parcels import Buffer
    from pyipc.timers import Timer, Timers

__all__ = ["Unsettled", "Window", "confirm", "size_of"]

# With so many under way, a scheduler turn to write the next costs less than a write of its own.
_FEW = 4


class Unsettled:
    """One event without an outcome, and the task that waits for it.

    Attributes:
        number: Its number.
        event: Its name.
        data: Its data, encoded; ``None`` for null.
        records: Its attachments.
        size: What it counts for, in bytes.
        traceparent: Which span it comes from.
        connection: By which it was sent last, while that one lasts.
        sent: Whether it was ever sent.
        again: Whether it was sent to a server that is not there any more, and may have been handled by that.
        places: Which servers it was ever sent to, as these call themselves and what they remember.
        expires: When the server may begin to forget, in trio's time, if it was not heard of before.
        timer: Ends the waiting.
        task: Who waits, while it does.
        error: Why there is no outcome, or what it is, if it is a bad one.
    """

    __slots__ = (
        "again",
        "connection",
        "data",
        "error",
        "event",
        "expires",
        "number",
        "places",
        "records",
        "sent",
        "size",
        "task",
        "timer",
        "traceparent",
    )

    def __init__(self, number: int, event: str, data: bytes | None, records: Records, traceparent: str) -> None:
        self.number: int = number
        self.event: str = event
        self.data: bytes | None = data
        self.records: Records = records
        self.traceparent: str = traceparent
        self.size: int = len(event) + size_of(data, records)
        self.connection: Connection | None = None
        self.sent: bool = False
        self.again: bool = False
        self.places: tuple[tuple[str, str], ...] = ()
        self.expires: float = math.inf
        self.timer: Timer | None = None
        self.task: trio.lowlevel.Task | None = None
        self.error: Exception | None = None


class Window:
    """The events of one sender that have no outcome yet, by numbers that are never used again.

    Args:
        options: How many there may be.
        timers: The owner's clock.

    Attributes:
        last: The highest number that there was.
        pending: Them, in order.
        size: What they count for in all, in bytes.
        span: How far above the lowest number any other may be, as the peer says.
        confirmed: Events that were handled.
        resent: Times that one was sent again.
        unconfirmed: Events of which nothing will be known any more.
    """

    def __init__(self, options: Options, timers: Timers) -> None:
        self._options = options
        self._timers = timers
        self.last: int = 0
        # Tasks that wait until there is room for their events, and how large these are; who came first is first.
        self._line: dict[trio.lowlevel.Task, int] = {}
        # Tasks that were woken there and do not run yet; nobody else may take what they were woken for.
        self._turns = 0
        self._emptied = trio.lowlevel.ParkingLot()
        self.pending: dict[int, Unsettled] = {}
        self.size: int = 0
        self.span: int = MAX_WINDOW
        # Whether some wait until they are not too far above the lowest any more.
        self._are_held = False
        self.confirmed: int = 0
        self.resent: int = 0
        self.unconfirmed: int = 0

    # --- what tasks do ---

    async def emit(
        self,
        connection: Connection,
        event: str,
        data: object,
        timeout: float | Unset | None,
        buffers: list[Buffer],
        traceparent: str,
    ) -> None:
        """Send an event and wait for its outcome; see `Connection.emit`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        check_can_wait(connection)
        text, timeout, deadline = self._prepare(event, data, timeout, traceparent)
        records = frozen(buffers)
        while not await self._is_ready(connection, event, timeout, deadline, size_of(text, records)):
            pass
        unsettled = self._begin(event, text, records, timeout, deadline, traceparent)
        self._send_or_forget(connection, unsettled)
        await self._wait(unsettled, connection)

    def _prepare(
        self, event: str, data: object, timeout: float | Unset | None, traceparent: str
    ) -> tuple[bytes | None, float | None, float]:
        """The data encoded, the time-out, and when it is over."""
        check_event_name(event, self._options.max_event_name_size)
        if traceparent:
            check_traceparent(traceparent)
        text: bytes | None = ready_json(data, event)
        if isinstance(timeout, Unset):
            timeout = self._options.confirm_timeout
        else:
            check_timeout(timeout)
        return text, timeout, math.inf if timeout is None else trio.current_time() + timeout

    async def _is_ready(
        self, connection: Connection, event: str, timeout: float | None, deadline: float, size: int
    ) -> bool:
        """Whether an event can be sent now. If not, wait for what it needs first.

        Raises:
            PeerLacksFeature: The peer cannot confirm.
            ConnectionClosed: The connection has ended.
            Unconfirmed: The time was up.
        """
        if not connection.is_open:
            raise connection._gone()
        if not connection._hears:
            check_hears(connection)
        conversation, outbox = connection._conversation, connection._outbox
        if CONFIRM not in conversation.features:
            try:
                conversation.check_feature(CONFIRM)
            except PeerLacksFeature as lack:
                if isinstance(lack, UnsupportedByTransport) or not conversation.awaits_welcome:
                    raise
                with trio.move_on_at(deadline):
                    await connection.know_peer()
                    conversation.check_feature(CONFIRM)
                    return False
                raise self._late(event, timeout) from None
        if outbox.size >= outbox.high_water_size:
            with connection.waiting_for_peer(), trio.move_on_at(deadline):
                await outbox.wait_for_room()
                return False
            raise self._late(event, timeout)
        if await self._has_waited_for_room(event, timeout, deadline, size) and not _takes_more(connection):
            self._pass_on()
            return False
        return True

    async def _has_waited_for_room(self, event: str, timeout: float | None, deadline: float, size: int) -> bool:
        """Wait until an event may be added, if it may not be yet; say whether that was so.

        Whoever has waited is to add one, without waiting for anything else, or to `_pass_on` its turn.
        """
        if not (self._turns or self._line or self._is_full(size)):
            return False
        task = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            del self._line[task]
            self._pass_on()
            return trio.lowlevel.Abort.SUCCEEDED

        self._line[task] = size
        with trio.move_on_at(deadline) as scope:
            await trio.lowlevel.wait_task_rescheduled(abort)
            self._turns -= 1
        if scope.cancelled_caught:
            raise self._late(event, timeout)
        return True

    def _is_full(self, size: int) -> bool:
        pending, options = self.pending, self._options
        return len(pending) > 0 and (
            len(pending) >= options.max_unconfirmed
            or self.size + size > options.max_unconfirmed_size
            or self.last + 1 - next(iter(pending)) >= self.span
        )

    def _pass_on(self) -> None:
        """Let the next task add its event, if there is room for that."""
        # One at a time, since tasks that are woken together come in any order.
        if self._line and not self._turns:
            task, size = next(iter(self._line.items()))
            if not self._is_full(size):
                self._wake_waiting(task)

    def _wake_waiting(self, task: trio.lowlevel.Task) -> None:
        del self._line[task]
        self._turns += 1
        trio.lowlevel.reschedule(task)

    def _late(self, event: str, timeout: float | None) -> Unconfirmed:
        self.unconfirmed += 1
        return Unconfirmed(event, "timeout", f"it could not be sent within {timeout:g} s", maybe_handled=False)

    async def _wait(self, unsettled: Unsettled, connection: Connection | None) -> None:
        """Wait for the outcome. Always a schedule point."""

        def abort(_: object) -> trio.lowlevel.Abort:
            unsettled.task = None
            self._forget(unsettled)
            return trio.lowlevel.Abort.SUCCEEDED

        unsettled.task = trio.lowlevel.current_task()
        if connection is None:
            await trio.lowlevel.wait_task_rescheduled(abort)
        else:
            with connection._giving_up_slot():
                await trio.lowlevel.wait_task_rescheduled(abort)
        if unsettled.error is not None:
            raise unsettled.error

    async def wait_empty(self) -> None:
        """Wait until no event is without an outcome.

        Cancellation: changes nothing.
        """
        while self.pending:
            await self._emptied.park()

    def count(self, connection: Connection) -> int:
        """How many events wait for an outcome that comes over a connection."""
        return sum(unsettled.connection is connection for unsettled in self.pending.values())

    # --- what happens to an event ---

    def _begin(
        self,
        event: str,
        text: bytes | None,
        records: Records,
        timeout: float | None,
        deadline: float,
        traceparent: str,
    ) -> Unsettled:
        self.last += 1
        unsettled = self.pending[self.last] = Unsettled(self.last, event, text, records, traceparent)
        self.size += unsettled.size
        self._pass_on()
        if timeout is not None:
            unsettled.timer = self._timers.call_at(deadline, functools.partial(self._expire, unsettled, timeout))
        return unsettled

    def _send_or_forget(self, connection: Connection, unsettled: Unsettled) -> None:
        try:
            self._send(connection, unsettled)
        except BaseException:
            self._forget(unsettled)
            raise

    def _send(self, connection: Connection, unsettled: Unsettled) -> None:
        """Send an event, without waiting.

        Raises:
            LocalProtocolError: It does not suit this peer; nothing was sent.
            ConnectionLost: The connection is broken; nothing was sent.
        """
        lowest = next(iter(self.pending))
        frame = connection._conversation.say(
            Deliver(
                unsettled.number,
                unsettled.event,
                unsettled.data,
                lowest=lowest,
                again=unsettled.again,
                traceparent=unsettled.traceparent,
            )
        )
        outbox = connection._outbox
        connection._window = self
        size = len(frame)
        if unsettled.records:
            size = send_packed(connection, frame, unsettled.records)
        elif len(self.pending) < _FEW:
            outbox.push_now(frame, trio.current_time())
        else:
            outbox.push_share(frame)  # others are likely to follow in this very turn
        unsettled.connection = connection
        unsettled.sent = True
        connection._events_sent += 1
        if connection._watch is not None:
            connection._watch.sent("confirmed", unsettled.event, size, connection)
        connection._dispatcher.resume()
        connection._reader.call_back()

    def _note_resent(self) -> None:
        self.resent += 1

    def settle(self, connection: Connection, outcome: Outcome) -> None:
        """An outcome has come over a connection.

        One that nobody waits for any more is ignored, and so is one of an event that was sent over another connection:
        the peer of this one cannot know how that ended.
        """
        unsettled = self.pending.get(outcome.number)
        if unsettled is None or unsettled.connection is not connection:
            return
        if outcome.code:
            self._finish(unsettled, error_of(unsettled.event, outcome))
        else:
            self.confirmed += 1
            self._finish(unsettled, None)

    def lose(self, connection: Connection) -> None:
        """A connection has ended."""
        reason = connection._reason
        for unsettled in list(self.pending.values()):
            if unsettled.connection is connection:
                if reason is None or reason.code == "closed":
                    self._give_up(unsettled, "closed", "this side closed the connection")
                else:
                    self.unconfirmed += 1
                    self._finish(unsettled, ConnectionLost(reason.message, maybe_handled=True))
        self._wake_all()

    def _wake_all(self) -> None:
        for task in list(self._line):
            self._wake_waiting(task)

    def _expire(self, unsettled: Unsettled, timeout: float, late: float) -> None:
        self._give_up(unsettled, "timeout", f"no outcome came within {timeout:g} s")

    def _give_up(self, unsettled: Unsettled, code: str, message: str) -> None:
        self.unconfirmed += 1
        self._finish(unsettled, Unconfirmed(unsettled.event, code, message, maybe_handled=unsettled.sent))

    def _finish(self, unsettled: Unsettled, error: Exception | None) -> None:
        """Wake who waits for an event."""
        self._forget(unsettled)
        unsettled.error = error
        task, unsettled.task = unsettled.task, None
        if task is not None:
            trio.lowlevel.reschedule(task)

    def _forget(self, unsettled: Unsettled) -> None:
        if self.pending.pop(unsettled.number, None) is None:
            return
        self.size -= unsettled.size
        if unsettled.timer is not None:
            unsettled.timer.cancel()
        if self._are_held:
            self._go_on()
        self._pass_on()
        if unsettled.connection is not None:
            unsettled.connection._note_quiet()
        if not self.pending:
            self._emptied.unpark_all()

    def _go_on(self) -> None:
        """Send what was too far above the lowest number, and is not any more; only a client has such."""


def size_of(data: bytes | None, records: Records) -> int:
    """Bytes that an event takes until it has an outcome, beside its name."""
    return len(data or b"") + sum(map(len, records))


def _takes_more(connection: Connection) -> bool:
    return connection.is_open and connection._outbox.size < connection._outbox.high_water_size


def check_can_wait(connection: Connection) -> None:
    """Refuse to wait for the peer inside of a handler of its own events, which the peer may be waiting for.

    Raises:
        LocalProtocolError: The present task is, or works for, such a handler.
    """
    if connection._dispatcher.is_handling_event():
        raise LocalProtocolError(
            "a handler of an event waits for an event to be confirmed by the very peer that it came from, which may "
            "wait for this handler; emit without confirm=True, or start a task that outlives the handler"
        )


async def confirm(
    connection: Connection,
    event: str,
    data: object,
    timeout: float | Unset | None,
    buffers: list[Buffer],
    traceparent: str,
) -> None:
    """Send an event over one connection and wait for its outcome; see `Connection.emit`."""
    owned = connection._owner.window
    if owned is not None:
        await owned.emit(connection, event, data, timeout, buffers, traceparent)
        return
    window = connection._window
    if window is None:
        window = connection._window = Window(connection._options, connection._timers)
        window.span = connection._conversation.session_window
    await window.emit(connection, event, data, timeout, buffers, traceparent)
