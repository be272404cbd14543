"""A worker that opens its server in a handler of a message, or in a task that one has started."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

import pyipc

if TYPE_CHECKING:
    from pyipc.cluster import Worker


async def main(worker: Worker) -> None:
    opened: list[pyipc.Server] = []

    async def serve(*, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with pyipc.Server("tcp://127.0.0.1:0") as server:
            opened.append(server)
            task_status.started()
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:

        @worker.on("open here")
        async def open_here(message: pyipc.Message[None]) -> str:
            async with pyipc.Server("tcp://127.0.0.1:0") as server:
                return str(server.addresses[0])

        @worker.on("open alone")
        async def open_alone(message: pyipc.Message[None]) -> str:
            with pyipc.hosted_by(None):
                async with pyipc.Server("tcp://127.0.0.1:0") as server:
                    return str(server.addresses[0])

        @worker.on("open in a task")
        async def open_in_a_task(message: pyipc.Message[None]) -> str:
            await nursery.start(serve)
            return str(opened[-1].addresses[0])

        @worker.on("have another open")
        async def have_another_open(message: pyipc.Message[str]) -> str:
            address: str = await worker.to(message.data).request("open here")
            return address

        await worker.run()
        nursery.cancel_scope.cancel()
