"""What the rounds gave: medians, spreads, and ratios within a round."""

from __future__ import annotations

import dataclasses
import statistics
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.contender import Contender
    from harness.workloads import Workload

__all__ = ["Figures", "Result", "Spread", "ratios"]

Figures = dict[str, float]


@dataclasses.dataclass(frozen=True)
class Spread:
    """The median of some values, with the smallest and the largest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """Of values; ``None`` where there are none."""
        return cls(statistics.median(values), min(values), max(values)) if values else None

    def __truediv__(self, divisor: float) -> Spread:
        return Spread(self.median / divisor, self.low / divisor, self.high / divisor)


class Result:
    """What the rounds of one workload gave.

    Args:
        workload: Which.
        params: How much of it there was.
        contenders: Who takes part, in the order in which each round measures them.
    """

    def __init__(self, workload: Workload, params: dict[str, int], contenders: Sequence[Contender]) -> None:
        self.workload = workload
        self.params = params
        self.contenders = contenders
        self.failures: dict[str, str] = {}
        self._rounds: dict[str, dict[int, Figures]] = {contender.key: {} for contender in contenders}

    @property
    def title(self) -> str:
        """What was measured."""
        return self.workload.titled(self.params)

    def add(self, number: int, key: str, figures: Figures) -> None:
        """Keep what a contender's measurement in one round gave."""
        self._rounds[key][number] = figures

    def values(self, key: str, figure: str | None = None) -> dict[int, float]:
        """One figure of a contender by round; by default the one that is compared."""
        figure = figure or self.workload.figure
        return {number: figures[figure] for number, figures in self._rounds.get(key, {}).items() if figure in figures}

    def spread(self, key: str, figure: str | None = None) -> Spread | None:
        """The same figure's median and spread; ``None`` if it was not measured."""
        return Spread.of([*self.values(key, figure).values()])

    def ranking(self) -> list[Contender]:
        """Those that were measured, the best first."""
        medians = {
            contender.key: spread.median for contender in self.contenders if (spread := self.spread(contender.key))
        }
        measured = [contender for contender in self.contenders if contender.key in medians]
        return sorted(measured, key=lambda contender: medians[contender.key], reverse=not self.workload.lower_is_better)

    def as_json(self) -> dict[str, object]:
        """Everything, for programs."""
        workload = self.workload
        return {
            "name": workload.name,
            "title": self.title,
            "transport": workload.transport.name if workload.transport else "each",
            "pinned": workload.pinned,
            "params": self.params,
            "figure": workload.figure,
            "lower_is_better": workload.lower_is_better,
            "rounds": {
                key: [{"round": number, **figures} for number, figures in by_round.items()]
                for key, by_round in self._rounds.items()
            },
            "not_measured": self.failures,
        }


def ratios(values: dict[int, float], others: dict[int, float]) -> Spread | None:
    """What values are as multiples of others of the same round; ``None`` if no round has both."""
    return Spread.of([values[number] / others[number] for number in values if others.get(number)])
