"""What is remembered of numbers, against a model that remembers everything."""

from __future__ import annotations

import dataclasses
import gc
import types
import weakref
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyipc.options import Options
from pyipc.sessions import HANDLED, MAX_OUTCOMES_SIZE, Receipts, Sessions, Standing
from pyipc.timers import Timers
from pyipc.transports import Peer

if TYPE_CHECKING:
    import trio.testing

pytestmark = pytest.mark.time_limit(60)


@dataclasses.dataclass
class Model:
    """All numbers that ever came, and all that is known of each."""

    lowest: int = 0
    verdicts: dict[int, Any] = dataclasses.field(default_factory=dict)

    def look(self, number: int, lowest: int) -> Any:
        self.lowest = max(self.lowest, lowest)
        if number < self.lowest:
            return Standing.FORGOTTEN
        if number not in self.verdicts:
            return Standing.NEW
        return Standing.RUNNING if self.verdicts[number] is None else self.verdicts[number]


VERDICTS = st.one_of(
    st.just(HANDLED),
    st.tuples(st.just("code"), st.text(max_size=20), st.none() | st.binary(max_size=20)),
)
#: A number, how far below it the lowest is, and how the handling ends: not yet, where it is ``None``.
STEPS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 45), st.none() | VERDICTS), max_size=200)


@given(STEPS)
def test_it_is_what_a_simple_model_says(steps: list[tuple[int, int, Any]]) -> None:
    receipts, model = Receipts(), Model()
    for number, below, verdict in steps:
        lowest = max(0, number - below)
        standing = receipts.look(number, lowest)
        assert standing == model.look(number, lowest)
        if standing is Standing.NEW:
            receipts.begin(number)
            model.verdicts[number] = None
        if standing in (Standing.NEW, Standing.RUNNING) and verdict is not None:
            assert receipts.settle(number, verdict) == verdict
            model.verdicts[number] = verdict
        assert receipts.lowest == model.lowest
        kept = [each for each in receipts._numbers.values() if each is not None]
        assert receipts.size == sum(len(message) + len(data or b"") for _, message, data in kept)
        # What is below the lowest is forgotten, except what hides behind a number that came before it.
        if all(number >= model.lowest for number in list(receipts._numbers)[:1]):
            assert set(receipts._numbers) <= set(model.verdicts)
        assert {n for n in model.verdicts if n >= model.lowest} <= set(receipts._numbers)


@given(st.lists(st.integers(0, 1_000), min_size=1, max_size=300))
def test_memory_is_bounded_whatever_order_the_numbers_have(numbers: list[int]) -> None:
    receipts, window = Receipts(), 50
    for number in numbers:
        lowest = max(0, number - window + 1)
        if receipts.look(number, lowest) is Standing.NEW:
            receipts.begin(number)
            receipts.settle(number, HANDLED)
        assert len(receipts) <= 2 * window


def test_what_ends_after_it_was_forgotten_is_told_once_and_not_kept() -> None:
    receipts = Receipts()
    assert receipts.look(1, 1) is Standing.NEW
    receipts.begin(1)
    assert receipts.look(2, 2) is Standing.NEW
    assert receipts.settle(1, ("code", "message", b"data")) == ("code", "message", b"data")
    assert (len(receipts), receipts.size) == (0, 0)
    assert receipts.look(1, 1) is Standing.FORGOTTEN


def test_beyond_the_bound_an_outcome_is_only_a_code() -> None:
    receipts = Receipts()
    big = "x" * (MAX_OUTCOMES_SIZE - 10)
    for number, message, kept in ((1, big, big), (2, "y" * 11, ""), (3, "z" * 10, "z" * 10)):
        assert receipts.look(number, 1) is Standing.NEW
        receipts.begin(number)
        assert receipts.settle(number, ("code", message, None)) == ("code", kept, None)
    assert receipts.size == MAX_OUTCOMES_SIZE
    receipts.look(4, 2)
    assert receipts.size == 10


class Caller:
    """What a session needs of a connection."""

    def __init__(self, name: str = "a", peer: Peer = Peer(address="unix:/x", uid=1)) -> None:  # noqa: B008 - frozen
        self._link = types.SimpleNamespace(peer=peer)
        self._receipts: Any = None
        self.aborted = ""
        self.name = name

    def enter(self, sessions: Sessions) -> Caller:
        incarnation = sessions.terms_for(self._link.peer).incarnation_of(self.name)
        sessions.enter(cast("Any", self), self.name, incarnation)
        return self

    def abort(self, code: str, message: str) -> None:
        self.aborted = code

    def leave(self, sessions: Sessions) -> None:
        sessions.leave(cast("Any", self))


