"""A worker that does what it is asked, over its cluster and over TCP, and notes it; see test_r16_mixed_cluster.

``mixed_program.js`` is the same for Node.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from tests.battery.cluster_program import FOLDER
from tests.battery.ledger import Entry, Ledger, digest_of

if TYPE_CHECKING:
    import pyipc
    from pyipc import cluster

__all__ = ["main"]


async def main(worker: cluster.Worker) -> None:
    """Work, until the worst."""
    life = f"{worker.id}.{os.getpid()}"
    ledger = Ledger(Path(os.environ[FOLDER]) / f"{life}.ledger")

    async def handle(sender: str, place: int, text: str) -> int:
        if random.random() < 0.5:
            await trio.sleep(0.02)
        # No job is told to be one that was given to somebody before.
        ledger.note_handled(life, Entry(sender, place), digest_of(text), redelivered=True)
        if random.random() < 0.5:
            await trio.sleep(0.02)
        return digest_of(text)

    @worker.on("work")
    async def work(message: pyipc.Message[tuple[str, int, str]]) -> int:
        return await handle(*message.data)

    @worker.on("exit")
    def leave_at_once(message: pyipc.Message[None]) -> None:
        os._exit(1)

    worker.on("leave", lambda message: worker.disconnect())

    async def serve(stream: trio.abc.Stream) -> None:
        rest = b""
        async with stream:
            with contextlib.suppress(trio.BrokenResourceError):  # the client may be gone at any time
                async for chunk in stream:
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        await stream.send_all(b"%d %b\n" % (await handle(*json.loads(line)), life.encode()))

    await trio.serve_listeners(serve, await worker.open_listeners("tcp://127.0.0.1:0"))
