"""Who starts processes of its own: clusters of workers, and pools."""

from __future__ import annotations

from typing import Any

from harness.contender import Contender
from harness.transports import CHANNEL, TCP, UNIX

__all__ = ["CLUSTERS"]

_MESSAGES = frozenset({"worker-request", "worker-events", "primary-events"})
_HANDOVER = frozenset({"handover"})
_NO_JOBS = "it has no jobs, and no requests to make them of"


def _cluster(key: str, name: str, peer: str, works: frozenset[str], promises: str, **different: Any) -> Contender:
    """One that talks with its workers, has them serve an address, or both."""
    over = {CHANNEL} if works - _HANDOVER else set()
    return Contender(
        key=key,
        name=name,
        peer=peer,
        works=works,
        transports=frozenset(over | {UNIX, TCP} if works & _HANDOVER else over),
        promises=promises,
        **different,
    )


def _pool(key: str, name: str, peer: str, promises: str, **different: Any) -> Contender:
    """One that does jobs."""
    return Contender(
        key=key,
        name=name,
        peer=peer,
        works=different.pop("works", frozenset({"start", "jobs"})),
        transports=frozenset({CHANNEL}),
        promises=promises,
        **different,
    )


CLUSTERS = (
    _cluster(
        "pyipc-cluster",
        "pyipc.cluster",
        "pyipc_cluster.py",
        _MESSAGES | _HANDOVER | {"start", "jobs"},
        "What pyipc promises, between a primary and its workers. They are restarted, watched and never left behind. A "
        "job, and a connection that is handed over, goes to another worker when the first one dies. JSON.",
    ),
    _cluster(
        "pyipc-cluster-server",
        "pyipc.cluster, pyipc.Server",
        "pyipc_cluster.py",
        _HANDOVER,
        "The same, and each connection is one of pyipc.",
        variant="server",
    ),
    _cluster(
        "pyipc-cluster-shared",
        "pyipc.cluster, shared",
        "pyipc_cluster.py",
        _HANDOVER,
        "Workers accept by themselves from a socket of the primary, and the system decides which.",
        variant="shared",
    ),
    _cluster(
        "pyipc-cluster-node",
        "pyipc.cluster, Node workers",
        "pyipc_node_cluster.py",
        _MESSAGES | _HANDOVER | {"start"},
        "What pyipc promises of a cluster, over Node's channel, to the workers of Node's cluster below. A request is a "
        "message that is answered by one.",
        runs_node=True,
    ),
    _cluster(
        "node-cluster",
        "Node's cluster",
        "node_cluster.js",
        _MESSAGES | _HANDOVER | {"start"},
        "Order. No back-pressure, no limits, no requests: a request is answered by a message. JSON of V8.",
        cannot={"jobs": _NO_JOBS},
    ),
    _cluster(
        "node-cluster-advanced",
        "Node's cluster, advanced",
        "node_cluster.js",
        _MESSAGES,
        "The same. Structured clones in place of JSON.",
        variant="advanced",
    ),
    _cluster(
        "node-cluster-shared",
        "Node's cluster, SCHED_NONE",
        "node_cluster.js",
        _HANDOVER,
        "The same. Workers accept by themselves.",
        variant="shared",
    ),
    _pool(
        "multiprocessing-pool",
        "multiprocessing.Pool",
        "multiprocessing_pool.py",
        "A job whose worker dies has no outcome, ever. Forks of the program. Pickle.",
    ),
    _pool(
        "multiprocessing-pool-spawn",
        "multiprocessing.Pool, spawn",
        "multiprocessing_pool.py",
        "The same, in fresh interpreters.",
        works=frozenset({"start"}),
        variant="spawn",
    ),
    _pool(
        "concurrent-futures",
        "ProcessPoolExecutor",
        "process_pool_executor.py",
        "When a worker dies all jobs fail, and it is of no use any more. Forks of the program. Pickle.",
    ),
    _pool(
        "trio-parallel",
        "trio-parallel",
        "trio_parallel_peer.py",
        "Async, can be cancelled by ending the worker; a job whose worker dies fails. Fresh interpreters. Pickle.",
        needs={"trio_parallel": "trio-parallel"},
    ),
)
