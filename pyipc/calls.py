"""Requests that this side has made and that wait for their answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from pyipc.errors import ConnectionClosed, ConnectionLost, InvalidData, NoHandler, RemoteError, RequestTimeout
from pyipc.protocol.messages import Failure, Reply

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyipc.timers import Timers

__all__ = ["Calls"]


class _Call:
    """One task that waits for one answer."""

    __slots__ = ("error", "event", "result", "task")

    def __init__(self, event: str, task: trio.lowlevel.Task) -> None:
        self.event = event
        self.task = task
        self.result: Any = None
        self.error: Exception | None = None


class Calls:
    """Matches answers with the tasks that wait for them, by the numbers of the calls.

    Args:
        timers: For time-outs; a cancel scope each would double the price of a request.
        abandoned: Called with the number of a call for which nobody waits any more.

    Attributes:
        late_answers: Answers that came when nobody waited any more.
    """

    __slots__ = ("_abandoned", "_calls", "_timers", "late_answers", "room")

    def __init__(self, timers: Timers, abandoned: Callable[[int], None]) -> None:
        self._timers = timers
        self._abandoned = abandoned
        self._calls: dict[int, _Call] = {}
        self.room: trio.lowlevel.ParkingLot = trio.lowlevel.ParkingLot()
        self.late_answers: int = 0

    def __len__(self) -> int:
        return len(self._calls)

    async def wait(self, number: int, event: str, timeout: float | None, deadline: float) -> Any:
        """Wait for the answer to a call that was just made.

        Raises:
            RequestTimeout: It did not come by ``deadline``.
            RequestError: The peer could not answer.
            ConnectionClosed: The connection ended first.

        Cancellation: the peer is told, and a late answer is ignored.
        """
        call = self._calls[number] = _Call(event, trio.lowlevel.current_task())

        def expire(late: float) -> None:
            assert timeout is not None
            if number not in self._calls:
                return  # the answer came in this very turn, and its task has not run yet
            self._abandon(number)
            self._wake(call, error=RequestTimeout(event, timeout))

        def abort(_: object) -> trio.lowlevel.Abort:
            self._abandon(number)
            return trio.lowlevel.Abort.SUCCEEDED

        timer = None if timeout is None else self._timers.call_at(deadline, expire)
        try:
            await trio.lowlevel.wait_task_rescheduled(abort)
        finally:
            if timer is not None:
                timer.cancel()
            self.pass_on()
        if call.error is not None:
            raise call.error
        return call.result

    def pass_on(self) -> None:
        """Let the next task make its call: this one's is over, or was never made."""
        self.room.unpark()

    def _abandon(self, number: int) -> None:
        del self._calls[number]
        self._abandoned(number)

    @staticmethod
    def _wake(call: _Call, *, result: Any = None, error: Exception | None = None) -> None:
        call.result = result
        call.error = error
        trio.lowlevel.reschedule(call.task)

    def settle(self, answer: Reply | Failure) -> None:
        """Bring an answer to whoever waits for it. One that nobody waits for is counted."""
        call = self._calls.pop(answer.call, None)
        if call is None:
            self.late_answers += 1
        elif isinstance(answer, Reply):
            self._wake(call, result=answer.data)
        else:
            self._wake(call, error=_error_of(call.event, answer))

    def fail_all(self, message: str, *, lost: bool, maybe_handled: bool) -> None:
        """Tell everybody that no answer will come, and if the peer may have acted all the same."""
        calls, self._calls = self._calls, {}
        for call in calls.values():
            error = ConnectionLost(message, maybe_handled=maybe_handled) if lost else ConnectionClosed(message)
            self._wake(call, error=error)
        self.room.unpark_all()


def _error_of(event: str, failure: Failure) -> Exception:
    """What to raise for the peer's refusal."""
    match failure.code:
        case "no-handler":
            return NoHandler(event, failure.message or f"the peer has no handler for {event!r}")
        case "invalid-data":
            path = failure.data.get("path") if isinstance(failure.data, dict) else None
            return InvalidData(failure.message, path if isinstance(path, str) else "$")
        case code:
            return RemoteError(code, failure.message, failure.data)
