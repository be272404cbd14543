"""Workers that say who they are to whoever connects, and keep the connection until the client closes it."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING

import trio

import pyipc

if TYPE_CHECKING:
    from pyipc.cluster import Worker


async def main(worker: Worker) -> None:
    listeners = await worker.open_listeners("tcp://127.0.0.1:0")
    await trio.serve_listeners(functools.partial(serve, worker), listeners)


async def closing(worker: Worker) -> None:
    """Listen in two ways, and close that: before this worker is ready, or when it is told to."""
    address = "tcp://127.0.0.1:0"
    told = trio.Event()
    worker.on("close", lambda message: told.set())
    if "LATE" in os.environ:
        await worker.ready()
        await told.wait()
    [listener] = await worker.open_listeners(address)
    async with pyipc.Server(address):
        pass
    await listener.aclose()
    await worker.ready()
    await worker.run()


async def serve(worker: Worker, stream: trio.abc.Stream) -> None:
    async with stream:
        await trio.sleep(float(os.environ.get("WORK_SECONDS", "0")))
        await stream.send_all(worker.id.encode() + b"\n")
        await stream.receive_some()
