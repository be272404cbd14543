"""What the commands have in common: names that are asked for, progress, and pages with tables between marks."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["Marks", "check_names", "show_progress"]


def check_names(names: Sequence[str] | None, known: Sequence[str], kind: str) -> None:
    """Check that there is something of each name.

    Raises:
        SystemExit: There is not.
    """
    for name in names or ():
        if name not in known:
            sys.exit(f"there is no {kind} {name!r}; there are {', '.join(known)}")


def show_progress(text: str) -> None:
    """Say what is done now: in place on a terminal."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
    else:
        print(text, file=sys.stderr, flush=True)


class Marks:
    """Between two marks a page has the tables of a command; all else in it is kept.

    Args:
        command: Which, as one types it.
    """

    def __init__(self, command: str) -> None:
        self.begin: str = f"<!-- what follows is made by {command} -->\n"
        self.end: str = f"<!-- made by {command} until here -->"

    def around(self, page: Path) -> tuple[str, str]:
        """What stands before the first mark of a page and after the second; nothing if the page is to be made.

        Raises:
            SystemExit: The page is there, but without both marks, in order and once: its text would be lost.
        """
        if not page.exists():
            return "", "\n"
        text = page.read_text("utf-8")
        before, _, rest = text.partition(self.begin)
        _, end, after = rest.partition(self.end)
        if not end or any(text.count(mark) > 1 for mark in (self.begin, self.end)):
            sys.exit(
                f"{page} is there but does not have both marks, each once, and would be lost: give another file, or "
                f"add the lines {self.begin.strip()!r} and {self.end!r} where the tables are to stand"
            )
        return before, after

    def place(self, tables: str, page: Path) -> None:
        """Write tables into a page between its marks, or make the page.

        Raises:
            SystemExit: The page is there, but without both marks.
        """
        before, after = self.around(page)
        page.write_text(f"{before}{self.begin}\n{tables}\n{self.end}{after}", "utf-8")
