"""What was seen, as text, as Markdown and as JSON."""

from __future__ import annotations

import dataclasses
import textwrap
from typing import TYPE_CHECKING, Any

from harness.tables import TEXT_WIDTH, Table, duration
from scenarios.libraries import LIBRARIES, by_key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scenarios.scenario import Facts, Scenario

__all__ = ["Outcome", "Run"]


@dataclasses.dataclass
class Outcome:
    """What became of one scenario.

    Args:
        scenario: Which.
        size: How much of everything there was.
        facts: What was seen of each library, by its key.
        does_not_apply: Why it was not done to others.
        not_measured: Why it could not be done to others.
    """

    scenario: Scenario
    size: Mapping[str, float]
    facts: dict[str, Facts] = dataclasses.field(default_factory=dict)
    does_not_apply: dict[str, str] = dataclasses.field(default_factory=dict)
    not_measured: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def about(self) -> str:
        """What was done."""
        return self.scenario.about.format(**self.size)

    def table(self) -> Table:
        """A row for each library."""
        columns = [column.format(**self.size) for column in self.scenario.columns]
        rows = [[each.name, *self.facts[each.key].cells] for each in LIBRARIES if each.key in self.facts]
        return Table(self.scenario.title, ["", *columns], rows, self._notes(), columns_of_text=len(columns) + 1)

    def _notes(self) -> list[str]:
        kinds = (("does not apply", self.does_not_apply), ("not measured", self.not_measured))
        return [f"{by_key(key).name}: {kind}: {whys[key]}" for kind, whys in kinds for key in sorted(whys)]

    def text(self) -> list[str]:
        """Lines for a terminal: a sentence a line, as tables of sentences are too wide."""
        table = self.table()
        lines = [table.title, "-" * len(table.title), *textwrap.wrap(self.about, TEXT_WIDTH)]
        for name, *cells in table.rows:
            lines += [name, *(f"  {column}: {cell}" for column, cell in zip(table.header[1:], cells, strict=True))]
        return [*lines, *table.notes]

    def markdown(self) -> list[str]:
        """Lines for a page, below a heading of the third level."""
        heading, blank, *rest = self.table().markdown()
        return [f"#{heading}", blank, *textwrap.wrap(self.about, TEXT_WIDTH), "", *rest]

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "name": self.scenario.key,
            "size": dict(self.size),
            "facts": {key: dict(facts.figures) for key, facts in self.facts.items()},
            "does_not_apply": self.does_not_apply,
            "not_measured": self.not_measured,
        }


@dataclasses.dataclass(frozen=True)
class Run:
    """All of it.

    Args:
        command: How to do it again.
        date: When it was.
        about: On what.
        seconds: How long all of it took.
        outcomes: What came out.
    """

    command: str
    date: str
    about: dict[str, str]
    seconds: float
    outcomes: Sequence[Outcome]

    @property
    def _circumstances(self) -> str:
        versions = ", ".join(f"{name} {number}" for name, number in self.about.items())
        return f"{self.date}, in {duration(self.seconds)}; {versions}."

    def text(self) -> str:
        """For a terminal."""
        tables = "\n\n".join("\n".join(outcome.text()) for outcome in self.outcomes)
        return f"{self._circumstances}\n\n{tables}\n"

    def markdown(self) -> str:
        """For a page."""
        head = ["```console", f"$ {self.command}", "```", "", *textwrap.wrap(self._circumstances, TEXT_WIDTH)]
        tables = [line for outcome in self.outcomes for line in ("", *outcome.markdown())]
        return "\n".join([*head, *tables]) + "\n"

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "command": self.command,
            "date": self.date,
            "about": self.about,
            "seconds": self.seconds,
            "scenarios": [outcome.as_json() for outcome in self.outcomes],
        }
