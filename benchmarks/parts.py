"""What one event costs, part by part, in one process: the profile behind docs/explanation/performance.md.

    python benchmarks/parts.py

Each part is timed on its own, many times over, and its smallest time counts: what other processes do can only add to
it. Parts that contain others are indented less than these. Nothing is sent: the link takes everything at once.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec
import trio

import pyipc
from pyipc.transports import Link, Listener, Peer, Transport

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from pyipc import Address

DATA = {"n": 123, "s": "abcdefghijklmnop", "f": 1.25}
COUNT = 20_000
TRIES = 15


class Event(msgspec.Struct, gc=False):
    """What the ceiling of the benchmarks encodes and decodes."""

    type: str
    data: Any = None


class Sink(Link):
    """Takes everything, and gives what it was made with so many times; with nothing to give it stays silent."""

    def __init__(self, chunk: bytes = b"", times: int = 0) -> None:
        self._chunk = chunk
        self._times = times

    @property
    def peer(self) -> Peer:
        return Peer(address="sink")

    def send_nowait(self, data: bytes | bytearray | memoryview) -> int:
        return len(data)

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        raise AssertionError("send_nowait takes everything")

    async def receive(self) -> bytes:
        if not self._chunk:
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        if not self._times:
            return b""
        self._times -= 1
        return self._chunk

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


class SinkTransport(Transport):
    """Connects to nobody."""

    async def connect(self, address: Address, options: Mapping[str, object]) -> Link:
        return Sink()

    async def listen(self, address: Address, options: Mapping[str, object]) -> Listener:
        raise AssertionError("nobody listens here")


async def per_call(work: Callable[[], Awaitable[None]], count: int = COUNT) -> float:
    """The smallest time of one of ``count`` calls that ``work`` makes, in nanoseconds."""
    best = float("inf")
    for _ in range(TRIES):
        began = time.perf_counter()
        await work()
        best = min(best, (time.perf_counter() - began) / count)
    return best * 1e9


async def sending() -> list[tuple[str, float]]:
    """What happens on the side that emits."""
    encode, check = msgspec.json.Encoder().encode, trio.lowlevel.checkpoint_if_cancelled

    async def nothing(event: str, data: object) -> None: ...

    async def call_coroutine() -> None:
        for _ in range(COUNT):
            await nothing("tick", DATA)

    async def look_whether_cancelled() -> None:
        for _ in range(COUNT):
            await check()

    async def encode_event() -> None:
        for _ in range(COUNT):
            encode(Event("tick", DATA))

    endpoint = pyipc.Endpoint("memory:sink", transport=SinkTransport(), hello=False)
    parts = [
        ("    msgspec encodes the event", await per_call(encode_event)),
        ("    await of a coroutine that does nothing", await per_call(call_coroutine)),
        ("    trio.lowlevel.checkpoint_if_cancelled()", await per_call(look_whether_cancelled)),
    ]
    async with pyipc.connect(endpoint, reconnect=False, close_timeout=0.01) as client:

        async def emit() -> None:
            for _ in range(COUNT):
                await client.emit("tick", DATA)

        parts.insert(0, ("await client.emit(...), with its share of a write", await per_call(emit)))
    return parts


async def receiving() -> list[tuple[str, float]]:
    """What happens on the side that handles."""
    frame = msgspec.json.encode(Event("tick", DATA))
    batch, each = (frame + b"\n") * 1_000, 1_000
    decode_lines = msgspec.json.Decoder(Event).decode_lines

    async def decode() -> None:
        for _ in range(COUNT // each):
            decode_lines(batch)

    async def make_messages() -> None:
        message: Any = pyipc.Message
        for _ in range(COUNT):
            message("tick", DATA, None)

    async def call_handler() -> None:
        def handler(message: object) -> None: ...

        for _ in range(COUNT):
            handler(None)

    async with pyipc.Server() as server:
        server.on("tick", lambda message: None)

        async def serve() -> None:
            ended = trio.Event()
            server.on_disconnect(lambda reason: ended.set())
            server.adopt(Sink((frame + b"\f") * each, COUNT // each))
            await ended.wait()

        whole = await per_call(serve)
    return [
        ("from the bytes read to the handler's return", whole),
        ("    msgspec decodes the event, one of many lines", await per_call(decode)),
        ("    pyipc.Message(...)", await per_call(make_messages)),
        ("    the call of a handler that does nothing", await per_call(call_handler)),
    ]


async def main() -> None:
    """Measure and print."""

    async def turn() -> None:
        for _ in range(COUNT // 10):
            await trio.lowlevel.checkpoint()

    for title, parts in (("sending", await sending()), ("receiving", await receiving())):
        print(title)
        for name, nanoseconds in parts:
            print(f"  {name:<54} {nanoseconds:>6,.0f} ns")
    print("for comparison")
    print(f"  {'one turn of the scheduler':<54} {await per_call(turn, COUNT // 10):>6,.0f} ns")


if __name__ == "__main__":
    trio.run(main)
