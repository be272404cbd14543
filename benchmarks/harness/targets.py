"""What pyipc is to reach, as data: figures of one run against each other, and whether that was so."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from harness.contenders import by_key
from harness.results import Result, Spread, ratios

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["TARGETS", "Target", "Verdict", "judge"]

US = "pyipc"
CLUSTER = "pyipc-cluster"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """One bound.

    Args:
        workload: Where the figure is from.
        claim: What is to be, in words.
        other: The contender whose figure of the same round it is divided by; ``None`` for the figure as it is.
        who: Whose figure it is.
        other_workload: Where that is from, if not from the same.
        figure: Which figure, if not the one that the workload compares.
        at_most: The bound, where less is better.
        at_least: The bound, where more is better.
        unit: Follows the measured figure.
    """

    workload: str
    claim: str
    other: str | None
    who: str = US
    other_workload: str | None = None
    figure: str | None = None
    at_most: float | None = None
    at_least: float | None = None
    unit: str = "x"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What became of a target: ``met`` is ``None`` where it was not measured, and ``why`` says why."""

    target: Target
    measured: Spread | None
    met: bool | None
    why: str = ""


def _faster(workload: str, others: Iterable[str], *, lower_is_better: bool = False) -> list[Target]:
    """Before each of some others."""
    word, bound = ("below", "at_most") if lower_is_better else ("above", "at_least")
    return [
        Target(workload=workload, claim=f"{word} {by_key(other).name}", other=other, **{bound: 1.0})  # type: ignore[arg-type]
        for other in others
    ]


TARGETS = (
    Target(workload="request-pinned", claim="at most 1.5 x bare trio", other="bare-trio", at_most=1.5),
    *_faster("request-pinned", ("node-ipc", "zmq", "nng", "grpc", "asyncio"), lower_is_better=True),
    Target(workload="events-64", claim="at least 6 x node-ipc", other="node-ipc", at_least=6),
    *_faster("events-64", ("zmq", "nng")),
    Target(
        workload="events-64",
        claim="at least half of what msgspec alone encodes or decodes",
        other="msgspec",
        at_least=0.5,
    ),
    Target(workload="echo", claim="at least 5 x node-ipc", other="node-ipc", at_least=5),
    Target(
        workload="requests",
        claim="at least 2 x node-ipc's echo",
        other="node-ipc",
        other_workload="echo",
        at_least=2,
    ),
    *_faster("requests", ("pyro5", "rpyc", "grpc")),
    Target(
        workload="large",
        claim="at most 3 x one msgspec encode, a bare socket copy and one decode",
        other="bare-sockets",
        at_most=3,
    ),
    Target(workload="broadcast", claim="at least 3 x node-ipc", other="node-ipc", at_least=3),
    Target(workload="idle", claim="at most 10 KiB a connection", other=None, figure="kib_each", at_most=10, unit="KiB"),
    *_faster("idle", ("asyncio",)),
    *(
        Target(
            workload=workload,
            claim="at most 1.5 x Node's cluster",
            who=CLUSTER,
            other="node-cluster",
            at_most=1.5,
        )
        for workload in ("worker-request-pinned", "worker-request")
    ),
    *(
        Target(workload=workload, claim="above Node's cluster", who=CLUSTER, other="node-cluster", at_least=1)
        for workload in ("worker-events", "primary-events")
    ),
)


def judge(results: Sequence[Result], targets: Iterable[Target] = TARGETS) -> list[Verdict]:
    """Hold the medians against the targets of the workloads that were measured."""
    by_name = {result.workload.name: result for result in results}
    return [_judge(target, by_name) for target in targets if target.workload in by_name]


def _judge(target: Target, results: dict[str, Result]) -> Verdict:
    result = results[target.workload]
    if target.other is None:
        measured = result.spread(target.who, target.figure)
        why = result.failures.get(target.who, f"{by_key(target.who).name} was not measured")
    else:
        base = results.get(target.other_workload or target.workload)
        if base is None:
            return Verdict(target, None, None, f"{target.other_workload} was not measured")
        measured = ratios(result.values(target.who, target.figure), base.values(target.other, target.figure))
        left_out = f"{by_key(target.other).name} was left out"
        why = result.failures.get(target.who) or base.failures.get(target.other) or left_out
    if measured is None:
        return Verdict(target, None, None, why)
    met = (target.at_most is None or measured.median <= target.at_most) and (
        target.at_least is None or measured.median >= target.at_least
    )
    return Verdict(target, measured, met)
