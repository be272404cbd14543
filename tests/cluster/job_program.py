"""What the workers of `test_submit` run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    from pyipc import Message
    from pyipc.cluster.worker import Worker


async def main(worker: Worker) -> None:
    """Count words; stay at a job until it is cancelled; end in the middle of one."""

    def words(message: Message[str]) -> int:
        return len(message.data.split())

    async def stay(message: Message[Any]) -> None:
        await worker.emit("begun", message.data)
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await worker.emit("cancelled", message.data)

    async def die(message: Message[Any]) -> None:
        os._exit(3)

    async def die_once(message: Message[Any]) -> int:
        if worker.generation == 1:
            os._exit(3)
        return worker.generation

    for event, handler in (("words", words), ("stay", stay), ("die", die), ("die once", die_once)):
        worker.on(event, handler)
    await worker.run()
