"""Streams, both ways in one program: ``python examples/stream.py``.

A server streams the rows of a table, and then the lines of a log that grows. The client takes the rows, leaves the log
when it has seen enough, and is itself asked for a stream by the server.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import trio

import pyipc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

router = pyipc.Router()


@router.on("rows")
async def rows(message: pyipc.Message[int]) -> AsyncIterator[dict[str, object]]:
    # It is never far ahead of whoever takes them: a million rows need no more memory than a few hundred.
    for number in range(message.data):
        yield {"id": number, "square": number * number}


@router.on("log")
async def log(message: pyipc.Message[None]) -> AsyncIterator[str]:
    number = 0
    try:
        while True:
            number += 1
            yield f"line {number}"
            await trio.sleep(0.01)
    finally:
        print("the log is closed: nobody listens any more")


@router.on("total")
async def total(message: pyipc.Message[None]) -> int:
    """Asks the client for a stream in return."""
    async with message.connection.stream("numbers", result=int) as numbers:
        return sum([number async for number in numbers])


async def numbers(message: pyipc.Message[None]) -> AsyncIterator[int]:
    for number in (3, 5, 8):
        yield number


async def main() -> None:
    address = f"stream-{os.getpid()}"
    async with pyipc.Server(address, router=router), pyipc.connect(address) as client:
        client.on("numbers", numbers)
        async with client.stream("rows", 1_000) as table:
            squares = [row["square"] async for row in table]
        print(f"{len(squares)} rows, the last with {squares[-1]}")

        async with client.stream("log", timeout=5) as lines:
            async for line in lines:
                print(line)
                if line == "line 3":
                    break  # leaving the block tells the server
        print("total:", await client.request("total", timeout=5))


trio.run(main)
