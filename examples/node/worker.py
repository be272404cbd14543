"""A Python worker of a Node program, primary.js. It runs unchanged under a primary of pyipc."""

from __future__ import annotations

import functools

import trio

import pyipc
from pyipc import cluster


async def main(worker: cluster.Worker) -> None:
    @worker.on("count")
    def count(message: pyipc.Message[str]) -> int:
        return len(message.data.split())

    @worker.on("message")
    async def answer(message: pyipc.Message[object]) -> None:
        await worker.send({"echo": message.data})

    listeners = await worker.open_listeners("tcp://127.0.0.1:0")  # the port that workers of Node have too
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, functools.partial(serve, worker), listeners)
        print("the worker was told:", await worker.request("greeting", "Python"), flush=True)
        await worker.run()  # until the primary lets it go
        nursery.cancel_scope.cancel()


async def serve(worker: cluster.Worker, stream: trio.abc.Stream) -> None:
    async with stream:
        await stream.send_all(f"served by Python, worker {worker.id}".encode())


cluster.run_worker(main)
