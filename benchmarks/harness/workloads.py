"""What is measured: one table each."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from harness.transports import CHANNEL, TCP, TLS, UDP, UNIX, Transport

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["CLUSTER_WORKS", "OWN_WORKS", "WORKER_WORKS", "WORKLOADS", "WORKS", "Workload"]

#: What peers are asked to do; ``peers/common.py`` says what each means.
WORKS = ("request", "requests", "echo", "events", "large", "broadcast", "topic", "idle")
#: What pyipc is asked to do in several ways, to compare those.
OWN_WORKS = ("items", "bytes")
#: What a program and its workers are asked to do; there is no other server.
WORKER_WORKS = ("worker-request", "worker-events", "primary-events", "start", "jobs")
#: The same, and what workers do for others.
CLUSTER_WORKS = (*WORKER_WORKS, "handover")

MB = 1_000_000
KIB = 1024


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workload:
    """One table.

    Args:
        name: What it is called on the command line and in JSON.
        title: What it is called in tables; names of ``params`` in braces stand for their values.
        work: What the peers are asked to do.
        reference: The key of the contender that others are shown as multiples of.
        figure: The figure that is compared.
        unit: What ``figure`` is.
        lower_is_better: Of ``figure``.
        divisor: ``figure`` is shown divided by it.
        transport: What the bytes move over; ``None`` where each contender has a transport of its own.
        pinned: Whether both processes share one processor.
        sides: What the server and the driver are called in tables.
        params: How much work, as the peers are told.
        quick: The same for ``--quick``; ``None`` leaves the workload out there.
        extra: Whether it is left out unless it is named, or ``--every`` is.
    """

    name: str
    title: str
    work: str
    reference: str
    figure: str = "per_second"
    unit: str = "messages/s"
    lower_is_better: bool = False
    divisor: float = 1
    transport: Transport | None = UNIX
    pinned: bool = False
    sides: tuple[str, str] = ("server", "driver")
    params: Mapping[str, int]
    quick: Mapping[str, int] | None
    extra: bool = False

    def titled(self, params: Mapping[str, int]) -> str:
        """The title, for so much work."""
        return self.title.format(**params, megabytes=params.get("size", 0) // MB)


def _request(name: str, where: str, *, quick: int = 0, **different: Any) -> Workload:
    request = Workload(
        name=name,
        title=f"One request in flight, {where}",
        work="request",
        reference="bare-trio",
        # The median: where others use the processor too, the mean is about them.
        figure="p50_us",
        unit="p50 µs",
        lower_is_better=True,
        params={"count": 3_000},
        quick={"count": quick} if quick else None,
    )
    return dataclasses.replace(request, **different)


def _events(name: str, title: str, size: int, count: int, *, quick: int = 0, **different: Any) -> Workload:
    events = Workload(
        name=name,
        title=f"One-way events of {title}",
        work="events",
        reference="node-ipc",
        unit="events/s",
        params={"count": count, "size": size},
        quick={"count": quick, "size": size} if quick else None,
    )
    return dataclasses.replace(events, **different)


def _with_workers(name: str, title: str, work: str, **different: Any) -> Workload:
    workload = Workload(
        name=name,
        title=title,
        work=work,
        reference="node-cluster",
        transport=CHANNEL,
        sides=("workers", "primary"),
        params={},
        quick=None,
    )
    return dataclasses.replace(workload, **different)


def _worker_request(name: str, where: str, **different: Any) -> Workload:
    return _with_workers(
        name,
        f"One request of a primary to its worker in flight, {where}",
        "worker-request",
        figure="p50_us",
        unit="p50 µs",
        lower_is_better=True,
        params={"count": 3_000},
        **different,
    )


def _worker_events(name: str, title: str, **different: Any) -> Workload:
    return _with_workers(
        name,
        f"One-way events of 64 B {title}",
        name,
        unit="events/s",
        params={"count": 60_000, "size": 64},
        quick={"count": 10_000, "size": 64},
        **different,
    )


def _over(transport: Transport, workload: Workload, **different: Any) -> Workload:
    """The same over something else."""
    name, title = f"{transport.name}-{workload.name}", f"{workload.title}, {transport.title}"
    return dataclasses.replace(workload, name=name, title=title, transport=transport, **{"quick": None, **different})


_REQUESTS = Workload(
    name="requests",
    title="Requests by {tasks} tasks",
    work="requests",
    reference="grpc",
    unit="requests/s",
    params={"count": 10_000, "tasks": 100},
    quick={"count": 2_000, "tasks": 100},
)
_ECHO = Workload(
    name="echo",
    title="Events answered by events, at most {tasks} outstanding",
    work="echo",
    reference="node-ipc",
    unit="echoes/s",
    params={"count": 20_000, "tasks": 100},
    quick={"count": 5_000, "tasks": 100},
)
_SMALL_EVENTS = _events("events-64", "64 B", 64, 60_000, quick=10_000)
_LARGE = Workload(
    name="large",
    title="One message of {megabytes} MB",
    work="large",
    reference="bare-sockets",
    figure="mean_us",
    unit="ms",
    lower_is_better=True,
    divisor=1_000,
    params={"count": 2, "size": 64 * MB},
    quick={"count": 1, "size": 4 * MB},
)

_HANDOVER = Workload(
    name="handover",
    title="Connections handed over to {workers} workers, {tasks} at a time",
    work="handover",
    reference="node-cluster",
    unit="connections/s",
    params={"count": 3_000, "tasks": 32, "workers": 4},
    quick={"count": 500, "tasks": 32, "workers": 4},
)

_USUAL = (
    _request("request-pinned", "both ends on one processor", pinned=True, quick=500),
    _request("request", "not pinned"),
    _REQUESTS,
    _ECHO,
    _SMALL_EVENTS,
    _events("events-64-pinned", "64 B, both ends on one processor", 64, 60_000, pinned=True),
    _events("events-1k", "1 KiB", KIB, 20_000),
    _events("events-64k", "64 KiB", 64 * KIB, 500),
    _LARGE,
    Workload(
        name="broadcast",
        title="Broadcast to {clients:,} clients",
        work="broadcast",
        reference="node-ipc",
        unit="deliveries/s",
        params={"count": 50, "clients": 1_000},
        quick={"count": 20, "clients": 100},
    ),
    Workload(
        name="topic",
        title="A topic with {clients:,} subscribers, and a broadcast to as many clients",
        work="topic",
        reference="pyipc-broadcast",
        unit="deliveries/s",
        params={"count": 500, "clients": 100},
        quick={"count": 100, "clients": 100},
    ),
    Workload(
        name="idle",
        title="{clients:,} idle connections",
        work="idle",
        reference="asyncio",
        unit="accepted/s",
        params={"clients": 10_000},
        quick={"clients": 500},
    ),
    Workload(
        name="items-64",
        title="Answers of 64 B, of which pyipc streams each, emits it, or is asked for it",
        work="items",
        reference="pyipc-events",
        unit="answers/s",
        params={"count": 30_000, "size": 64},
        quick={"count": 5_000, "size": 64},
    ),
    Workload(
        name="bytes",
        title="{megabytes} MB that are no JSON",
        work="bytes",
        reference="bare-sockets",
        figure="mean_us",
        unit="ms",
        lower_is_better=True,
        divisor=1_000,
        params={"count": 3, "size": 64 * MB},
        quick={"count": 1, "size": 4 * MB},
    ),
    _request("tcp-request", "TCP", transport=TCP),
    _over(TCP, _REQUESTS),
    _over(TCP, _SMALL_EVENTS),
    _request("tls-request", "TLS", transport=TLS, reference="trio-tls", quick=500),
    _over(TLS, _REQUESTS, reference="trio-tls"),
    _over(TLS, _SMALL_EVENTS),
    # node-ipc's time grows with the square of the size, and with 64 MB in the pieces of TLS it has not enough.
    _over(TLS, _LARGE, params={"count": 2, "size": 16 * MB}),
    _request("udp-request", "UDP", transport=UDP, reference="trio-datagrams", quick=500),
    # So few that the buffers of the kernel have room for all: over UDP nobody waits for room.
    _over(UDP, _ECHO, params={"count": 10_000, "tasks": 32}),
    _request(
        "each-request",
        "pyipc over each transport, both ends on one processor",
        transport=None,
        reference="pyipc-unix",
        pinned=True,
        quick=500,
    ),
    _events("each-events-64", "64 B, pyipc over each transport", 64, 60_000, transport=None, reference="pyipc-unix"),
    _worker_request("worker-request-pinned", "both on one processor", pinned=True, quick={"count": 500}),
    _worker_request("worker-request", "not pinned"),
    _worker_events("worker-events", "from a primary to its worker"),
    _worker_events("primary-events", "from a worker to its primary"),
    _HANDOVER,
    _over(TCP, _HANDOVER),
    _with_workers(
        "start",
        "Starting {workers} workers",
        "start",
        figure="mean_us",
        unit="ms",
        lower_is_better=True,
        divisor=1_000,
        params={"count": 1, "workers": 4},
        quick={"count": 1, "workers": 4},
    ),
    _with_workers(
        "jobs",
        "Jobs by {workers} workers",
        "jobs",
        reference="multiprocessing-pool",
        unit="jobs/s",
        params={"count": 5_000, "tasks": 100, "workers": 4},
        quick={"count": 1_000, "tasks": 100, "workers": 4},
    ),
)
#: What is driven with plain sockets.
_CROWDED = ("broadcast", "topic", "idle", "handover")


def _others() -> Iterator[Workload]:
    """Every work over TCP, over TLS and on one processor, where the usual ones leave that out, as all takes so long."""
    taken = {workload.name for workload in _USUAL}
    for workload in _USUAL:
        if workload.transport is not UNIX or workload.pinned:
            continue
        pinned = dataclasses.replace(
            workload, name=f"{workload.name}-pinned", title=f"{workload.title}, both ends on one processor", pinned=True
        )
        over = [TCP] if workload.work in _CROWDED else [TCP, TLS]
        for other in (*(_over(transport, workload) for transport in over), pinned):
            if other.name not in taken:
                yield dataclasses.replace(other, quick=None, extra=True)


#: All that can be measured, in the order in which it is.
WORKLOADS: tuple[Workload, ...] = (*_USUAL, *_others())