async def test_many_numbers_of_clients_that_are_gone_are_bounded_in_all(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyipc.sessions._MAX_IDLE_NUMBERS", 100)
    sessions = Sessions(Options(), Timers())
    for name in range(10):
        caller = Caller(f"{name}").enter(sessions)
        for number in range(1, 31):
            caller._receipts.begin(number)
        caller.leave(sessions)
        caller.leave(sessions)  # which changes nothing
        assert sum(map(len, sessions._sessions.values())) <= 100
    assert len(sessions) == 3
    again = Caller("9").enter(sessions)
    assert len(again._receipts) == 30
    assert sessions._idle_numbers == 60
    # One that has more than all may have is kept for as long as it is the only one.
    for number in range(31, 200):
        again._receipts.begin(number)
    again.leave(sessions)
    assert len(sessions) == 1
    assert sessions._idle_numbers == 199


async def test_a_peer_that_makes_many_sessions_pushes_out_its_own(autojump_clock: trio.testing.MockClock) -> None:
    sessions = Sessions(Options(max_sessions=5), Timers())
    honest = [Caller(f"{name}", Peer(address="tcp:x", host=f"10.0.0.{name}")).enter(sessions) for name in range(3)]
    kept = [each._receipts for each in honest]
    for each in honest:
        each.leave(sessions)
    for name in range(100):
        Caller(f"flood-{name}", Peer(address="tcp:x", host="10.9.9.9")).enter(sessions).leave(sessions)
        assert len(sessions) <= 5
    for name, session in enumerate(kept):
        assert Caller(f"{name}", Peer(address="tcp:x", host=f"10.0.0.{name}")).enter(sessions)._receipts is session


async def test_a_peer_with_many_numbers_pushes_out_its_own(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyipc.sessions._MAX_IDLE_NUMBERS", 100)
    sessions = Sessions(Options(), Timers())
    honest = Caller("honest", Peer(address="tcp:x", host="10.0.0.1")).enter(sessions)
    honest._receipts.begin(1)
    honest.leave(sessions)
    for name in range(5):
        greedy = Caller(f"{name}", Peer(address="tcp:x", host="10.9.9.9")).enter(sessions)
        for number in range(1, 61):
            greedy._receipts.begin(number)
        greedy.leave(sessions)
    assert len(Caller("honest", Peer(address="tcp:x", host="10.0.0.1")).enter(sessions)._receipts) == 1


async def test_a_peer_with_many_numbers_does_not_pay_for_many_sessions(
    autojump_clock: trio.testing.MockClock,
) -> None:
    sessions = Sessions(Options(max_sessions=5), Timers())
    honest = Caller("honest", Peer(address="tcp:x", host="10.0.0.1")).enter(sessions)
    for number in range(1, 61):
        honest._receipts.begin(number)
    honest.leave(sessions)
    for name in range(10):
        Caller(f"flood-{name}", Peer(address="tcp:x", host="10.9.9.9")).enter(sessions).leave(sessions)
    assert len(Caller("honest", Peer(address="tcp:x", host="10.0.0.1")).enter(sessions)._receipts) == 60


async def test_what_peers_have_is_counted_as_long_as_they_are_remembered(
    autojump_clock: trio.testing.MockClock,
) -> None:
    sessions = Sessions(Options(max_sessions=5), Timers())
    for name in range(20):
        caller = Caller(f"{name}", Peer(address="tcp:x", host=f"10.0.0.{name % 3}")).enter(sessions)
        caller._receipts.begin(1)
        caller.leave(sessions)
    assert sum(sessions._sessions_of.values()) == sum(sessions._numbers_of.values()) == len(sessions) == 5
    for (host, _), session in list(sessions._idle):
        Caller(session, Peer(address="tcp:x", host=host)).enter(sessions)
    assert not sessions._sessions_of
    assert not sessions._numbers_of


async def test_a_session_does_not_keep_its_connections(autojump_clock: trio.testing.MockClock) -> None:
    sessions = Sessions(Options(), Timers())
    first, second = Caller().enter(sessions), Caller().enter(sessions)
    session = first._receipts
    assert second._receipts is session
    first.leave(sessions)
    assert session.is_superseded(first)
    assert not session.is_superseded(second)
    second.leave(sessions)
    # The last one may still have something to handle, while no other has come.
    assert not session.is_superseded(second)
    seen = weakref.ref(second)
    del second
    gc.collect()
    assert seen() is None
    assert session.is_superseded(first)


async def test_peers_of_one_user_share_what_they_are_told() -> None:
    sessions = Sessions(Options(), Timers())
    terms = sessions.terms_for(Peer(address="unix:/x", uid=1, pid=1))
    assert sessions.terms_for(Peer(address="unix:/y", uid=1, pid=2)) is terms
    for uid in range(2, 3_000):
        sessions.terms_for(Peer(address="unix:/x", uid=uid))
    assert len(sessions._terms) <= 1_024


async def test_outcomes_of_clients_that_are_gone_are_bounded_in_all(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyipc.sessions._MAX_IDLE_SIZE", 1_000)
    sessions = Sessions(Options(), Timers())
    verdict = ("code", "x" * 300, b"y" * 100)
    kept = {}
    for name in "abcd":
        caller = Caller(name).enter(sessions)
        for number in (1, 2):
            caller._receipts.begin(number)
        caller._receipts.settle(1, verdict)
        caller.leave(sessions)
        if name != "a":
            caller._receipts.settle(2, verdict)  # what was at work goes on, and ends meanwhile
        kept[name] = [caller._receipts.look(number, 0) for number in (1, 2)]
        assert sessions._idle_size == sum(session.size for session in sessions._sessions.values()) <= 1_000
    assert kept["a"] == [verdict, Standing.RUNNING]
    assert kept["b"] == kept["c"] == kept["d"] == [("code", "", None)] * 2  # each time it was too much with the second
    # Whoever comes back counts no more, and has what there is.
    back = Caller("a").enter(sessions)
    assert back._receipts.look(1, 0) == verdict
    assert sessions._idle_size == sum(s.size for s in sessions._sessions.values() if not s.connections)


async def test_who_was_told_of_a_session_that_was_forgotten_before_it_entered_must_come_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    sessions = Sessions(Options(max_sessions=1), Timers())
    caller = Caller("a")
    incarnation = sessions.terms_for(caller._link.peer).incarnation_of("a")
    Caller("b").enter(sessions).leave(sessions)
    sessions.enter(cast("Any", caller), "a", incarnation)
    assert caller.aborted == "session"
    assert caller._receipts is None
    assert len(sessions) == 1
