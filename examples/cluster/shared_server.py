"""A shared server: workers serve one address together, connections go to them in turn, and a reload cuts nobody off.

::

    $ python examples/cluster/shared_server.py
    eight clients, answered by workers: 1 1 2 2 3 3 4 4
    during a reload: 0 requests failed, over 4 connections
    answered by processes of the generations 1 2
"""

from __future__ import annotations

import os
import sys

import trio

import pyipc
from pyipc import cluster


async def main(address: str) -> None:
    async with cluster.Cluster(workers=4, args=[address]) as primary:
        workers = []
        for _ in range(8):
            async with pyipc.connect(address) as client:
                workers.append((await client.request("who"))["worker"])
        print("eight clients, answered by workers:", *sorted(workers))

        failures = 0
        generations = set()
        is_reloaded = False

        async def ask() -> None:
            nonlocal failures
            async with pyipc.connect(address) as client:  # stays, and is sent on to another process
                while not is_reloaded:
                    try:
                        generations.add((await client.request("who"))["generation"])
                    except pyipc.IPCError:
                        failures += 1

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(ask)
            await primary.reload()
            is_reloaded = True
        print(f"during a reload: {failures} requests failed, over 4 connections")
        print("answered by processes of the generations", *sorted(generations))


async def work(worker: cluster.Worker) -> None:
    server = pyipc.Server(sys.argv[1])

    @server.on("who")
    def who(message: pyipc.Message[None]) -> dict[str, str | int]:
        return {"worker": worker.id, "generation": worker.generation}

    async with server:
        await worker.run()


if cluster.is_primary:
    trio.run(main, f"shared-server-{os.getpid()}")
else:
    cluster.run_worker(work)
