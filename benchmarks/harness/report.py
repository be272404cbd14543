"""All tables of a run, as text, as Markdown and as JSON."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from harness.tables import duration, promise_table, promise_text, result_table, target_table
from harness.targets import judge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.contender import Contender
    from harness.results import Result

__all__ = ["Run"]

HOW_TO_READ = (
    "Median of the rounds (smallest-largest). `x` is the multiple of one contender, round by round. CPU time is of "
    "both processes, for each message; memory is the peak of each process meanwhile."
)


@dataclasses.dataclass(frozen=True)
class Run:
    """What was measured.

    Args:
        command: How to do it again.
        about: On what.
        rounds: How often.
        seconds: How long all of it took.
        results: What came out.
        contenders: Who took part.
    """

    command: str
    about: dict[str, str]
    rounds: int
    seconds: float
    results: Sequence[Result]
    contenders: Sequence[Contender]

    def _introduction(self) -> str:
        versions = ", ".join(f"{name} {value}" for name, value in self.about.items())
        rounds = "1 round" if self.rounds == 1 else f"{self.rounds} rounds"
        return f"{rounds} in {duration(self.seconds)}; {versions}."

    def text(self) -> str:
        """For a terminal."""
        tables = [result_table(result) for result in self.results]
        verdicts = judge(self.results)
        if verdicts:
            tables.append(target_table(verdicts, self.results))
        blocks = [*(table.text() for table in tables), promise_text(self.contenders)]
        parts = [self._introduction(), HOW_TO_READ.replace("`", ""), *("\n".join(block) for block in blocks)]
        return "\n\n".join(parts) + "\n"

    def markdown(self, charts: str | None = None) -> str:
        """For a page.

        Args:
            charts: The directory of the charts as the page sees it; ``None`` for none.
        """
        parts = [f"```console\n$ {self.command}\n```", self._introduction(), HOW_TO_READ]
        verdicts = judge(self.results)
        if verdicts:
            parts.append("\n".join(target_table(verdicts, self.results).markdown()))
        for result in self.results:
            heading, *table = result_table(result).markdown()
            workload = result.workload
            chart = [] if charts is None else ["", f"![{result.title}]({charts}/{workload.name}.svg)"]
            parts.append("\n".join([heading, *chart, *table]))
        parts.append("\n".join(promise_table(self.contenders).markdown()))
        return "\n\n".join(parts) + "\n"

    def as_json(self) -> dict[str, object]:
        """For programs."""
        return {
            "command": self.command,
            "about": self.about,
            "rounds": self.rounds,
            "seconds": self.seconds,
            "contenders": {
                each.key: {"name": each.name, "promises": each.promises, "variant": each.variant}
                for each in self.contenders
            },
            "workloads": [result.as_json() for result in self.results],
            "targets": [
                {
                    "workload": verdict.target.workload,
                    "claim": verdict.target.claim,
                    "measured": None if verdict.measured is None else dataclasses.asdict(verdict.measured),
                    "met": verdict.met,
                    "why": verdict.why,
                }
                for verdict in judge(self.results)
            ],
        }
