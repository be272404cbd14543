"""One of some subscribers has stopped, and takes nothing any more."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING, Any

from scenarios.scenario import Facts, Scenario
from scenarios.stage import MIB, Stage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scenarios.libraries import Library
    from scenarios.stage import Actor

__all__ = ["SLOW_READER"]

#: Seconds between two looks at how many messages there are.
LOOK = 0.1


def play(library: Library, size: Mapping[str, float]) -> Facts:
    count, bystanders = int(size["count"]), int(size["bystanders"])
    with Stage(library) as stage:
        publisher = stage.start(
            "publish", clients=bystanders + 1, count=count, size=int(size["bytes"]), rate=int(size["rate"])
        )
        publisher.expect("ready")
        subscribers = [stage.start("subscribe") for _ in range(bystanders + 1)]
        for subscriber in subscribers:
            subscriber.expect("ready")
        publisher.expect("full")
        slow, *others = subscribers
        slow.signal(signal.SIGSTOP)
        publisher.remember_memory()
        publisher.tell()
        report = _report(publisher, others, size["patience"])
        told: dict[str, int] = {}
        if report is not None:
            time.sleep(size["patience"])  # in which it may hear more
            publisher.tell(True)
            told = (publisher.hear() or {}).get("told", {})
        got = _at_rest(others, count, size["patience"])
        grown = publisher.grown
    heard = "nothing, it stands still" if report is None else ", ".join(told) or "nothing"
    missed = count - min(got)
    return Facts(
        [
            f"{grown / MIB:,.0f} MiB",
            f"{min(got):,} of {count:,}" + (f": {missed:,} missing" if missed else ""),
            heard,
        ],
        {"grown": grown, "got": got, "stands_still": report is None, "told": told},
    )


def _report(publisher: Actor, others: list[Actor], patience: float) -> dict[str, Any] | None:
    """What the publisher says when it has published all; ``None`` once nothing more comes for so many seconds."""
    before: list[int] = []
    while (report := publisher.hear(patience)) is None and (got := _got(others)) != before:
        before = got
    return report


def _at_rest(others: list[Actor], count: int, patience: float) -> list[int]:
    """How many messages each has, when it has all or has got no more for so many seconds."""
    before: list[int] = []
    since = time.monotonic()
    while min(got := _got(others)) < count and time.monotonic() < since + patience:
        if got != before:
            before, since = got, time.monotonic()
        time.sleep(LOOK)
    return got


def _got(others: list[Actor]) -> list[int]:
    for other in others:
        other.tell(True)
    return [int((other.hear() or {"got": 0})["got"]) for other in others]


SLOW_READER = Scenario(
    key="slow-reader",
    title="A slow reader",
    about="A server publishes {count:,} messages of {bytes:,} bytes, {rate:,} a second, to one subscriber whose "
    "process is stopped (SIGSTOP), and to others: {bystanders}.",
    columns=("the server's memory grew by", "the others got, each at least", "what the server is told"),
    play=play,
    size={"count": 8_000, "bytes": 4_096, "rate": 2_000, "bystanders": 2, "patience": 6},
    quick={"count": 3_000, "bytes": 4_096, "rate": 3_000, "bystanders": 1, "patience": 2},
)
