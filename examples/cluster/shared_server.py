"""A shared server: workers serve one address together, connections go to them in turn, and a reload cuts nobody off.

::

    $ python examples/cluster/shared_server.py
    eight clients, served by workers: 1 1 2 2 3 3 4 4
    told to all by one of them: 8 have heard it
    during a reload: 0 requests failed, over 4 connections
    answered by processes of the generations 1 2
"""

from __future__ import annotations

import contextlib
import os
import sys

import trio

import pyipc
from pyipc import cluster


async def main(address: str) -> None:
    async with cluster.Cluster(workers=4, args=[address]) as primary:
        async with contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(pyipc.connect(address)) for _ in range(8)]
            workers = [(await client.request("who"))["worker"] for client in clients]
            print("eight clients, served by workers:", *sorted(workers))
            news = [await stack.enter_async_context(client.events("news")) for client in clients]
            await clients[0].request("tell-all", "we are open")
            heard = [(await anext(each)).data for each in news]
            print("told to all by one of them:", heard.count("we are open"), "have heard it")

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

    @server.on("tell-all")
    async def tell_all(message: pyipc.Message[str]) -> None:
        await server.broadcast("news", message.data)  # also to the clients of other workers

    async with server:
        await worker.run()


if cluster.is_primary:
    trio.run(main, f"shared-server-{os.getpid()}")
else:
    cluster.run_worker(work)
