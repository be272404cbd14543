"""Requests that this side has made and that wait for their answers."""

from __future__ import annotations

import heapq
import math
import re
from typing import TYPE_CHECKING, Any

import trio

from pyipc.errors import ConnectionClosed, ConnectionLost, InvalidData, NoHandler, RemoteError, RequestTimeout
from pyipc.protocol.messages import Failure, Reply, one_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyipc.protocol.features import Outcome
    from pyipc.timers import Timer, Timers

__all__ = ["Call", "Calls", "error_of"]

_NOT_YET: Any = object()
# Deadlines of calls that have ended are left in the heap, and cleared out once they are most of it.
_TIDY_ABOVE = 64
# Characters of a peer's description that are shown, which is as many as one of ours has.
_MAX_ERROR_TEXT = 1_000
# What a code is, as the protocol says.
_CODE = re.compile("[!-~]{1,64}")


class Call:
    """One task that waits for one answer.

    Attributes:
        number: The number of the call.
        event: What was asked for.
        timeout: How long the task wanted to wait, in seconds.
        deadline: When that is over, in trio's time.
        task: The task, while it is parked.
        wake: Wakes a task that waits in some other way.
        result: The answer, once it is here.
        error: Why there is none.
        is_listed: Whether `Calls` has taken note of the deadline.
    """

    __slots__ = ("deadline", "error", "event", "is_listed", "number", "result", "task", "timeout", "wake")

    def __init__(self, number: int, event: str, timeout: float | None, deadline: float) -> None:
        self.number: int = number
        self.event: str = event
        self.timeout: float | None = timeout
        self.deadline: float = deadline
        self.task: trio.lowlevel.Task | None = None
        self.wake: Callable[[], None] | None = None
        self.result: Any = _NOT_YET
        self.error: Exception | None = None
        self.is_listed: bool = False

    @property
    def is_settled(self) -> bool:
        """Whether it is known how the call ends."""
        return self.result is not _NOT_YET or self.error is not None


