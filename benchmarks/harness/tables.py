"""Tables of results and targets, as rows of text."""

from __future__ import annotations

import dataclasses
import functools
import textwrap
from typing import TYPE_CHECKING

from harness.contenders import by_key
from harness.results import Result, Spread, ratios

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.contender import Contender
    from harness.targets import Verdict

__all__ = [
    "Table",
    "duration",
    "number",
    "promise_table",
    "promise_text",
    "result_table",
    "target_table",
    "with_spread",
]


#: Columns of a terminal that sentences may take.
TEXT_WIDTH = 120


@dataclasses.dataclass
class Table:
    """A title, a header, rows of as many cells, and lines that stand below; figures stand on the right."""

    title: str
    header: list[str]
    rows: list[list[str]]
    notes: list[str] = dataclasses.field(default_factory=list)
    columns_of_text: int = 1

    def text(self) -> list[str]:
        """Lines for a terminal."""
        lines = [self.header, *self.rows]
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.header))]
        shown = [
            "  ".join(
                cell.ljust(width) if column < self.columns_of_text else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        ]
        return [self.title, "-" * len(self.title), *shown, *(f"  {note}" for note in self.notes)]

    def markdown(self) -> list[str]:
        """Lines for a page, with the title as a heading."""
        rule = ["---" if column < self.columns_of_text else "---:" for column in range(len(self.header))]
        lines = [self.header, rule, *([cell.replace("|", "\\|") for cell in row] for row in self.rows)]
        table = [f"| {' | '.join(line)} |" for line in lines]
        return [f"### {self.title}", "", *table, *(["", *(f"* {note}" for note in self.notes)] if self.notes else [])]


def number(value: float) -> str:
    """A figure with about three digits that mean something."""
    for bound, digits in ((100, 0), (10, 1)):
        if abs(value) >= bound:
            return f"{value:,.{digits}f}"
    return f"{value:.2f}"


def duration(seconds: float) -> str:
    """How long something took, for people."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def with_spread(spread: Spread) -> str:
    """Median, smallest and largest; the value alone where there is but one."""
    if spread.low == spread.high:
        return number(spread.median)
    return f"{number(spread.median)} ({number(spread.low)}-{number(spread.high)})"


def result_table(result: Result) -> Table:
    """One workload: the best first; below, who was not measured and why."""
    workload = result.workload
    reference = workload.reference
    columns: list[tuple[str, Callable[[Contender], Spread | None], Callable[[Spread], str]]] = [
        (workload.unit, lambda who: _divided(result.spread(who.key), workload.divisor), with_spread)
    ]
    if result.spread(reference):
        base = result.values(reference)
        columns.append((f"x {by_key(reference).name}", lambda who: ratios(result.values(who.key), base), with_spread))
    server, driver = workload.sides
    for figure, title in (
        *([("mean_us", "mean µs"), ("p99_us", "p99 µs")] if workload.figure == "p50_us" else []),
        ("kib_each", "KiB each"),
        ("cpu_us", "CPU µs each"),
        ("server_cpu_us", f"of them {server}"),
        ("server_peak_mib", f"{server} peak MiB"),
        ("driver_peak_mib", f"{driver} peak MiB"),
    ):
        if any(result.spread(contender.key, figure) for contender in result.contenders):
            columns.append((title, functools.partial(_spread_of, result, figure), _median))
    rows = [
        [contender.name, *(show(spread) if (spread := find(contender)) else "" for _, find, show in columns)]
        for contender in result.ranking()
    ]
    return Table(result.title, ["", *(title for title, _, _ in columns)], rows, _not_measured(result))


def _spread_of(result: Result, figure: str, who: Contender) -> Spread | None:
    return result.spread(who.key, figure)


def _divided(spread: Spread | None, divisor: float) -> Spread | None:
    return None if spread is None else spread / divisor


def _median(spread: Spread) -> str:
    return number(spread.median)


def _not_measured(result: Result) -> list[str]:
    names = {contender.key: contender.name for contender in result.contenders}
    return [f"{names[key]}: not measured: {why}" for key, why in result.failures.items()]


def target_table(verdicts: Sequence[Verdict], results: Sequence[Result]) -> Table:
    """Every target of what was measured, and whether it is met."""
    titles = {result.workload.name: result.title for result in results}
    rows = []
    for verdict in verdicts:
        target = verdict.target
        outcome = {True: "met", False: "not met", None: f"not measured: {verdict.why}"}[verdict.met]
        measured = "" if verdict.measured is None else f"{with_spread(verdict.measured)} {target.unit}"
        rows.append([titles[target.workload], f"{by_key(target.who).name} {target.claim}", measured, outcome])
    return Table("Targets", ["Work", "Target", "Measured", "Outcome"], rows, columns_of_text=4)


def promise_table(contenders: Sequence[Contender]) -> Table:
    """What a user of each gets for the time it takes."""
    rows = [[each.name, each.promises] for each in contenders]
    return Table("What each promises", ["", "Promises"], rows, columns_of_text=2)


def promise_text(contenders: Sequence[Contender]) -> list[str]:
    """The same for a terminal, where long sentences are broken."""
    table = promise_table(contenders)
    width = max(len(name) for name, _ in table.rows)
    rows = [
        textwrap.wrap(promises, TEXT_WIDTH, initial_indent=f"{name:<{width}}  ", subsequent_indent=" " * (width + 2))
        for name, promises in table.rows
    ]
    return [table.title, "-" * len(table.title), *(line for row in rows for line in row)]
