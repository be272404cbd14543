"""`Watched`: it sees the first real wait, and the scheduler does not see it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from pyipc.watched import Watched

if TYPE_CHECKING:
    from collections.abc import Generator

    from trio.testing import MockClock


class Count:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> None:
        self.calls += 1


async def test_nothing_is_noticed_where_nothing_waits() -> None:
    count = Count()

    async def at_once() -> int:
        await trio.lowlevel.checkpoint_if_cancelled()
        return 7

    assert await Watched(at_once(), count) == 7
    assert count.calls == 0


async def test_the_first_wait_is_noticed_once(autojump_clock: MockClock) -> None:
    count = Count()

    async def waits() -> str:
        assert count.calls == 0
        await trio.sleep(1)
        assert count.calls == 1
        await trio.sleep(1)
        return "done"

    assert await Watched(waits(), count) == "done"
    assert count.calls == 1
    assert trio.current_time() == pytest.approx(2)


async def test_it_is_called_before_others_run() -> None:
    order: list[str] = []
    async with trio.open_nursery() as nursery:

        async def other() -> None:
            order.append("other")

        async def waits() -> None:
            order.append("before")
            nursery.start_soon(other)
            await trio.lowlevel.checkpoint()
            order.append("after")

        await Watched(waits(), lambda: order.append("noticed"))
    assert order.index("noticed") < order.index("other")
    assert order[0] == "before"


async def test_errors_pass() -> None:
    count = Count()

    async def fails_at_once() -> None:
        raise ValueError("at once")

    async def fails_later() -> None:
        await trio.lowlevel.checkpoint()
        raise ValueError("later")

    with pytest.raises(ValueError, match="at once"):
        await Watched(fails_at_once(), count)
    assert count.calls == 0
    with pytest.raises(ValueError, match="later"):
        await Watched(fails_later(), count)
    assert count.calls == 1


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
        await Watched(waits(), Count())
    assert scope.cancelled_caught
    assert seen


async def test_a_cancellation_may_be_caught_inside() -> None:
    async def waits() -> str:
        with trio.move_on_after(0):
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        return "went on"

    assert await Watched(waits(), Count()) == "went on"


async def test_an_awaitable_that_is_no_coroutine() -> None:
    class Awaitable:
        def __await__(self) -> Generator[None, None, int]:
            return iter(())  # type: ignore[return-value]

    assert await Watched(Awaitable(), Count()) is None
