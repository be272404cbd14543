"""One to one: the primary and one of its workers, a worker and the primary, and two workers.

::

    $ python examples/cluster/one_to_one.py
    the primary, told by anna: I had a visitor
    anna, asked by the primary: anna has 1 apple
    anna, asked by ben: anna has 2 apples
"""

from __future__ import annotations

import trio

import pyipc
from pyipc import cluster


async def main() -> None:
    told = trio.Event()

    def tell(event: cluster.WorkerEvent) -> None:
        assert event.worker is not None
        print(f"the primary, told by {event.worker.id}: {event.data}")
        told.set()

    async with cluster.Cluster() as primary:
        primary.once("message", tell)
        anna = await primary.fork("anna")
        answer = await anna.request("apples")
        await told.wait()
        print("anna, asked by the primary:", answer)
        ben = await primary.fork("ben")
        print("anna, asked by ben:", await ben.request("ask", "anna"))


async def work(worker: cluster.Worker) -> None:
    visitors = 0

    @worker.on("apples")
    async def apples(message: pyipc.Message[None]) -> str:
        nonlocal visitors
        visitors += 1
        await worker.send("I had a visitor")
        return f"{worker.id} has {visitors} apple{'' if visitors == 1 else 's'}"

    @worker.on("ask")
    async def ask(message: pyipc.Message[str]) -> str:
        async with worker.connect(message.data) as other:  # straight to that worker, not through the primary
            answer: str = await other.request("apples")
            return answer

    await worker.run()


if cluster.is_primary:
    trio.run(main)
else:
    cluster.run_worker(work)
