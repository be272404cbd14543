"""`begin` and `Waiting`: the first real wait is seen, and the scheduler sees nothing of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from pyipc.waiting import begin

if TYPE_CHECKING:
    from collections.abc import Generator

    from trio.testing import MockClock


async def test_what_never_waits_is_done_at_once() -> None:
    done = False

    async def at_once() -> int:
        nonlocal done
        await trio.lowlevel.checkpoint_if_cancelled()
        done = True
        return 7

    assert begin(at_once()) is None
    assert done


async def test_what_waits_goes_on_where_it_was_when_it_is_awaited(autojump_clock: MockClock) -> None:
    order: list[str] = []

    async def waits() -> str:
        order.append("began")
        await trio.sleep(1)
        order.append("woke")
        await trio.sleep(1)
        return "done"

    waiting = begin(waits())
    assert order == ["began"]
    assert waiting is not None
    assert await waiting == "done"
    assert order == ["began", "woke"]
    assert trio.current_time() == pytest.approx(2)


async def test_nobody_else_runs_before_it_is_noticed() -> None:
    order: list[str] = []
    async with trio.open_nursery() as nursery:

        async def other() -> None:
            order.append("other")

        async def waits() -> None:
            order.append("before")
            nursery.start_soon(other)
            await trio.lowlevel.checkpoint()
            order.append("after")

        waiting = begin(waits())
        order.append("noticed")
        assert waiting is not None
        await waiting
    assert order[:2] == ["before", "noticed"]
    assert sorted(order[2:]) == ["after", "other"]


async def test_errors_pass() -> None:
    async def fails_at_once() -> None:
        raise ValueError("at once")

    async def fails_later() -> None:
        await trio.lowlevel.checkpoint()
        raise ValueError("later")

    with pytest.raises(ValueError, match="at once"):
        begin(fails_at_once())
    waiting = begin(fails_later())
    assert waiting is not None
    with pytest.raises(ValueError, match="later"):
        await waiting


async def test_cancellation_reaches_what_is_awaited() -> None:
    seen = False

    async def waits() -> None:
        nonlocal seen
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            seen = True
            raise

    with trio.move_on_after(0) as scope:
        waiting = begin(waits())
        assert waiting is not None
        await waiting
    assert scope.cancelled_caught
    assert seen


async def test_a_cancellation_may_be_caught_inside() -> None:
    async def waits() -> str:
        with trio.move_on_after(0):
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        return "went on"

    waiting = begin(waits())
    assert waiting is not None
    assert await waiting == "went on"


async def test_an_awaitable_that_is_no_coroutine() -> None:
    class Awaitable:
        def __await__(self) -> Generator[None, None, None]:
            return iter(())  # type: ignore[return-value]

    assert begin(Awaitable()) is None
