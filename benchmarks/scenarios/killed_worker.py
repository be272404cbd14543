"""A worker is killed with work in hand, and started again."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

from harness.contender import NotMeasured
from scenarios.scenario import Facts, Scenario, counted
from scenarios.stage import MARGIN, Stage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scenarios.libraries import Library
    from scenarios.stage import Actor

__all__ = ["KILLED_WORKER"]

#: Seconds that the worker is away.
AWAY = 0.3
#: Seconds without a job, after which no more is to come: longer than a client takes to come back.
REST = 1.5
#: Seconds in which so many jobs are begun, whatever else the machine does.
BEGINNING = 30.0


@dataclasses.dataclass
class Ledger:
    """What became of the jobs, by their numbers.

    Args:
        taken: Those that the library took, or had answered.
        errors: Why it did not.
        begun: How often each was begun.
        handled: How often each was handled.
        replaced: Whether the next worker listens where the socket of the killed one is left.
    """

    taken: set[int] = dataclasses.field(default_factory=set)
    errors: dict[int, str] = dataclasses.field(default_factory=dict)
    begun: Counter[int] = dataclasses.field(default_factory=Counter)
    handled: Counter[int] = dataclasses.field(default_factory=Counter)
    replaced: bool = True

    @property
    def lost(self) -> int:
        """Jobs that nobody has handled, and of which nobody was told."""
        return sum(1 for number in self.taken if number not in self.handled)


def play(library: Library, size: Mapping[str, float]) -> Facts:
    told = _hand_out(library, "tell", size)
    asked = _hand_out(library, "ask", size)
    count = int(size["jobs"])
    again = sum(1 for times in asked.begun.values() if times > 1)
    return Facts(
        [
            f"{told.lost:,} of {count:,}" + (f"; errors: {counted(told.errors.values())}" if told.errors else ""),
            f"{len(asked.taken):,} of {count:,}" + (f", of them {asked.lost} never done" if asked.lost else ""),
            counted(asked.errors.values()),
            f"{again:,}",
            "yes" if asked.replaced else "once the old socket is deleted",
        ],
        {
            "told_lost": told.lost,
            "told_errors": sorted(told.errors.values()),
            "answered": len(asked.taken),
            "answered_lost": asked.lost,
            "asked_errors": sorted(asked.errors.values()),
            "begun_twice": again,
            "handled_twice": sum(1 for times in asked.handled.values() if times > 1),
            "replaced": asked.replaced,
        },
    )


def _hand_out(library: Library, role: str, size: Mapping[str, float]) -> Ledger:
    """Give jobs to a worker that is killed in the middle of one."""
    count, long_job = int(size["jobs"]), int(size["jobs"]) // 4
    variant = "told" if role == "tell" else ""
    ledger = Ledger()
    with Stage(library) as stage:
        worker = stage.serve(name="first", work=size["work"], long_job=long_job, variant=variant)
        boss = stage.start(role, patience=size["patience"], variant=library.asker)
        boss.expect("ready")

        def give() -> None:
            for number in range(count):
                said, _ = boss.ask({"n": number}, size["patience"] + MARGIN)
                if "error" in said:
                    ledger.errors[number] = said["error"]
                else:
                    ledger.taken.add(number)

        giving = threading.Thread(target=give)
        giving.start()
        try:
            _wait_for(stage, worker, long_job)
            worker.signal(signal.SIGKILL)
            worker.wait()
            time.sleep(AWAY)
            again = stage.start("serve", name="second", work=size["work"], variant=variant)
            if again.hear() is None:
                ledger.replaced = False
                os.unlink(stage.place)
                stage.serve(name="second", work=size["work"], variant=variant)
        finally:
            giving.join()
        _rest(stage)
        ledger.begun, ledger.handled = (Counter(stage.journal(kind)) for kind in ("begun", "handled"))
    return ledger


def _wait_for(stage: Stage, worker: Actor, job: int) -> None:
    deadline = time.monotonic() + BEGINNING
    while job not in stage.journal("begun"):
        if not worker.is_alive or time.monotonic() > deadline:
            raise NotMeasured(f"the worker does nothing: {worker.last_words()}")
        time.sleep(0.02)


def _rest(stage: Stage) -> None:
    handled = -1
    while len(stage.journal("handled")) > handled:
        handled = len(stage.journal("handled"))
        time.sleep(REST)


KILLED_WORKER = Scenario(
    key="killed-worker",
    title="A worker killed with work in hand",
    about="{jobs:,} jobs are given to a worker that takes {work:g} s for each. In the middle of one, after a quarter "
    "of them, it is killed (SIGKILL), and soon after another is started at the same place. Once the jobs are told, and "
    "nobody waits for them; once each is asked for, one after the other, by what the library has for that: a request, "
    "and for pyipc a confirmed event. The client waits {patience:g} s for an answer, or for a server to connect to. A "
    "job of which it hears an error it does not give again.",
    columns=(
        "told, and lost without a word",
        "asked, and answered",
        "errors when asking",
        "begun twice",
        "does the next worker start?",
    ),
    play=play,
    size={"jobs": 200, "work": 0.005, "patience": 10},
    quick={"jobs": 60, "work": 0.005, "patience": 4},
)
