"""Forking: one script is the primary and, in processes of their own, its workers.

::

    $ python examples/cluster/forking.py
    worker 1 says: 6 times 7 is 42
    worker 2 says: 6 times 7 is 42
    these are 3 processes
"""

from __future__ import annotations

import os

import trio

import pyipc
from pyipc import cluster


async def main() -> None:
    async with cluster.Cluster(workers=2) as primary:
        workers = primary.workers.values()
        for worker in workers:
            print(f"worker {worker.id} says: 6 times 7 is {await worker.request('multiply', [6, 7])}")
        print(f"these are {len({os.getpid(), *(worker.pid for worker in workers)})} processes")


async def work(worker: cluster.Worker) -> None:
    @worker.on("multiply")
    def multiply(message: pyipc.Message[list[int]]) -> int:
        return message.data[0] * message.data[1]

    await worker.run()  # until the primary lets it go


if cluster.is_primary:
    trio.run(main)
else:
    cluster.run_worker(work)
