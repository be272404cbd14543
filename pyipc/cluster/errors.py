"""The errors of a cluster::

pyipc.IPCError
└── ClusterError               something about the cluster itself is wrong
    ├── UnknownWorker          there is no worker of that id or role (.id)
    ├── WorkerFailed           a worker did not start, or did not become ready (.worker, .code, .signal)
    ├── ReloadFailed           the new workers did not become ready; the old ones go on (.reasons)
    ├── JobFailed              every worker that had the job died (.attempts, .worker)
    └── JobCancelled           the job was cancelled, or the cluster closed before it was done
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyipc

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ClusterError", "JobCancelled", "JobFailed", "ReloadFailed", "UnknownWorker", "WorkerFailed"]


class ClusterError(pyipc.IPCError):
    """The root of the errors of a cluster."""


class UnknownWorker(ClusterError):
    """There is no such worker.

    Attributes:
        id: Its id, or its role.
    """

    def __init__(self, id: str, message: str) -> None:
        self.id = id
        super().__init__(message)


class WorkerFailed(ClusterError):
    """A worker did not start, or did not become ready.

    Attributes:
        worker: Its id.
        code: Its exit code, if it ended with one.
        signal: The signal that ended it, if one did.
    """

    def __init__(self, worker: str, message: str, *, code: int | None = None, signal: int | None = None) -> None:
        self.worker = worker
        self.code = code
        self.signal = signal
        super().__init__(message)


class ReloadFailed(ClusterError):
    """The new processes did not become ready. The old ones are still there and go on.

    Attributes:
        reasons: What was wrong, by the id of the worker.
    """

    def __init__(self, reasons: Mapping[str, str]) -> None:
        self.reasons = dict(reasons)
        told = "; ".join(f"{worker}: {reason}" for worker, reason in self.reasons.items())
        super().__init__(f"the reload was given up, and the old workers go on ({told})")


class JobFailed(ClusterError):
    """Every worker that was given the job died before it was done. Perhaps it is the job that kills them.

    Attributes:
        attempts: How often it was begun.
        worker: The id of the last worker that had it.
    """

    def __init__(self, message: str, *, attempts: int, worker: str) -> None:
        self.attempts = attempts
        self.worker = worker
        super().__init__(message)


class JobCancelled(ClusterError):
    """The job was cancelled, or the cluster was closed before it was done."""
