"""Roles: workers for one thing each, with an id, and variables in their environment that the primary knows.

::

    $ python examples/cluster/roles.py
    mailer-1 (mail): ready, QUEUE=out
    mailer-2 (mail): ready, QUEUE=bulk
    thumbs (image): ready, SIZE=64
    mailer-2 takes from the queue bulk
    thumbs makes pictures of 64 pixels
    after scaling: mailer-1, mailer-2, 1
"""

from __future__ import annotations

import os

import trio

from pyipc import cluster


async def main() -> None:
    async with cluster.Cluster() as primary:
        await primary.fork("mailer-1", role="mail", env={"QUEUE": "out"})
        await primary.fork("mailer-2", role="mail", env={"QUEUE": "bulk"})
        await primary.fork("thumbs", role="image", env={"SIZE": "64"})
        for worker in primary.workers.values():
            [(name, value)] = worker.env.items()
            print(f"{worker.id} ({worker.role}): {worker.state}, {name}={value}")
        print(await primary.worker("mailer-2").request("describe"))
        print(await primary.worker("thumbs").request("describe"))
        await primary.scale("mail", 3)
        print("after scaling:", ", ".join(id for id, worker in primary.workers.items() if worker.role == "mail"))


async def mail(worker: cluster.Worker) -> None:
    queue = os.environ.get("QUEUE", "out")
    worker.on("describe", lambda message: f"{worker.id} takes from the queue {queue}")
    await worker.run()


async def image(worker: cluster.Worker) -> None:
    size = int(os.environ["SIZE"])
    worker.on("describe", lambda message: f"{worker.id} makes pictures of {size} pixels")
    await worker.run()


async def work(worker: cluster.Worker) -> None:
    await {"mail": mail, "image": image}[worker.role](worker)


if cluster.is_primary:
    trio.run(main)
else:
    cluster.run_worker(work)
