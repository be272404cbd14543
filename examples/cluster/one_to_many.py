"""One to many: from the primary to all workers, to those of a role, and to whoever has subscribed.

::

    $ python examples/cluster/one_to_many.py
    a broadcast to everybody: 3 workers, and each has heard it: 1 1 1
    a broadcast to the cooks: 2 workers, and each has heard it: 2 1 2
    published by the waiter, heard by the cooks: ['order: soup', 'order: soup']
"""

from __future__ import annotations

import trio

import pyipc
from pyipc import cluster


async def main() -> None:
    async with cluster.Cluster() as primary:
        for id, role in (("anna", "cook"), ("walter", "waiter"), ("ben", "cook")):
            await primary.fork(id, role=role)

        async def heard() -> list[object]:
            return [await worker.request("news-heard") for worker in primary.workers.values()]

        report = await primary.broadcast("news", "we are open")
        print(f"a broadcast to everybody: {report.sent} workers, and each has heard it:", *await heard())
        report = await primary.broadcast("news", "less salt", role="cook")
        print(f"a broadcast to the cooks: {report.sent} workers, and each has heard it:", *await heard())

        async with primary.subscribe("kitchen.*") as kitchen:
            await primary.workers["walter"].request("take-order", "soup")
            answers = [(await kitchen.get(timeout=30)).data for _ in range(2)]
        print("published by the waiter, heard by the cooks:", answers)


async def work(worker: cluster.Worker) -> None:
    heard = 0

    @worker.on("news")
    def news(message: pyipc.Message[str]) -> None:
        nonlocal heard
        heard += 1

    worker.on("news-heard", lambda message: heard)

    @worker.on("take-order")
    async def take_order(message: pyipc.Message[str]) -> None:
        await worker.publish("order", message.data)

    if worker.role != "cook":
        await worker.run()
        return
    async with worker.subscribe("order") as orders:
        await worker.ready()
        async for order in orders:
            await worker.publish("kitchen." + worker.id, f"order: {order.data}")


if cluster.is_primary:
    trio.run(main)
else:
    cluster.run_worker(work)
