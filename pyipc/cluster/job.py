"""A piece of work that was given to the workers: what whoever gave it holds in hand.

Owns waiting for the outcome, and telling of a failure that nobody has asked for. `jobs` owns everything before that.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar, cast

import trio

from pyipc.cluster.errors import JobCancelled
from pyipc.errors import RemoteError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyipc.cluster.job_desks import Line, Runner

__all__ = ["Attachment", "Job"]

T = TypeVar("T")
Attachment: TypeAlias = "bytes | bytearray | memoryview"

_log = logging.getLogger("pyipc.cluster")


class Job(Generic[T]):
    """Work that a worker does, has done, or will do. `Cluster.submit` makes it.

    Whether anybody waits for the result or not, the job is done. A failure that nobody has asked for by the time the
    job is forgotten is logged, once, without what the job was given.

    Attributes:
        number: The how manieth job of its cluster it is. Jobs that may go to the same workers start in that order.
        event: The name of the request that the worker gets.
        attempts: How often it was started. It is more than once if workers were lost on the way.
        worker: The id of the worker that has it, or had it last; ``None`` if none had it yet.
    """

    __slots__ = (
        "_attachments",
        "_data",
        "_deadline",
        "_end_early",
        "_ended",
        "_error",
        "_is_heard",
        "_is_waiting",
        "_line",
        "_max_attempts",
        "_result",
        "_result_type",
        "_runner",
        "_timeout",
        "attempts",
        "event",
        "number",
        "worker",
    )

    def __init__(
        self,
        number: int,
        line: Line,
        event: str,
        data: object,
        attachments: Sequence[Attachment],
        result_type: Any,
        timeout: float | None,
        max_attempts: int,
        end_early: Callable[[Job[Any], Exception], None],
    ) -> None:
        self.number: int = number
        self.event: str = event
        self.attempts: int = 0
        self.worker: str | None = None
        self._data = data
        self._attachments = attachments
        self._result_type = result_type
        self._timeout = timeout
        self._deadline = math.inf if timeout is None else trio.current_time() + timeout
        self._max_attempts = max_attempts
        self._line = line
        self._is_waiting = True  # in the line
        self._runner: Runner | None = None  # who sees to it
        self._end_early: Callable[[Job[Any], Exception], None] | None = end_early
        self._result: Any = None
        self._error: Exception | None = None
        self._ended: trio.Event | None = None  # made by the first who waits
        self._is_heard = False

    def __repr__(self) -> str:
        if self._end_early is None:
            state = "done" if self._error is None else f"ended by {type(self._error).__name__}"
        elif self._runner is None:
            state = "waiting"
        else:
            state = f"at worker {self.worker!r}"
        times = f", started {self.attempts} times" if self.attempts > 1 else ""
        return f"<Job {self.number} {self.event!r} {state}{times}>"

    @property
    def done(self) -> bool:
        """Whether it has ended: with a result, with an error, or cancelled."""
        return self._end_early is None

    async def result(self) -> T:
        """Wait until the job has ended. Any number of tasks may, at any time, and all get the same.

        Returns:
            What the handler has returned.

        Raises:
            RemoteError, NoHandler, InvalidData: The worker's handler failed or refused, there is none, or what came
                does not fit; as for `Connection.request`. The job is not tried again.
            LocalProtocolError: The name, the data or the attachments cannot be sent.
            JobFailed: The job lost its worker as often as it may be started.
            JobCancelled: It was cancelled.
            RequestTimeout: It was not done in time.
            UnknownWorker: The one worker that it was for leaves for good, has left, or was given up.
            ConnectionClosed: The cluster was closed first. Where the job was with a worker, that may have done it.

        Cancellation: the job goes on, as others may wait for it; `cancel` ends it.
        """
        if self._end_early is None:
            await trio.lowlevel.checkpoint()
        else:
            if self._ended is None:
                self._ended = trio.Event()
            await self._ended.wait()
        if self._error is None:
            return cast("T", self._result)
        self._is_heard = True
        try:
            raise self._error.with_traceback(None)  # it is the same for all, and must not gather the frames of each
        finally:
            del self  # or the error would hold the job, and the job the error, until a garbage collector comes

    def cancel(self) -> None:
        """End the job without a result, unless it has ended: the worker that has it is told, and cancels its handler.

        `result` raises `JobCancelled` then.
        """
        if self._end_early is not None:
            self._is_heard = True
            self._end_early(self, JobCancelled(self.event))

    def _settle(self, result: Any, error: Exception | None) -> None:
        """Note how it ended, wake who waits for that, and let go of what it was given."""
        self._end_early = None
        self._runner = None
        self._data = None
        self._attachments = ()
        self._result = result
        # Its frames would hold the job, and whatever else was there.
        self._error = None if error is None else error.with_traceback(None)
        if self._ended is not None:
            self._ended.set()

    def __del__(self) -> None:
        if self._error is not None and not self._is_heard:
            name = type(self._error).__name__
            code = f" ({self._error.code})" if isinstance(self._error, RemoteError) else ""
            _log.warning(
                "job %d %r ended with %s%s at attempt %d, and nobody has asked for its result",
                self.number,
                self.event,
                name,
                code,
                self.attempts,
            )
