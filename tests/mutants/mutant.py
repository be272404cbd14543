"""What a broken build is, and how it is made of a sound one."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Mutant", "StaleMutant", "broken", "find_test"]


class StaleMutant(Exception):
    """The code has changed, and the mutant must follow."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mutant:
    """A mistake that somebody could make in one place.

    Attributes:
        name: A short name of it.
        mistake: What is wrong with the build, for people.
        file: Where, from the top of the repository.
        old: The sound lines, which stand there once.
        new: The broken ones.
        caught_by: The test that fails with them, as pytest calls it.
    """

    name: str
    mistake: str
    file: str
    old: str
    new: str
    caught_by: str


def broken(mutant: Mutant, root: Path) -> str:
    """The text of the mutant's file with the mistake in it.

    Args:
        mutant: Which mistake.
        root: The top of a sound tree.

    Raises:
        StaleMutant: The sound lines are not there, or are there more than once, or what comes out is no Python.
    """
    path = root / mutant.file
    source = path.read_text("utf-8") if path.is_file() else ""
    count = source.count(mutant.old)
    if count != 1:
        raise StaleMutant(
            f"{mutant.name}: its old text stands {count} times in {mutant.file} and not once; "
            "the code changed, and the mutant must follow"
        )
    text = source.replace(mutant.old, mutant.new)
    try:
        compile(text, mutant.file, "exec")
    except SyntaxError as error:
        raise StaleMutant(f"{mutant.name}: {mutant.file} with it is no Python: {error}") from error
    return text


def find_test(mutant: Mutant) -> tuple[str, str]:
    """The file of the test that catches a mutant, and its name there, without the parameters."""
    file, _, name = mutant.caught_by.partition("::")
    return file, name.partition("[")[0]
