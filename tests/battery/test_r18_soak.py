"""The soak: two hundred clients, and everything at once, for as long as one likes. Nothing is lost, and nothing grows.

Clients come, stay for some seconds, and go. Meanwhile they send requests, events, confirmed events, attachments, and
what they publish; read streams; and hear what the server publishes for all. Each compares with the server what it has
sent with what was handled, by number, content and order, before it goes: nothing may be missing, doubled or changed.
The server's memory and descriptors do not grow, and its answers are as fast in the end as at first.
``PYIPC_TEST_SCALE=30`` makes it half an hour.
"""

from __future__ import annotations

import collections
import contextlib
import statistics
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.battery.leaks import leak_gate
from tests.battery.program import running
from tests.battery.sizes import lasting, sized
from tests.battery.soak import ACTIONS, percentile

if TYPE_CHECKING:
    from pathlib import Path

    from tests.battery.conftest import Tally

HOUR, MIB = 3600.0, 1 << 20
#: What memory may grow by in an hour; and within any time, since it comes from the system in pieces.
PROMISED, PIECE = 1 * MIB, 3 * MIB
#: For what part of the time a server only gets what it keeps, such as what it remembers of those who have gone.
WARMING_UP = 1 / 2
#: Within less time, in seconds, it does not get everything that it keeps.
SHORT, MORE_TO_COME = 60.0, 8 * MIB
#: Below this, in seconds, the time of a request says more of the machine than of the server.
QUICK = 0.1


class Course:
    """What came to be known of the server and its clients in the course of time."""

    def __init__(self) -> None:
        self.samples: list[dict[str, Any]] = []
        self.times: list[collections.Counter[int]] = []
        self.began = time.monotonic()
        self._told = self.began

    def add(self, sample: dict[str, Any], times: collections.Counter[int]) -> None:
        """Note how it stands, and how long requests have taken since the last time; tell of it once a minute."""
        self.samples.append(sample)
        self.times.append(times)
        if sample["at"] > self._told + 60:
            self._told = sample["at"]
            print(
                f"{(sample['at'] - self.began) / 60:.0f} min: {sample['messages']:,} messages, "
                f"{sample['memory'] / MIB:.1f} MiB, {sample['connections']} connections "
                f"and {sample['descriptors']} other descriptors, 99 % of requests "
                f"{percentile(times, 0.99) * 1e3:.0f} ms",
                flush=True,
            )

    @property
    def warm(self) -> list[dict[str, Any]]:
        """Samples after the server has warmed up."""
        return self.samples[int(len(self.samples) * WARMING_UP) :]

    def slope(self, what: str) -> float:
        """By how much something grows in a second, by least squares."""
        warm = self.warm
        return statistics.linear_regression([each["at"] for each in warm], [each[what] for each in warm]).slope

    def slowest(self) -> tuple[float, float]:
        """Seconds that 99 % of requests take no longer than: in the first half of the warm time, and the last."""
        warm = self.times[int(len(self.times) * WARMING_UP) :]
        half = len(warm) // 2
        first, last = (sum(part, collections.Counter[int]()) for part in (warm[:half], warm[half:]))
        return percentile(first, 0.99), percentile(last, 0.99)


@pytest.mark.skipif(sys.platform != "linux", reason="cannot run here: what a process holds is in /proc")
@pytest.mark.time_limit(300)
async def test_time_leaves_no_trace(tmp_path: Path, tally: Tally) -> None:
    seconds, clients, programs = lasting(60, least=6), min(sized(200, least=60), 200), 2
    settled: collections.Counter[str] = collections.Counter()
    lives = 0
    async with leak_gate(tmp_path), contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        server = await enter(running("soak", "serve", f"unix:{tmp_path}/server"))
        address = await server.next()
        populations = [
            await enter(running("soak", "live", address, f"program-{number}", clients // programs))
            for number in range(programs)
        ]
        course = Course()
        while time.monotonic() < course.began + seconds or len(course.samples) < 8:
            await trio.sleep(min(max(seconds / 60, 0.2), 10))
            times = collections.Counter[int]()
            for population in populations:
                await population.tell("sample")
                told = await population.next()
                assert told["faults"] == []
                times.update({int(bucket): count for bucket, count in told["times"].items()})
            await server.tell("sample")
            course.add(await server.next(), times)
        for population in populations:
            await population.tell("go")
        for population in populations:
            told = await population.next()
            assert told["faults"] == []
            settled.update(told["settled"])
            lives += told["lives"]
            await population.end()
        await server.tell("sample")
        last = await server.next()
        await server.end()
    window = course.warm[-1]["at"] - course.warm[0]["at"]
    before, after = course.slowest()
    growth, descriptors = (course.slope(what) * window for what in ("memory", "descriptors"))
    print(
        f"{last['messages']:,} messages in {seconds:.0f} s, of {lives:,} clients that came and went; memory grew by "
        f"{growth / MIB:.2f} MiB in {window:.0f} s ({growth / MIB * HOUR / window:.1f} MiB/h), descriptors by "
        f"{descriptors:.1f}; 99 % of requests {before * 1e3:.0f} ms at first, "
        f"{after * 1e3:.0f} ms at last"
    )
    # What was sent was handled, and nobody was thrown out or left out.
    assert min(settled[action] for action in ACTIONS) > 0
    assert last["ends"] == {"goodbye": lives}
    assert (last["connections"], last["unsettled"], last["dropped"]) == (0, 0, 0)
    # And what the server holds does not grow.
    assert growth <= (MORE_TO_COME if seconds < SHORT else PIECE + PROMISED * window / HOUR)
    assert descriptors < 10  # some are between two states
    # Nor do its answers become slower; ten times as slow is what a machine that has become busy may make of them.
    assert seconds < SHORT or after < 10 * max(before, QUICK)
    tally.add(messages=last["messages"], lives=lives, lost=0)
