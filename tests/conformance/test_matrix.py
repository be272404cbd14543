"""The feature matrix says what is so: every promise has its tests, and they were run."""

from __future__ import annotations

import os

import pytest

from tests.conformance import conftest, subjects
from tests.conformance.matrix import COMMAND, PAGE, conformance_tests, features_of, page, shown_by
from tests.conformance.subjects import STREAM, SUBJECTS, Feature, Subject, lacks, needs, subjects_for

only_pyipc_itself = pytest.mark.skipif(
    "PYIPC_CONFORMANCE" in os.environ, reason=f"cannot run here: it is about {', '.join(SUBJECTS)} alone"
)


@only_pyipc_itself
def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text("utf-8") == page(), f"make it anew: {COMMAND}"


def test_every_promise_has_tests() -> None:
    tests = conformance_tests()
    unproven = [
        (name, feature.name)
        for name, subject in SUBJECTS.items()
        for feature in subject.promises
        if not shown_by(tests, name, feature)
    ]
    assert unproven == []


def test_every_transport_promises_messages() -> None:
    """Else the suite would have nothing to hold it to, and pass."""
    assert [name for name, subject in SUBJECTS.items() if Feature.MESSAGES not in subject.promises] == []


def test_every_test_says_what_it_shows() -> None:
    assert [name for name, marks in conformance_tests().items() if not features_of(marks)] == []


def test_a_test_is_for_the_transports_that_have_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    class Leaky(Subject):
        name = "leaky"
        promises = frozenset({Feature.MESSAGES})
        platforms = frozenset({"win32"})

    class Tight(Subject):
        name = "tight"
        promises = STREAM

    monkeypatch.setattr(subjects, "SUBJECTS", {"leaky": Leaky, "tight": Tight})
    either, ordered, disordered = needs(Feature.MESSAGES).mark, needs(Feature.ORDER).mark, lacks(Feature.ORDER).mark
    assert subjects_for([either], "win32") == ["leaky", "tight"]
    assert subjects_for([either, ordered], "win32") == ["tight"]
    assert subjects_for([either, disordered], "win32") == ["leaky"]
    assert subjects_for([either, disordered], "linux") == []
    assert subjects_for([disordered, pytest.mark.slow.mark], None) == ["leaky"]


def test_whatever_a_transport_claims_was_shown_in_this_session(request: pytest.FixtureRequest) -> None:
    """Comes last; judges the tests that were chosen, so that part of the suite can be run alone."""
    chosen = [
        item.nodeid
        for item in request.session.items
        if isinstance(item, pytest.Function) and "subject" in item.fixturenames
    ]
    outcomes = {test: conftest.OUTCOMES.get(test, "not run") for test in chosen}
    assert {test: outcome for test, outcome in outcomes.items() if outcome != "passed"} == {}
