"""Every error that the cluster raises beside those of pyipc itself, in one tree.

::

    pyipc.IPCError
    └── ClusterError
        ├── JobFailed                      a job was started as often as it may be, and lost its worker each time
        │                                  (.event, .attempts, .worker)
        ├── JobCancelled                   somebody cancelled the job (.event)
        ├── WorkerFailed                   a worker did not start, or did not become ready (.worker, .code, .signal)
        ├── ReloadFailed                   the new workers did not become ready; the old ones serve on (.reasons)
        └── UnknownWorker                  there is no worker of this id or role (.id); LookupError and AddressError too

What an error knows is in its attributes; no code should read the text of a message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyipc.errors import AddressError, IPCError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ClusterError", "JobCancelled", "JobFailed", "ReloadFailed", "UnknownWorker", "WorkerFailed", "by_reason"]


def by_reason(reasons: Mapping[str, str]) -> str:
    """What is wrong with which workers, in words; what is wrong with several of them is said once."""
    whose: dict[str, list[str]] = {}
    for worker, reason in reasons.items():
        whose.setdefault(reason.removeprefix(f"worker {worker!r} "), []).append(repr(worker))
    return "; ".join(
        f"{'worker' if len(workers) == 1 else 'workers'} {', '.join(workers)}: {reason}"
        for reason, workers in whose.items()
    )


class ClusterError(IPCError):
    """The root of every error that the cluster raises on purpose."""


class JobFailed(ClusterError):
    """A job lost its worker each time that it was started. How the last one was lost is the cause.

    Attributes:
        event: What was to be done.
        attempts: How often it was started.
        worker: The id of the worker that had it last.
    """

    def __init__(self, event: str, attempts: int, worker: str) -> None:
        self.event = event
        self.attempts = attempts
        self.worker = worker
        times = "once" if attempts == 1 else f"{attempts} times"
        super().__init__(
            f"the job {event!r} was started {times} and lost its worker each time, the last one was {worker!r}; "
            "it may be the job itself that ends them"
        )


class JobCancelled(ClusterError):
    """The job was cancelled, and has no result.

    Attributes:
        event: What was to be done.
    """

    def __init__(self, event: str) -> None:
        self.event = event
        super().__init__(f"the job {event!r} was cancelled")


class WorkerFailed(ClusterError):
    """A worker did not start, or ended before it was ready, or was started again too often.

    Attributes:
        worker: Its id.
        code: The exit code of its process; ``None`` if it has none.
        signal: The number of the signal that ended it; ``None`` if none did.
    """

    def __init__(self, worker: str, message: str, *, code: int | None = None, signal: int | None = None) -> None:
        self.worker = worker
        self.code = code
        self.signal = signal
        super().__init__(message)


class ReloadFailed(ClusterError):
    """A reload was given up, because new workers did not become ready. The old ones go on serving.

    Attributes:
        reasons: Why not, in words, by the ids of the workers.
    """

    def __init__(self, reasons: Mapping[str, str]) -> None:
        self.reasons: dict[str, str] = dict(reasons)
        super().__init__(f"the reload failed, and the workers from before go on ({by_reason(self.reasons)})")


class UnknownWorker(ClusterError, AddressError, LookupError):
    """There is no worker of this id or role, or it leaves for good, or, for a job, was given up.

    To whoever wants to connect to it that is a wrong address, which no waiting mends.

    Args:
        id: The id, or the role.
        message: What is wrong, where that is not an id.

    Attributes:
        id: The id, or the role.
    """

    def __init__(self, id: str, message: str = "") -> None:
        self.id = id
        super().__init__(
            message
            or f"there is no worker {id!r}, or it leaves for good, or has failed; `Cluster.workers` has those that "
            "there are, and `Cluster.fork` adds one"
        )
