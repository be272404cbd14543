"""A primary of pyipc whose parent is a Node program with a channel to it, as process managers have."""

from __future__ import annotations

import os
import sys
from typing import Any

import trio

from pyipc import cluster


async def main(worker: cluster.Worker) -> None:
    worker.on("who are you", lambda message: told_of(worker.id))
    await worker.run()


def told_of(id: str) -> dict[str, Any]:
    told = [name for name in os.environ if name.startswith("NODE_") and name != "NODE_EXTRA_CA_CERTS"]
    return {"id": id, "told": told}


async def lead() -> None:
    async with cluster.Cluster(workers=2) as primary:
        workers = [await worker.request("who are you") for worker in primary.workers.values()]
    async with cluster.join() as child:
        await child.send({"is_primary": cluster.is_primary, "workers": workers})


if __name__ == "__main__":
    if cluster.is_primary:
        trio.run(lead)
    else:
        cluster.run_worker(main)
    sys.exit(0)
