"""A worker that serves: counts the words of every text that it is sent, and answers with what it found.

It serves the same address as its fellow workers. It remembers nothing of what it has counted: whoever asked has the
answer, or has none and asks again, another worker if need be. So nothing is lost with a worker, or counted twice.
"""

from __future__ import annotations

import os

import pyipc
from corpus import Count, count
from pyipc import cluster


async def main(worker: cluster.Worker) -> None:
    server = pyipc.Server(os.environ["WORDCOUNT_ADDRESS"])

    @server.on("count")
    async def count_words(message: pyipc.Message[str]) -> Count:
        counted = count(message.data)
        await worker.emit("counted", sum(counted["words"].values()))  # for the primary's table
        return counted

    async with server:
        await worker.run()  # until the primary lets the worker go


cluster.run_worker(main)
