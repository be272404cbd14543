"""What an item of a stream costs, counted as in `tests.test_work`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

import pyipc  # noqa: TC001 - the handler declares what it takes
from tests.test_work import DATA, calls_in_pyipc, counted_pair, slow_clock, tally

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from trio.testing import MockClock

    from tests.test_work import Tally

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="cannot run here: needs Unix sockets")

__all__ = ["slow_clock", "tally"]


async def test_items_share_turns_and_writes(tally: Tally, tmp_path: Path, slow_clock: MockClock) -> None:
    count = 10_000
    async with counted_pair(tally, tmp_path) as (client, server):

        @server.on("rows")
        async def rows(message: pyipc.Message[Any]) -> AsyncIterator[Any]:
            for _ in range(count):
                yield DATA

        async def take() -> None:
            async with client.stream("rows") as stream:
                async for row in stream:
                    assert row == DATA

        await take()
        tally.clear()
        calls = await calls_in_pyipc(take)
        print(f"per item: {tally.per(count)}, {calls / count:.1f} calls")
        # There is credit for 256 of them, and half of that is given back at a time.
        assert tally.turns <= 0.06 * count
        assert tally.sends <= 0.05 * count
        assert tally.receives <= 0.05 * count
        assert calls <= 9 * count
