"""What is measured: one table each."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["WORKLOADS", "WORKS", "Workload"]

#: What peers are asked to do; ``peers/common.py`` says what each means.
WORKS = ("request", "requests", "echo", "events", "large", "broadcast", "idle")

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
        transport: ``unix`` or ``tcp``.
        pinned: Whether both processes share one processor.
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
    transport: str = "unix"
    pinned: bool = False
    params: Mapping[str, int]
    quick: Mapping[str, int] | None
    extra: bool = False

    def titled(self, params: Mapping[str, int]) -> str:
        """The title, for so much work."""
        return self.title.format(**params, megabytes=params.get("size", 0) // MB)


def _request(name: str, where: str, *, transport: str = "unix", pinned: bool = False) -> Workload:
    return Workload(
        name=name,
        title=f"One request in flight, {where}",
        work="request",
        reference="bare-trio",
        # The median: where others use the processor too, the mean is about them.
        figure="p50_us",
        unit="p50 µs",
        lower_is_better=True,
        transport=transport,
        pinned=pinned,
        params={"count": 3_000},
        quick={"count": 500} if pinned else None,
    )


def _events(
    name: str, title: str, size: int, count: int, *, quick: int = 0, transport: str = "unix", pinned: bool = False
) -> Workload:
    return Workload(
        name=name,
        title=f"One-way events of {title}",
        work="events",
        reference="node-ipc",
        unit="events/s",
        transport=transport,
        pinned=pinned,
        params={"count": count, "size": size},
        quick={"count": quick, "size": size} if quick else None,
    )


_USUAL = (
    _request("request-pinned", "both ends on one processor", pinned=True),
    _request("request", "not pinned"),
    Workload(
        name="requests",
        title="Requests by {tasks} tasks",
        work="requests",
        reference="grpc",
        unit="requests/s",
        params={"count": 10_000, "tasks": 100},
        quick={"count": 2_000, "tasks": 100},
    ),
    Workload(
        name="echo",
        title="Events answered by events, at most {tasks} outstanding",
        work="echo",
        reference="node-ipc",
        unit="echoes/s",
        params={"count": 20_000, "tasks": 100},
        quick={"count": 5_000, "tasks": 100},
    ),
    _events("events-64", "64 B", 64, 60_000, quick=10_000),
    _events("events-64-pinned", "64 B, both ends on one processor", 64, 60_000, pinned=True),
    _events("events-1k", "1 KiB", KIB, 20_000),
    _events("events-64k", "64 KiB", 64 * KIB, 500),
    Workload(
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
    ),
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
        name="idle",
        title="{clients:,} idle connections",
        work="idle",
        reference="asyncio",
        unit="accepted/s",
        params={"clients": 10_000},
        quick={"clients": 500},
    ),
    _request("tcp-request", "TCP", transport="tcp"),
    Workload(
        name="tcp-requests",
        title="Requests by {tasks} tasks, TCP",
        work="requests",
        reference="grpc",
        unit="requests/s",
        transport="tcp",
        params={"count": 10_000, "tasks": 100},
        quick=None,
    ),
    _events("tcp-events-64", "64 B, TCP", 64, 60_000, transport="tcp"),
)


def _others() -> Iterator[Workload]:
    """Every work over TCP and on one processor, where the usual ones leave that out: they would take twice as long."""
    taken = {workload.name for workload in _USUAL}
    for workload in _USUAL:
        if workload.transport == "unix" and not workload.pinned:
            for name, title, transport, pinned in (
                (f"tcp-{workload.name}", f"{workload.title}, TCP", "tcp", False),
                (f"{workload.name}-pinned", f"{workload.title}, both ends on one processor", "unix", True),
            ):
                if name not in taken:
                    yield dataclasses.replace(
                        workload, name=name, title=title, transport=transport, pinned=pinned, quick=None, extra=True
                    )


#: All that can be measured, in the order in which it is.
WORKLOADS: tuple[Workload, ...] = (*_USUAL, *_others())
