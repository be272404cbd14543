"""The page of all mutants and what catches them; ``python -m tests.mutants --markdown`` writes it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tests.mutants.mutant import Mutant

__all__ = ["COMMAND", "PAGE", "page"]

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "explanation" / "mutants.md"
COMMAND: Final = "python -m tests.mutants --markdown > docs/explanation/mutants.md"

_ABOVE: Final = """\
# Builds that are broken on purpose

A suite of tests that passes says little of what it would notice. So CI also runs it against {count} builds of pyipc
that are broken: each has one mistake that somebody could make, and each must be caught by the test that is named
beside it. A build is caught when that test was run and failed. One that does not start, that does not even do what it
is said to do wrong, or that comes to no end is a fault of the mutant, and fails as well. On the sound build all of
these tests pass.

`./run mutants` tries all of them in two minutes, and `./run mutants dedupe-off` one.
"""
_BELOW: Final = f"""
This page is made by `{COMMAND}`; a test fails when it is not up to date, and another when
the code has changed so that a mutant does not fit any more.
"""


def page(catalogue: Mapping[str, Sequence[Mutant]]) -> str:
    """The page as it should be.

    Args:
        catalogue: The mutants, by what they are about.
    """
    above = _ABOVE.format(count=sum(map(len, catalogue.values())))
    return above + "".join(line for subject in catalogue for line in _table(subject, catalogue[subject])) + _BELOW


def _table(subject: str, mutants: Sequence[Mutant]) -> Iterator[str]:
    yield f"\n## {subject}\n\n| Build | What is wrong with it | In | Caught by |\n|---|---|---|---|\n"
    for mutant in mutants:
        yield f"| {mutant.name} | {mutant.mistake} | `{mutant.file}` | `{mutant.caught_by}` |\n"
