"""Python and Node together: two workers of each share a port and the work, and a reload replaces all four.

The Node program is ``examples/node/worker.js``.

::

    $ python examples/cluster/mixed.py
    eight connections to one port, served by: js-1 js-1 js-2 js-2 py-1 py-1 py-2 py-2
    eight jobs, done by: js-1 js-2 py-1 py-2
    their results: 0 1 4 9 16 25 36 49
    js-1 asked the primary, and says: Good morning, js-1!
    during a reload: 0 connections failed
    served by processes of the generations 1 2
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import trio

import pyipc
from pyipc import cluster

NODE_PROGRAM = str(Path(__file__).resolve().parents[1] / "node" / "worker.js")


async def main() -> None:
    primary = cluster.Cluster(jobs_per_worker=1)
    port = 0

    @primary.on("listening")
    def note(event: cluster.WorkerEvent) -> None:
        nonlocal port
        assert event.address is not None
        port = event.address.port or 0

    @primary.router.on("greeting")
    def greeting(message: pyipc.Message[None]) -> str:
        return f"Good morning, {primary.worker_of(message).id}!"

    async with primary:
        for id in ("py-1", "py-2"):
            await primary.fork(id)
        for id in ("js-1", "js-2"):
            await primary.fork(id, node=NODE_PROGRAM)

        answers = [await ask(port) for _ in range(8)]
        print("eight connections to one port, served by:", *sorted(answer["worker"] for answer in answers))

        jobs = [await primary.submit("square", number) for number in range(8)]
        results = [await job.result() for job in jobs]
        print("eight jobs, done by:", *sorted({str(job.worker) for job in jobs}))
        print("their results:", *results)
        print("js-1 asked the primary, and says:", await primary.worker("js-1").request("greeting"))

        failures = 0
        generations = set()
        is_reloaded = False

        async def go_on() -> None:
            nonlocal failures
            while not is_reloaded:
                try:
                    generations.add((await ask(port))["generation"])
                except (OSError, ValueError):
                    failures += 1

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(go_on)
            await primary.reload()
            generations.add((await ask(port))["generation"])
            is_reloaded = True
        print(f"during a reload: {failures} connections failed")
        print("served by processes of the generations", *sorted(generations))


async def ask(port: int) -> Any:
    """What a server says to whoever connects."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        return json.loads(b"".join([part async for part in stream]))


async def work(worker: cluster.Worker) -> None:
    worker.on("square", lambda message: message.data**2)
    listeners = await worker.open_listeners("tcp://127.0.0.1:0")  # the port that the others have
    await trio.serve_listeners(functools.partial(serve, worker), listeners)


async def serve(worker: cluster.Worker, stream: trio.abc.Stream) -> None:
    async with stream:
        await stream.send_all(json.dumps({"worker": worker.id, "generation": worker.generation}).encode())


if cluster.is_primary:
    trio.run(main)
else:
    cluster.run_worker(work)
