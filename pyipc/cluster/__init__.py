"""Workers in processes of their own, on pyipc's own connections: forked, supervised, reloaded, and never left behind.

What is here has the vocabulary of Node's cluster module; ``docs/how-to/from-node-cluster.md`` says what is what.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyipc.cluster.default import default as default
from pyipc.cluster.default import disconnect as disconnect
from pyipc.cluster.default import fork as fork
from pyipc.cluster.default import off as off
from pyipc.cluster.default import on as on
from pyipc.cluster.default import once as once
from pyipc.cluster.default import scheduling_policy as _scheduling_policy
from pyipc.cluster.default import setup_primary as setup_primary
from pyipc.cluster.default import workers as _workers
from pyipc.cluster.environment import is_worker as _is_worker
from pyipc.cluster.errors import ClusterError as ClusterError
from pyipc.cluster.errors import JobCancelled as JobCancelled
from pyipc.cluster.errors import JobFailed as JobFailed
from pyipc.cluster.errors import ReloadFailed as ReloadFailed
from pyipc.cluster.errors import UnknownWorker as UnknownWorker
from pyipc.cluster.errors import WorkerFailed as WorkerFailed
from pyipc.cluster.events import EVENTS as EVENTS
from pyipc.cluster.events import WorkerEvent as WorkerEvent
from pyipc.cluster.handing import HandingStatistics as HandingStatistics
from pyipc.cluster.handle import ProcessInfo as ProcessInfo
from pyipc.cluster.handle import WorkerHandle as WorkerHandle
from pyipc.cluster.handle import WorkerInfo as WorkerInfo
from pyipc.cluster.job import Job as Job
from pyipc.cluster.jobs import JobStatistics as JobStatistics
from pyipc.cluster.joining import join as join
from pyipc.cluster.joining import run_worker as run_worker
from pyipc.cluster.listeners import HandedStream as HandedStream
from pyipc.cluster.policies import Arrival as Arrival
from pyipc.cluster.policies import LeastLoaded as LeastLoaded
from pyipc.cluster.policies import Load as Load
from pyipc.cluster.policies import Policy as Policy
from pyipc.cluster.policies import ReusePort as ReusePort
from pyipc.cluster.policies import RoundRobin as RoundRobin
from pyipc.cluster.policies import Shared as Shared
from pyipc.cluster.policies import Sticky as Sticky
from pyipc.cluster.primary import Cluster as Cluster
from pyipc.cluster.reporting import STEPS as STEPS
from pyipc.cluster.reporting import LineReporter as LineReporter
from pyipc.cluster.reporting import Reporter as Reporter
from pyipc.cluster.reporting import Step as Step
from pyipc.cluster.reporting import step_line as step_line
from pyipc.cluster.runner import Runner as Runner
from pyipc.cluster.runner import available_cpus as available_cpus
from pyipc.cluster.runner import run as run
from pyipc.cluster.settings import Settings as Settings
from pyipc.cluster.statistics import ClusterStatistics as ClusterStatistics
from pyipc.cluster.watching import SourceFiles as SourceFiles
from pyipc.cluster.worker import Worker as Worker

if TYPE_CHECKING:
    from collections.abc import Mapping

    #: Whether this process was not started by a cluster.
    is_primary: bool
    #: Whether it was.
    is_worker: bool
    #: Which worker of the default cluster gets which connection; `setup_primary` changes it.
    scheduling_policy: Policy | Shared | ReusePort
    #: The workers of the default cluster, by id.
    workers: Mapping[str, WorkerHandle]

__all__ = [
    "EVENTS",
    "STEPS",
    "Arrival",
    "Cluster",
    "ClusterError",
    "ClusterStatistics",
    "HandedStream",
    "HandingStatistics",
    "Job",
    "JobCancelled",
    "JobFailed",
    "JobStatistics",
    "LeastLoaded",
    "LineReporter",
    "Load",
    "Policy",
    "ProcessInfo",
    "ReloadFailed",
    "Reporter",
    "ReusePort",
    "RoundRobin",
    "Runner",
    "Settings",
    "Shared",
    "SourceFiles",
    "Step",
    "Sticky",
    "UnknownWorker",
    "Worker",
    "WorkerEvent",
    "WorkerFailed",
    "WorkerHandle",
    "WorkerInfo",
    "available_cpus",
    "default",
    "disconnect",
    "fork",
    "is_primary",
    "is_worker",
    "join",
    "off",
    "on",
    "once",
    "run",
    "run_worker",
    "scheduling_policy",
    "setup_primary",
    "step_line",
    "workers",
]


def __getattr__(name: str) -> Any:
    # Looked up when asked: to import a module must not read the environment, nor make a cluster.
    match name:
        case "is_worker":
            return _is_worker()
        case "is_primary":
            return not _is_worker()
        case "scheduling_policy":
            return _scheduling_policy()
        case "workers":
            return _workers()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