class Calls:
    """Matches answers with the tasks that wait for them, by the numbers of the calls.

    Args:
        timers: For time-outs. All calls share one timer, which is set to the next deadline: a cancel scope for
            each would double the price of a request, and so would a timer.
        abandoned: Called with the number of a call for which nobody waits any more.

    Attributes:
        pending: The calls that wait, by their numbers.
        late_answers: Answers that came when nobody waited any more.
        room: Where tasks wait until they may make a call; made when the first does.
    """

    __slots__ = ("_abandoned", "_deadlines", "_sweep", "_sweep_at", "_timers", "late_answers", "pending", "room")

    def __init__(self, timers: Timers, abandoned: Callable[[int], None]) -> None:
        self._timers = timers
        self._abandoned = abandoned
        self.pending: dict[int, Call] = {}
        # Deadlines and numbers of the calls that have lived to see a sweep, as a heap; some have ended since.
        self._deadlines: list[tuple[float, int]] = []
        self._sweep_at = math.inf
        self._sweep: Timer | None = None
        self.room: trio.lowlevel.ParkingLot | None = None
        self.late_answers: int = 0

    def begin(self, number: int, event: str, timeout: float | None, deadline: float) -> Call:
        """Note a call that was just made. Whoever made it waits for it next, and then calls `pass_on`."""
        call = self.pending[number] = Call(number, event, timeout, deadline)
        if deadline < self._sweep_at:
            self._sweep_later(deadline)
        return call

    async def wait(self, call: Call) -> Any:
        """Wait for the answer to a call.

        Raises:
            RequestTimeout: It did not come in time.
            RequestError: The peer could not answer.
            ConnectionClosed: The connection ended first.

        Cancellation: the peer is told, and a late answer is ignored.
        """
        if not call.is_settled:

            def abort(_: object) -> trio.lowlevel.Abort:
                call.task = None
                self.abandon(call)
                return trio.lowlevel.Abort.SUCCEEDED

            call.task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(abort)
        if call.error is not None:
            raise call.error
        return call.result

    async def wait_for_room(self) -> None:
        """Wait until another call may have ended.

        Cancellation: changes nothing; the caller has to `pass_on` its turn.
        """
        if self.room is None:
            self.room = trio.lowlevel.ParkingLot()
        await self.room.park()

    def pass_on(self) -> None:
        """Let the next task make its call: this one's is over, or was never made."""
        if self.room is not None:
            self.room.unpark()

    def abandon(self, call: Call) -> None:
        """Nobody waits for the answer any more: forget the call, and tell the peer."""
        if self.pending.pop(call.number, None) is not None:
            self._abandoned(call.number)

    def settle(self, answer: Reply | Failure) -> None:
        """Bring an answer to whoever waits for it. One that nobody waits for is counted."""
        call = self.pending.pop(answer.call, None)
        if call is None:
            self.late_answers += 1
            return
        if isinstance(answer, Reply):
            call.result = answer.data
        else:
            call.error = error_of(call.event, answer)
        _wake(call)

    def fail_all(self, message: str, *, lost: bool, maybe_handled: bool) -> None:
        """Tell everybody that no answer will come, and if the peer may have acted all the same."""
        calls, self.pending = self.pending, {}
        for call in calls.values():
            call.error = ConnectionLost(message, maybe_handled=maybe_handled) if lost else ConnectionClosed(message)
            _wake(call)
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep_at = math.inf
        self._deadlines.clear()
        if self.room is not None:
            self.room.unpark_all()

    # --- time-outs ---

    def _sweep_later(self, when: float) -> None:
        if self._sweep is not None:
            self._sweep.cancel()
        self._sweep_at = when
        self._sweep = None if when == math.inf else self._timers.call_at(when, self._expire)

    def _expire(self, late: float) -> None:
        """Time out the calls whose deadline has come, and look again at the next."""
        now = trio.current_time()
        self._list_deadlines()
        deadlines = self._deadlines
        while deadlines:
            when, number = deadlines[0]
            call = self.pending.get(number)
            if call is not None and when > now:
                break
            heapq.heappop(deadlines)
            if call is not None:
                assert call.timeout is not None
                self.abandon(call)
                call.error = RequestTimeout(call.event, call.timeout)
                _wake(call)
        self._sweep = None
        self._sweep_later(deadlines[0][0] if deadlines else math.inf)

    def _list_deadlines(self) -> None:
        """List the calls made since the last sweep. Most calls have their answer long before any, and are never listed.

        Each call is looked at once, and not by every sweep: thousands may wait, and one of them expire at a time.
        """
        for call in reversed(self.pending.values()):  # the newest first
            if call.is_listed:
                break
            call.is_listed = True
            heapq.heappush(self._deadlines, (call.deadline, call.number))
        if len(self._deadlines) > 2 * len(self.pending) + _TIDY_ABOVE:
            self._deadlines = [(call.deadline, call.number) for call in self.pending.values()]
            heapq.heapify(self._deadlines)


def _wake(call: Call) -> None:
    """Wake the task that waits for a call; one that does not wait yet will see that it is settled."""
    if call.task is not None:
        task, call.task = call.task, None
        trio.lowlevel.reschedule(task)
    elif call.wake is not None:
        call.wake()


def error_of(event: str, failure: Failure | Outcome) -> Exception:
    """What to raise for the peer's refusal."""
    # It is for logs and terminals as well, and the peer's own words.
    text = one_line(failure.message, _MAX_ERROR_TEXT)
    match failure.code:
        case "no-handler":
            return NoHandler(event, text or f"the peer has no handler for {event!r}")
        case "invalid-data":
            path = failure.data.get("path") if isinstance(failure.data, dict) else None
            return InvalidData(text, one_line(path) if isinstance(path, str) else "$")
        case code:
            code = code if _CODE.fullmatch(code) else "unknown"
            error = RemoteError(code, failure.message, failure.data)
            error.args = (f"{code}: {text}",)
            return error
