"""Streams between real processes: a gigabyte in little memory, and how soon a producer hears that nobody listens."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trio

import pyipc
from tests.cli.processes import start

if TYPE_CHECKING:
    from tests.cli.processes import Program

COMMAND = (sys.executable, "-m", "tests.streaming")
GIGABYTE = 10**9
MOST = 16 * 2**20


async def said(program: Program, key: str) -> dict[str, Any]:
    line = await program.line(f'"{key}"')
    result: dict[str, Any] = json.loads(line.string)
    return result


@pytest.mark.skipif(sys.platform == "win32", reason="cannot run here: tells its memory as POSIX does")
@pytest.mark.time_limit(240)
async def test_a_gigabyte_to_a_slow_reader_takes_little_memory_on_both_sides() -> None:
    async with start("serve", command=COMMAND) as producer:
        address = (await said(producer, "address"))["address"]
        async with start("read", address, str(GIGABYTE), command=COMMAND) as consumer:
            with trio.fail_after(200):
                await consumer.process.wait()
            theirs = await said(consumer, "growth")
            ours = await said(producer, "growth")
            print(f"producer +{ours['growth'] / 2**20:.1f} MiB, consumer +{theirs['growth'] / 2**20:.1f} MiB, {theirs}")
    assert theirs["bytes"] >= GIGABYTE
    assert theirs["count"] == GIGABYTE // 10_000
    assert 0 <= ours["growth"] < MOST
    assert 0 <= theirs["growth"] < MOST


async def test_a_producer_ends_promptly_when_the_block_is_left() -> None:
    """Promised within 100 ms. The time has in it that the news comes back from the other process."""
    async with start("serve", command=COMMAND) as producer:
        address = (await said(producer, "address"))["address"]
        async with pyipc.connect(address) as client:
            for where in ("asleep", "at its yield"):
                longest = 0.0
                for _ in range(20):
                    async with client.expect("ended") as ended:
                        async with client.stream("wait", where) as rows:
                            assert await anext(rows) == "begun"
                            await trio.sleep(0.01)
                        began = trio.current_time()
                        assert (await ended.get(timeout=20)).data == where
                        longest = max(longest, trio.current_time() - began)
                print(f"{where}: ended {longest * 1_000:.1f} ms after the block was left")
                assert longest < 10 * 0.1
