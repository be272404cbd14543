"""Workers of the tests of events: they listen, answer one message, and end in one way or another."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import trio

import pyipc

if TYPE_CHECKING:
    from pyipc import cluster


async def main(worker: cluster.Worker) -> None:
    """The counterpart of ``tests/cluster/node/events.js``."""
    server = pyipc.Server("tcp://127.0.0.1:0")

    @server.on("who")
    def who(message: pyipc.Message[None]) -> list[str | int]:
        return [worker.id, worker.generation]

    @worker.on("message")
    async def answer(message: pyipc.Message[dict[str, str]]) -> None:
        await worker.send({"echo": message.data["text"]})
        if os.environ.get("END") == "own disconnect":
            worker.disconnect()
        if os.environ.get("END") == "code 7":
            await worker.flush()  # as Node's does, which exits when it has been written
            sys.exit(7)

    @worker.on("block")
    def block(message: pyipc.Message[None]) -> None:
        while True:
            pass

    async with server:
        await worker.run()


async def late(worker: cluster.Worker) -> None:
    """Look at messages only after a while."""
    await trio.sleep(0.3)
    worker.on("message", lambda message: worker.send({"echo": message.data}))
    await worker.run()


async def full_of_words(worker: cluster.Worker) -> None:
    """Say a lot, and end at once."""
    await worker.ready()
    for number in range(5):
        await worker.send([number, "x" * 1_000_000])
    match os.environ["END"]:
        case "sys.exit":
            sys.exit(5)
        case "error":
            raise LookupError("no more words")
        case "disconnect":
            worker.disconnect()
            await worker.run()
        case "return":
            return
