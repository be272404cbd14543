"""What ``pyipc doctor`` finds: one fact each, how bad it is, and what to do about it."""

from __future__ import annotations

import dataclasses
import enum
from typing import TYPE_CHECKING, Any, Final

from pyipc.cli.showing.text import Lines

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyipc.cli.showing.console import Line

__all__ = ["Finding", "Level", "ok", "problem", "warning"]


class Level(enum.Enum):
    """How bad something is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


_NEXT_LINE: Final = Lines("\n           ")
_STYLES: Final = {Level.OK: "green", Level.WARNING: "yellow", Level.PROBLEM: "bold red"}


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """One fact.

    Attributes:
        level: How bad it is.
        check: A short, stable name of what was looked at.
        sentence: What was found.
        remedy: What to do about it, if something is to be done.
        facts: The same for programs.
    """

    level: Level
    check: str
    sentence: str
    remedy: str | None = None
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def record(self, subject: str) -> dict[str, Any]:
        """The finding for programs; ``subject`` is what it is about."""
        return {
            "kind": "finding",
            "subject": subject,
            "level": self.level.value,
            "check": self.check,
            "text": self.sentence,
            "remedy": self.remedy,
            **self.facts,
        }

    def line(self) -> Line:
        """The finding for people."""
        remedy = [] if self.remedy is None else [(_NEXT_LINE, ""), (f"-> {self.remedy}", "bold")]
        return [(f"  {self.level.value:<7}  ", _STYLES[self.level]), (self.sentence, ""), *remedy]


def ok(check: str, sentence: str, **facts: Any) -> Finding:
    """All is well."""
    return Finding(Level.OK, check, sentence, None, facts)


def warning(check: str, sentence: str, remedy: str | None = None, **facts: Any) -> Finding:
    """It works, but may not be what is meant."""
    return Finding(Level.WARNING, check, sentence, remedy, facts)


def problem(check: str, sentence: str, remedy: str | None = None, **facts: Any) -> Finding:
    """It does not work."""
    return Finding(Level.PROBLEM, check, sentence, remedy, facts)
