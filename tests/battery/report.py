"""Figures of a run of the battery, for the page on reliability: ``python -m tests.battery.report LOG PAGE``.

The log is what ``PYIPC_BATTERY_LOG`` names, the page ``docs/explanation/reliability.md``: what stands there between the
two marks is replaced.
"""

from __future__ import annotations

import ast
import collections
import json
import re
import sys
from pathlib import Path
from typing import Any

from tests.conftest import ROOT

__all__ = ["table", "with_section"]

BEGIN, END = "<!-- battery: begin -->", "<!-- battery: end -->"


def table(notes: list[dict[str, Any]], root: Path = ROOT) -> str:
    """What each row of the battery did, and all together.

    Args:
        notes: What tests noted, one each.
        root: Where the files of the tests are.

    Raises:
        ValueError: A test of them failed.
    """
    if failed := sorted(note["test"] for note in notes if not note["passed"]):
        raise ValueError(f"these failed, so there is nothing to show: {', '.join(failed)}")
    rows: dict[str, list[dict[str, Any]]] = {}
    for note in notes:
        rows.setdefault(note["test"].partition("::")[0], []).append(note)
    lines = ["| Row | What is done | Figures | Time |", "|---|---|---|---|"]
    for file, group in sorted(rows.items()):
        counts = _sum(group)
        seconds = sum(note["seconds"] for note in group)
        lines.append(f"| {_name(file)} | {_story(root / file)} | {_words(counts)} | {_time(seconds)} |")
    total = sum(note["seconds"] for note in notes)
    lines.append(f"| | **all** | **{_words(_sum(notes))}** | **{_time(total)}** |")
    return "\n".join(lines)


def with_section(page: str, section: str) -> str:
    """The page with this in the place of what stands between the marks.

    Raises:
        ValueError: The marks are not there.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page has no {BEGIN} and {END}, between which the figures belong")
    return f"{before}{BEGIN}\n\n{section}\n\n{END}{after}"


def _sum(notes: list[dict[str, Any]]) -> collections.Counter[str]:
    counts: collections.Counter[str] = collections.Counter()
    for note in notes:
        counts.update(note["counts"])
    return counts


def _words(counts: collections.Counter[str]) -> str:
    return ", ".join(f"{count:,} {what.replace('_', ' ')}" for what, count in sorted(counts.items()))


def _name(file: str) -> str:
    """``R1`` for ``test_r01_kills.py``."""
    number = Path(file).stem.split("_")[1]
    return f"R{int(number[1:])}" if number[1:].isdigit() else number


def _story(path: Path) -> str:
    """The first paragraph of what a test says of itself, without its number."""
    story = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    words = " ".join(story.partition("\n\n")[0].split()).replace("|", "\\|")
    words = re.sub(r"^R\d+: ", "", words)
    return words[:1].upper() + words[1:]


def _time(seconds: float) -> str:
    return f"{seconds:,.0f} s" if seconds < 600 else f"{seconds / 60:,.0f} min"


def main() -> None:
    """The command."""
    log, page = Path(sys.argv[1]), Path(sys.argv[2])
    notes = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    page.write_text(with_section(page.read_text("utf-8"), table(notes)), "utf-8")


if __name__ == "__main__":
    main()
