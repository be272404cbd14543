"""A client: sends its share of the files to whoever serves the address, and adds up the answers.

It is started by the same primary, which tells it what to send; to the servers it is a client like any other program.
"""

from __future__ import annotations

import itertools
from typing import TypedDict

import trio

import pyipc
from corpus import Count, Tally, read, source_files
from pyipc import cluster

#: Connections at the same time, and files sent over one of them before the next is made, perhaps to another worker.
CONNECTIONS = 4
FILES_PER_CONNECTION = 20


class Share(TypedDict):
    """Which of the files are this client's."""

    address: str
    number: int
    clients: int
    limit: int


class Sent(TypedDict):
    """What came of it: the sum of the answers, and how many connections were lost on the way."""

    count: Count
    lost: int


async def main(worker: cluster.Worker) -> None:
    @worker.on("send-files")
    async def send_files(message: pyipc.Message[Share]) -> Sent:
        share = message.data
        files = iter(source_files(share["limit"])[share["number"] :: share["clients"]])
        tally = Tally()
        lost = 0

        async def send_some() -> None:
            nonlocal lost
            while batch := list(itertools.islice(files, FILES_PER_CONNECTION)):
                async with pyipc.connect(share["address"]) as client:
                    for path in batch:
                        # Should its worker die the request goes over the next connection, to another. To count a file
                        # twice does no harm: one answer is added up.
                        tally.add(await client.request("count", read(path), idempotent=True, timeout=60))
                        await worker.emit("answered")
                    statistics = client.statistics()
                    lost += statistics.connects - 1 - statistics.moves

        async with trio.open_nursery() as nursery:
            for _ in range(CONNECTIONS):
                nursery.start_soon(send_some)
        return {"count": tally.sum(), "lost": lost}

    await worker.run()


cluster.run_worker(main)
