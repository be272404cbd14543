"""pyipc itself, both ends."""

from __future__ import annotations

import time
from typing import Any

import trio

import pyipc
from common import DATA, EVENT, LIFETIME, arguments, ready, report_rate, report_round_trips


async def serve(path: str, count: int) -> None:
    server = pyipc.Server(f"unix:{path}")
    seen = 0

    @server.on("plain")
    def plain(message: pyipc.Message[Any]) -> Any:
        return message.data

    @server.on("async")
    async def asynchronous(message: pyipc.Message[Any]) -> Any:
        return message.data

    @server.on(EVENT)
    def tick(message: pyipc.Message[Any]) -> None:
        nonlocal seen
        seen += 1
        if seen == count:
            message.connection.emit_nowait("done", seen)

    async with server:
        ready()
        await trio.sleep_forever()


async def ask(path: str, count: int, event: str) -> None:
    laps = []
    async with pyipc.connect(f"unix:{path}") as client:
        for _ in range(count // 10 + 100):
            await client.request(event, DATA)
        for _ in range(count):
            began = time.perf_counter()
            answer = await client.request(event, DATA)
            laps.append(time.perf_counter() - began)
        assert answer == DATA
    report_round_trips(laps)


async def tell(path: str, count: int) -> None:
    async with pyipc.connect(f"unix:{path}") as client, client.expect("done") as done:
        await client.request("plain", DATA)
        began = time.perf_counter()
        for _ in range(count):
            await client.emit(EVENT, DATA)
        message = await done.get()
        seconds = time.perf_counter() - began
        assert message.data == count
    report_rate(count, seconds)


async def main() -> None:
    role, path, count = arguments()
    with trio.fail_after(LIFETIME):
        if role == "serve":
            await serve(path, count)
        elif role == "tell":
            await tell(path, count)
        else:
            await ask(path, count, role)


if __name__ == "__main__":
    trio.run(main)
