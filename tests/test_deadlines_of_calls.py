"""Time-outs of calls: one timer for all of them, each at its time, and no work that grows with those that wait."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

import pytest
import trio
import trio.lowlevel
import trio.testing

from pyipc.calls import Call, Calls
from pyipc.errors import ConnectionLost, RequestTimeout
from pyipc.protocol.messages import Reply
from pyipc.timers import Timers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

pytestmark = pytest.mark.time_limit(20)


@pytest.fixture
async def timers() -> AsyncIterator[Timers]:
    timers = Timers()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(timers.run)
        await trio.testing.wait_all_tasks_blocked()
        yield timers
        nursery.cancel_scope.cancel()


class Waiting:
    """Calls, each with a task that waits for it, and how they ended in order."""

    def __init__(self, timers: Timers) -> None:
        self.abandoned: list[int] = []
        self.calls = Calls(timers, self.abandoned.append)
        self.ended: list[tuple[int, float, str]] = []

    async def wait(self, number: int, after: float) -> None:
        timeout = None if after == math.inf else after
        call = self.calls.begin(number, "event", timeout, trio.current_time() + after)
        try:
            how = str(await self.calls.wait(call))
        except (RequestTimeout, ConnectionLost) as error:
            how = type(error).__name__
        self.ended.append((number, trio.current_time(), how))


async def test_each_expires_at_its_time(timers: Timers, autojump_clock: MockClock) -> None:
    waiting, rng = Waiting(timers), random.Random(1)
    began = trio.current_time()
    after = [rng.randrange(1, 300) / 10 for _ in range(300)]
    async with trio.open_nursery() as nursery:
        for number, seconds in enumerate(after):
            nursery.start_soon(waiting.wait, number, seconds)
            if number % 7 == 0:
                await trio.lowlevel.checkpoint()
    assert len(waiting.ended) == 300
    for number, when, how in waiting.ended:
        assert when == pytest.approx(began + after[number])
        assert how == "RequestTimeout"
    assert [when for _, when, _ in waiting.ended] == sorted(when for _, when, _ in waiting.ended)
    assert sorted(waiting.abandoned) == list(range(300))
    assert not waiting.calls.pending
    assert len(timers) == 0


async def test_equal_deadlines_expire_together_and_the_oldest_first(timers: Timers, autojump_clock: MockClock) -> None:
    waiting = Waiting(timers)
    calls = [waiting.calls.begin(number, "event", 5.0, 5.0) for number in range(100)]
    await trio.sleep_until(5.0)
    await trio.testing.wait_all_tasks_blocked()
    assert waiting.abandoned == list(range(100))
    assert all(isinstance(call.error, RequestTimeout) for call in calls)
    assert len(timers) == 0


async def test_a_deadline_in_the_past(timers: Timers, autojump_clock: MockClock) -> None:
    waiting = Waiting(timers)
    await trio.sleep(10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(waiting.wait, 1, 100.0)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(waiting.wait, 2, -3.0)
        nursery.start_soon(waiting.wait, 3, 0.0)
        await trio.testing.wait_all_tasks_blocked()
        assert {number for number, when, _ in waiting.ended if when == 10} == {2, 3}
        waiting.calls.settle(Reply(1, "answer"))
    assert waiting.ended[-1] == (1, 10, "answer")


async def test_earlier_and_earlier_deadlines_share_one_timer(timers: Timers, autojump_clock: MockClock) -> None:
    waiting = Waiting(timers)
    for number in range(1_000):
        waiting.calls.begin(number, "event", 1_000.0 - number, 1_000.0 - number)
    assert len(timers) == 1
    await trio.sleep_until(500.5)
    assert waiting.abandoned == list(range(999, 499, -1))
    assert len(timers) == 1
    waiting.calls.fail_all("over", lost=True, maybe_handled=True)
    assert len(timers) == 0


async def test_who_waits_for_ever_needs_no_timer(timers: Timers, autojump_clock: MockClock) -> None:
    waiting = Waiting(timers)
    forever = waiting.calls.begin(1, "event", None, math.inf)
    assert len(timers) == 0
    waiting.calls.begin(2, "event", 1.0, 1.0)
    await trio.sleep(2)
    assert waiting.abandoned == [2]
    assert len(timers) == 0
    assert not forever.is_settled


async def test_answered_and_cancelled_calls_do_not_expire(timers: Timers, autojump_clock: MockClock) -> None:
    waiting, rng = Waiting(timers), random.Random(2)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(waiting.wait, number, rng.choice((1.0, 2.0, 3.0)))
            await trio.sleep(1.5)
            expired = {number for number, _, _ in waiting.ended}
            for number in set(range(0, 200, 2)) - expired:
                waiting.calls.settle(Reply(number, "answer"))
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    assert 0 < len(expired) < 200
    assert {number for number, _, how in waiting.ended if how == "RequestTimeout"} == expired
    assert sorted(waiting.abandoned) == sorted(expired | set(range(1, 200, 2)))
    await trio.sleep(5)
    assert len(waiting.abandoned) == len(set(waiting.abandoned))
    assert len(timers) == 0


async def test_the_connection_fails_while_calls_expire(
    timers: Timers, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """To tell the peer of the first one may be what finds the link broken."""
    ended: list[int] = []

    def abandoned(number: int) -> None:
        ended.append(number)
        calls.fail_all("the link broke", lost=True, maybe_handled=True)

    calls = Calls(timers, abandoned)
    made = [calls.begin(number, "event", 5.0, 5.0 + number % 2) for number in range(10)]
    await trio.sleep(10)
    assert ended == [0]
    assert isinstance(made[0].error, RequestTimeout)
    assert all(isinstance(call.error, ConnectionLost) for call in made[1:])
    assert len(timers) == 0
    later = calls.begin(11, "event", 1.0, trio.current_time() + 1)
    await trio.sleep(2)
    assert isinstance(later.error, RequestTimeout)
    assert not caplog.records


async def test_the_work_of_many_that_expire_one_by_one_is_bounded(
    timers: Timers, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """4,096 wait, and each expires a millisecond after the other. Each is looked at a few times, not thousands."""
    looks = 0

    class Counted(Call):
        __slots__ = ()

        def __getattribute__(self, name: str) -> object:
            nonlocal looks
            looks += name == "deadline"
            return super().__getattribute__(name)

    monkeypatch.setattr("pyipc.calls.Call", Counted)
    waiting, count = Waiting(timers), 4_096
    order = list(range(count))
    random.Random(3).shuffle(order)
    for number, place in enumerate(order):
        waiting.calls.begin(number, "event", 1.0, 1.0 + place / 1_000)
    await trio.sleep_until(3.0)
    assert len(waiting.abandoned) in (2_000, 2_001)  # floats
    await trio.sleep_until(6.0)
    assert [order[number] for number in waiting.abandoned] == list(range(count))
    assert looks <= 4 * count
    assert len(timers) == 0


async def test_answered_calls_are_not_kept_until_their_deadline(
    timers: Timers, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep every millisecond meets many that are about to be answered and would have had an hour."""
    waiting = Waiting(timers)
    most = 0
    number = 0
    for _ in range(200):
        now = trio.current_time()
        waiting.calls.begin(number, "event", 0.001, now + 0.001)
        for further in range(number + 1, number + 51):
            waiting.calls.begin(further, "event", 3_600.0, now + 3_600.0)
        await trio.sleep(0.0015)
        for further in range(number + 1, number + 51):
            waiting.calls.settle(Reply(further, None))
        number += 51
        most = max(most, len(waiting.calls._deadlines))
    assert len(waiting.abandoned) == 200
    assert most < 300
