"""A worker that says who it is to whoever connects, and keeps what it is asked until it is told to answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from pyipc.cluster import Worker


async def main(worker: Worker) -> None:
    released = trio.Event()

    @worker.on("hold")
    async def hold(message: object) -> None:
        await released.wait()

    worker.on("release", lambda message: released.set())

    async def serve(stream: trio.abc.Stream) -> None:
        async with stream:
            await stream.send_all(worker.id.encode())

    await trio.serve_listeners(serve, await worker.open_listeners("tcp://127.0.0.1:0"))
