"""`Timers`: one heap, one sleeping task, trio's time."""

from __future__ import annotations

import logging
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from pyipc.timers import Timers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock


@asynccontextmanager
async def running() -> AsyncIterator[Timers]:
    timers = Timers()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(timers.run)
        await trio.testing.wait_all_tasks_blocked()
        yield timers
        nursery.cancel_scope.cancel()


async def test_in_order_and_on_time(autojump_clock: MockClock) -> None:
    fired: list[tuple[int, float]] = []
    async with running() as timers:
        delays = [5, 1, 3, 2, 4, 1000]
        random.Random(1).shuffle(delays)
        for delay in delays:
            timers.call_at(trio.current_time() + delay, lambda late, d=delay: fired.append((d, trio.current_time())))  # type: ignore[misc]
        await trio.sleep(1001)
    assert [delay for delay, _ in fired] == [1, 2, 3, 4, 5, 1000]
    assert all(at == pytest.approx(delay) for delay, at in fired)


async def test_at_the_same_time_in_order_of_registration(autojump_clock: MockClock) -> None:
    fired: list[int] = []
    async with running() as timers:
        for number in range(100):
            timers.call_at(7.0, lambda late, n=number: fired.append(n))  # type: ignore[misc]
        await trio.sleep(8)
    assert fired == list(range(100))


async def test_one_that_fails_does_not_stop_the_others(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    fired: list[float] = []

    def fail(late: float) -> None:
        raise ValueError("a fault of ours")

    async with running() as timers:
        timers.call_at(1, fail)
        timers.call_at(1, fired.append)
        timers.call_at(2, fired.append)
        await trio.sleep(3)
    assert fired == [0.0, 0.0]
    assert "a timer's action failed" in caplog.text


async def test_an_earlier_one_while_it_sleeps(autojump_clock: MockClock) -> None:
    fired: list[float] = []
    async with running() as timers:
        timers.call_at(100, lambda late: fired.append(trio.current_time()))
        await trio.sleep(10)
        timers.call_at(20, lambda late: fired.append(trio.current_time()))
        await trio.sleep(200)
    assert fired == [pytest.approx(20), pytest.approx(100)]


async def test_an_action_may_plan_the_next(autojump_clock: MockClock) -> None:
    fired: list[float] = []
    async with running() as timers:

        def again(late: float) -> None:
            fired.append(trio.current_time())
            if len(fired) < 5:
                timers.call_at(trio.current_time() + 1, again)

        timers.call_at(1, again)
        await trio.sleep(100)
        assert len(timers) == 0
    assert fired == [pytest.approx(n) for n in (1, 2, 3, 4, 5)]


async def test_cancelled_ones_do_not_fire(autojump_clock: MockClock) -> None:
    fired: list[int] = []
    async with running() as timers:
        one = timers.call_at(1, lambda late: fired.append(1))
        two = timers.call_at(1, lambda late: fired.append(2))
        one.cancel()
        one.cancel()
        await trio.sleep(2)
        two.cancel()  # afterwards: nothing
        assert fired == [2]
        assert len(timers) == 0


async def test_one_action_may_cancel_the_next(autojump_clock: MockClock) -> None:
    fired: list[int] = []
    async with running() as timers:
        timers.call_at(1, lambda late: second.cancel())
        second = timers.call_at(1, lambda late: fired.append(2))
        timers.call_at(1, lambda late: fired.append(3))
        await trio.sleep(2)
    assert fired == [3]


async def test_cancelled_ones_do_not_pile_up(autojump_clock: MockClock) -> None:
    fired = 0

    def fire(late: float) -> None:
        nonlocal fired
        fired += 1

    async with running() as timers:
        for _ in range(20):
            timers.call_at(1_000, fire)
        for _ in range(100_000):
            timers.call_at(500, fire).cancel()
        assert len(timers) == 20
        assert len(timers._heap) < 300
        await trio.sleep(1_001)
    assert fired == 20


async def test_a_loop_that_was_blocked_says_so(mock_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    late: list[float] = []
    async with running() as timers:
        timers.call_at(10, late.append)
        mock_clock.jump(10.5)
        await trio.testing.wait_all_tasks_blocked()
        assert late == [pytest.approx(0.5)]
        assert caplog.records == []
        timers.call_at(20, late.append)
        mock_clock.jump(30)
        await trio.testing.wait_all_tasks_blocked()
    assert late[1] == pytest.approx(20.5)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "blocked" in record.message
