"""A producer and a consumer in processes of their own: ``python -m tests.streaming serve`` and ``read ADDRESS SIZE``.

The producer says where it listens, and each says at its end how much memory it took beyond what it had before. The
consumer reads in bursts, with pauses in between. What is made are rows as those of a table might be.
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

import pyipc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["peak_memory"]

#: Bytes that are read before a pause, and its length in seconds: much more could be made in that time than there is
#: room for.
BURST = 100_000_000
PAUSE = 1.0


def peak_memory() -> int:
    """The most memory that this process has had at once, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # What getrusage says there includes the time before exec, when this was a copy of the process that started it.
        (line,) = [line for line in status.read_text("ascii").splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def forget_peak() -> None:
    """Let `peak_memory` begin again with what there is now, where the system can."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", "ascii")


def row(number: int) -> dict[str, Any]:
    """Ten kilobytes as JSON."""
    return {
        "id": number,
        "name": f"row {number}",
        "tags": ["red", "green", None, True],
        "place": {"x": number / 7, "y": -number},
        "text": TEXT,
    }


TEXT = "The quick brown fox jumps over the lazy dog. " * 221


async def serve() -> None:
    server = pyipc.Server("tcp://127.0.0.1:0")
    ended = trio.Event()

    @server.on("rows")
    async def rows(message: pyipc.Message[int]) -> AsyncIterator[dict[str, Any]]:
        forget_peak()
        before, size, number = peak_memory(), 0, 0
        while size < message.data:
            yield row(number)
            size += 10_000
            number += 1
        print(json.dumps({"growth": peak_memory() - before}), flush=True)
        ended.set()

    @server.on("wait")
    async def wait(message: pyipc.Message[str]) -> AsyncIterator[str]:
        """Says when it has ended by an event."""
        try:
            yield "begun"
            if message.data == "asleep":
                await trio.sleep_forever()
            while True:
                yield "more"
        finally:
            message.connection.emit_nowait("ended", message.data)

    async with server:
        print(json.dumps({"address": str(server.addresses[0])}), flush=True)
        await ended.wait()
        await next(iter(server.connections)).wait_lost()


async def read(address: str, size: int) -> None:
    async with pyipc.connect(address) as client:
        forget_peak()
        before = peak_memory()
        count = burst = total = 0
        async with client.stream("rows", size) as rows:
            async for one in rows:
                assert one["id"] == count
                count += 1
                burst += 10_000
                total += len(one["text"])
                if burst >= BURST:
                    burst = 0
                    await trio.sleep(PAUSE)
        received = client.statistics().connection
        assert received is not None
        print(json.dumps({"growth": peak_memory() - before, "count": count, "bytes": received.bytes_received}))


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        trio.run(serve)
    else:
        trio.run(read, sys.argv[2], int(sys.argv[3]))
