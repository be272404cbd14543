"""The parameters of the conformance suite: every transport that has what a test needs, in both roles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.conformance.sides import Stage
from tests.conformance.subjects import SUBJECTS, Subject, subjects_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Each test of this session and how it came out, for the one in test_matrix.py that looks back.
OUTCOMES: dict[str, str] = {}
LOOKS_BACK = "test_whatever_a_transport_claims_was_shown_in_this_session"
NO_SUBJECT = "none"


@pytest.fixture
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Subject]:
    """One transport, at a place of its own."""
    made = SUBJECTS[request.param](tmp_path)
    yield made
    made.close()


@pytest.fixture(params=["client", "server"])
def stage(request: pytest.FixtureRequest, subject: Subject) -> Stage:
    """Both roles on one transport."""
    return Stage(subject, request.param)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "subject" in metafunc.fixturenames:
        names = subjects_for(metafunc.definition.iter_markers())
        metafunc.parametrize("subject", names or [NO_SUBJECT], indirect=True)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests that no transport is for, and let the one that looks back come last."""
    empty = [item for item in items if _subject_of(item) == NO_SUBJECT]
    if empty:
        config.hook.pytest_deselected(items=empty)
    items[:] = sorted((item for item in items if item not in empty), key=lambda item: item.name == LOOKS_BACK)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" or report.outcome != "passed":
        OUTCOMES[report.nodeid] = report.outcome


def _subject_of(item: pytest.Item) -> object:
    callspec = getattr(item, "callspec", None)
    return callspec and callspec.params.get("subject")
