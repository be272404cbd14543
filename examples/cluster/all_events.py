"""All events, in their order: a worker listens, sends a message, hangs, is started again, leaves; another one fails.

::

    $ python examples/cluster/all_events.py
    setup
    1: fork
    1: online
    1: listening on tcp
    1: ready
    1: message 'hello'
    1: unhealthy
    1: disconnect
    1: exit by SIGKILL
    1: restart
    1: fork
    1: online
    1: listening on tcp
    1: ready
    1: disconnect, as asked for
    1: exit with 0, as asked for
    2: fork
    2: disconnect
    2: exit with 1
    2: error
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time

import trio

import pyipc
from pyipc import cluster


def show(event: cluster.WorkerEvent) -> None:
    text = event.type if event.worker is None else f"{event.worker.id}: {event.type}"
    if event.address is not None:
        text += f" on {event.address.scheme}"
    if event.type == "message":
        text += f" {event.data!r}"
    if event.signal is not None:
        text += f" by {signal.Signals(event.signal).name}"
    elif event.code is not None:
        text += f" with {event.code}"
    print(text + (", as asked for" if event.voluntary else ""))


async def main() -> None:
    logging.disable()  # hanging and failing are logged as well, and here they are meant
    primary = cluster.Cluster(hang_timeout=2, heartbeat_interval=0.1, restart_interval=0)
    for type in cluster.EVENTS:
        primary.on(type, show)

    def next_time(type: cluster.EventType) -> trio.Event:
        seen = trio.Event()
        primary.once(type, lambda event: seen.set())
        return seen

    async with primary:
        worker = await primary.fork()
        said = next_time("message")
        await worker.emit("greet")
        await said.wait()
        ready = next_time("ready")
        await worker.emit("hang")
        await ready.wait()
        await worker.disconnect()

        failed = next_time("error")
        await primary.fork(env={"FAIL": "1"}, max_restarts=0, wait=False)
        await failed.wait()


async def work(worker: cluster.Worker) -> None:
    @worker.on("greet")
    async def greet(message: pyipc.Message[None]) -> None:
        await worker.send("hello")

    @worker.on("hang")
    def hang(message: pyipc.Message[None]) -> None:
        time.sleep(60)  # a plain sleep stops the event loop, and with it the heartbeat

    async with pyipc.Server("tcp://127.0.0.1:0"):  # listens through the primary
        await worker.run()


if cluster.is_primary:
    trio.run(main)
elif "FAIL" in os.environ:
    sys.exit(1)
else:
    cluster.run_worker(work)
