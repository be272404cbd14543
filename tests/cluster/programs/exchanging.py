"""A worker with a server that says things to everybody; the first argument is its address."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pyipc

if TYPE_CHECKING:
    from pyipc.cluster import Worker


async def main(worker: Worker) -> None:
    """Serve, and say what clients want said."""
    server = pyipc.Server(sys.argv[1])

    @server.on("who")
    def who(message: pyipc.Message[None]) -> str:
        return worker.id

    @server.on("say")
    async def say(message: pyipc.Message[Any]) -> None:
        await server.broadcast("said", message.data, attachments=message.attachments)

    @server.on("publish")
    async def publish(message: pyipc.Message[list[Any]]) -> None:
        topic, data, retain = message.data
        await server.publish(topic, data, retain=retain)

    @server.on("forget")
    def forget(message: pyipc.Message[str]) -> int:
        return server.forget(message.data)

    @server.on("flood")
    async def flood(message: pyipc.Message[int]) -> None:
        for number in range(message.data):
            await server.broadcast("said", [number, "x" * 100_000])

    await server.run()
