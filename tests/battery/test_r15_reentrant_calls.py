"""R15: two programs that answer each other's requests by asking back, eight deep, and neither ever waits for itself.

Each side may handle one request at a time (``max_concurrent_requests=1``), so a handler that asks back is answered only
if it gives up its place while it waits. Eight chains at once begin on either side, a thousand in all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

import pyipc
from tests.battery.leaks import leak_gate
from tests.battery.sizes import sized
from tests.battery.wires import over_local_and_tcp, stage_of
from tests.conformance.sides import until
from tests.conftest import SCALE

if TYPE_CHECKING:
    from pathlib import Path

    from tests.battery.conftest import Tally

DEPTH, AT_ONCE = 8, 8


@pytest.mark.time_limit(60)
@over_local_and_tcp
async def test_calls_that_call_back_never_wait_for_themselves(transport: str, tmp_path: Path, tally: Tally) -> None:
    chains = sized(1_000, least=2 * AT_ONCE)

    async def deeper(message: pyipc.Message[list[int]]) -> list[int]:
        """Who was asked on the way down, the last one first."""
        depth, asker = message.data
        below = await message.connection.request("deeper", [depth - 1, 1 - asker]) if depth > 1 else []
        return [*below, asker]

    def router() -> pyipc.Router:
        made = pyipc.Router()
        made.on("deeper", deeper)
        return made

    async def ask(side: pyipc.Connection, asker: int, count: int) -> None:
        for _ in range(count):
            assert await side.request("deeper", [DEPTH, asker]) == [1 - asker, asker] * (DEPTH // 2)

    stage = stage_of(transport, tmp_path)
    async with (
        leak_gate(tmp_path),
        stage.open(router(), router(), max_concurrent_requests=1, request_timeout=None) as wire,
    ):
        ends = (wire.ours.conn, wire.theirs.conn)
        with trio.fail_after(30 * SCALE):
            async with trio.open_nursery() as nursery:
                for number in range(2 * AT_ONCE):
                    count = len(range(number, chains, 2 * AT_ONCE))
                    nursery.start_soon(ask, ends[number % 2], number % 2, count)
        for end in ends:
            await until(lambda end=end: end.statistics().concurrent_requests == 0)  # type: ignore[misc]
            statistics = end.statistics()
            assert (statistics.pending_requests, statistics.inbox_size, statistics.late_answers) == (0, 0, 0)
    tally.add(messages=chains * DEPTH, lost=0)
