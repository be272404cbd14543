"""Metrics over UDP, sent and forgotten: ``python examples/metrics.py``.

The client is the three lines of `report`. Whether anybody counts makes no difference to it: nothing is waited for, and
what is lost is lost.
"""

from __future__ import annotations

import collections

import trio

import pyipc

counts: collections.Counter[str] = collections.Counter()
collector = pyipc.Server("udp://127.0.0.1:0")
enough = trio.Event()


@collector.on("count")
def count(message: pyipc.Message[dict[str, int]]) -> None:
    counts.update(message.data)
    if counts["requests"] >= 30:
        enough.set()


async def report(address: str) -> None:
    async with pyipc.connect(address) as metrics:
        for _ in range(10):
            await metrics.emit("count", {"requests": 1, "bytes": 512})


async def main() -> None:
    await report("udp://127.0.0.1:9")  # where nobody is
    async with collector:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(report, str(collector.addresses[0]))
        with trio.move_on_after(5):  # on this machine nothing is lost, but that is no promise
            await enough.wait()
        print(f"{counts['requests']} requests, {counts['bytes']} bytes")


trio.run(main)
