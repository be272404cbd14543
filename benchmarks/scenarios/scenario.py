"""What a scenario is."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from scenarios.libraries import Library

__all__ = ["Facts", "Scenario", "counted", "seconds"]


@dataclasses.dataclass(frozen=True)
class Facts:
    """What was seen of one library.

    Args:
        cells: A sentence for each column.
        figures: The same for programs.
    """

    cells: list[str]
    figures: Mapping[str, object]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scenario:
    """One table.

    Args:
        key: What it is called on the command line and in JSON.
        title: What it is called in tables.
        about: What is done, in sentences; names of ``size`` in braces stand for their values.
        columns: What is looked at.
        play: Does it to one library, with so much of everything.
        size: How much, usually.
        quick: How much for ``--quick``.
    """

    key: str
    title: str
    about: str
    columns: tuple[str, ...]
    play: Callable[[Library, Mapping[str, float]], Facts]
    size: Mapping[str, float]
    quick: Mapping[str, float]


def counted(things: Iterable[str]) -> str:
    """``3 x this, 1 x that``, the most frequent first."""
    return ", ".join(f"{number} x {what}" for what, number in Counter(things).most_common()) or "nothing"


def seconds(value: float) -> str:
    """How long something took, for people."""
    return f"{value * 1000:,.0f} ms" if value < 1 else f"{value:.1f} s"
