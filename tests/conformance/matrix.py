"""The feature matrix: which transport promises what, and how many tests of the conformance suite need it.

``python -m tests.conformance.matrix > docs/reference/feature-matrix.md`` writes the page.
"""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.conformance.subjects import SUBJECTS, Feature, subjects_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pytest

    from tests.conformance.subjects import Subject

__all__ = ["PAGE", "conformance_tests", "page", "shown_by"]

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "reference" / "feature-matrix.md"
COMMAND: Final = "python -m tests.conformance.matrix > docs/reference/feature-matrix.md"
NOT_PROMISED: Final = "–"

SYSTEMS: Final = {"linux": "Linux", "darwin": "macOS", "win32": "Windows"}

ABOVE: Final = """\
# What each transport promises

The same program runs over every transport, and one suite of tests, `tests/conformance/`, runs over all of them. A
number says that the transport makes this promise, and how many tests of the suite need it: those that show it, and
those that rely on it to show another. Most run from the client's side and from the server's. – says that it makes no
such promise; the tests that need it are then left out.

"""
BELOW: Final = f"""
This page is made by `{COMMAND}`, from
what the tests and the transports declare; a test fails when it is not up to date.
"""


def conformance_tests() -> dict[str, Sequence[pytest.Mark]]:
    """The marks of every test of the suite that runs over transports, by ``module::name``."""
    found: dict[str, Sequence[pytest.Mark]] = {}
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        module = importlib.import_module(f"tests.conformance.{path.stem}")
        for name, function in vars(module).items():
            if name.startswith("test_") and {"stage", "subject"} & set(inspect.signature(function).parameters):
                found[f"{path.stem}::{name}"] = getattr(function, "pytestmark", [])
    return found


def features_of(marks: Sequence[pytest.Mark]) -> set[Feature]:
    """What a test shows: the features that it needs."""
    return {feature for mark in marks if mark.name == "needs" for feature in mark.args}


def shown_by(tests: Mapping[str, Sequence[pytest.Mark]], subject: str, feature: Feature) -> list[str]:
    """The tests that show a feature of one transport."""
    return [
        name
        for name, marks in tests.items()
        if feature in features_of(marks) and subject in subjects_for(marks, platform=None)
    ]


def rows(subjects: Mapping[str, type[Subject]]) -> Iterator[Sequence[str]]:
    """The table, its head first."""
    tests = conformance_tests()
    yield ["", *subjects]
    yield ["---"] * (len(subjects) + 1)
    yield [
        "runs on",
        *(", ".join(SYSTEMS[each] for each in SYSTEMS if each in one.platforms) for one in subjects.values()),
    ]
    for feature in Feature:
        if any(feature in one.promises for one in subjects.values()):
            yield [feature.value, *(_cell(tests, name, feature) for name in subjects)]


def _cell(tests: Mapping[str, Sequence[pytest.Mark]], subject: str, feature: Feature) -> str:
    if feature not in SUBJECTS[subject].promises:
        return NOT_PROMISED
    return str(len(shown_by(tests, subject, feature)))


def page() -> str:
    """The page as it should be."""
    return ABOVE + "".join(f"| {' | '.join(row)} |\n" for row in rows(SUBJECTS)) + BELOW


if __name__ == "__main__":
    print(page(), end="")
