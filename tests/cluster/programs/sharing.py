"""Workers that say who they are to whoever connects, and keep the connection until the client closes it."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from pyipc.cluster import Worker


async def main(worker: Worker) -> None:
    listeners = await worker.open_listeners("tcp://127.0.0.1:0")
    await trio.serve_listeners(functools.partial(serve, worker), listeners)


async def serve(worker: Worker, stream: trio.abc.Stream) -> None:
    async with stream:
        await trio.sleep(float(os.environ.get("WORK_SECONDS", "0")))
        await stream.send_all(worker.id.encode() + b"\n")
        await stream.receive_some()
