"""All scenarios, and playing them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from harness.contender import NotMeasured
from scenarios.huge_frame import HUGE_FRAME
from scenarios.killed_worker import KILLED_WORKER
from scenarios.nested import NESTED
from scenarios.report import Outcome
from scenarios.silent import SILENT
from scenarios.slow_reader import SLOW_READER
from scenarios.theft import THEFT
from scenarios.torn_send import TORN_SEND

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from scenarios.libraries import Library
    from scenarios.scenario import Scenario

__all__ = ["SCENARIOS", "play"]

SCENARIOS: tuple[Scenario, ...] = (SLOW_READER, SILENT, THEFT, KILLED_WORKER, HUGE_FRAME, NESTED, TORN_SEND)


def play(
    scenarios: Iterable[Scenario],
    libraries: Sequence[Library],
    *,
    quick: bool = False,
    at_once: int = 1,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Outcome]:
    """Do everything to everybody, one after the other.

    Args:
        scenarios: What.
        libraries: To whom.
        quick: Whether to do less.
        at_once: To how many at the same time; more than one makes it faster, and times longer.
        progress: Told what is done next.
    """
    outcomes = [Outcome(scenario, dict(scenario.quick if quick else scenario.size)) for scenario in scenarios]
    with ThreadPoolExecutor(at_once) as pool:
        for outcome in outcomes:
            for library in libraries:
                if library.only is None or outcome.scenario.key in library.only:
                    pool.submit(_play_one, outcome, library, progress)
    return outcomes


def _play_one(outcome: Outcome, library: Library, progress: Callable[[str], None]) -> None:
    scenario = outcome.scenario
    progress(f"{scenario.title}: {library.name}")
    if why := library.cannot.get(scenario.key):
        outcome.does_not_apply[library.key] = why
        return
    try:
        library.check()
        outcome.facts[library.key] = scenario.play(library, outcome.size)
    except NotMeasured as reason:
        outcome.not_measured[library.key] = str(reason)
