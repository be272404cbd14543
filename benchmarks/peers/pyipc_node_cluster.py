"""pyipc.cluster with Node programs as workers, which are those of node_cluster.js as they are.

They have messages and no requests, so that a request is a message that is answered by one.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from common import EVENT, Arguments, Params, arguments, begin, payload, ready, report_laps, report_rate, warm_up
from pyipc import cluster

if TYPE_CHECKING:
    from collections.abc import Callable

PROGRAM = Path(__file__).with_name("node_cluster.js")


def made(workers: int) -> cluster.Cluster:
    return cluster.Cluster(node=str(PROGRAM), args=sys.argv[1:], workers=workers)


def on_message(primary: cluster.Cluster, handlers: dict[str, Callable[[Any], None]]) -> None:
    """Have what workers send looked up by its type, as they do. The first is that they are ready."""

    @primary.on("message")
    def look_up(event: cluster.WorkerEvent) -> None:
        handlers[event.data["type"]](event.data.get("data"))


async def serve(asked: Arguments) -> None:
    listening, all_listen, address = 0, trio.Event(), asked.address
    primary = made(asked.params.workers)

    @primary.on("listening")
    def count(event: cluster.WorkerEvent) -> None:
        nonlocal listening, address
        listening += 1
        if event.address is not None and event.address.port:
            address = f"tcp:{event.address.host}:{event.address.port}"
        if listening == asked.params.workers:
            all_listen.set()

    async with primary:
        await all_listen.wait()
        ready(address)
        await trio.sleep_forever()


async def request(params: Params) -> None:
    data, laps = payload(params.size), []
    primary = made(1)
    answers, answered = trio.open_memory_channel[Any](1)
    on_message(primary, {"ready": lambda data: None, "reply": answers.send_nowait})
    async with primary:
        [worker] = primary.workers.values()
        message = {"type": EVENT, "data": data}
        for _ in range(warm_up(params.count)):
            await worker.send(message)
            await answered.receive()
        begin()
        for _ in range(params.count):
            began = time.perf_counter()
            await worker.send(message)
            answer = await answered.receive()
            laps.append(time.perf_counter() - began)
            assert answer == data
        report_laps(laps)


async def events_to_worker(params: Params) -> None:
    told, primary = trio.Event(), made(1)

    def done(seen: int) -> None:
        assert seen == params.count
        told.set()

    on_message(primary, {"ready": lambda data: None, "done": done})
    async with primary:
        [worker] = primary.workers.values()
        message = {"type": EVENT, "data": payload(params.size)}
        begin()
        began = time.perf_counter()
        for _ in range(params.count):
            await worker.send(message)
        await told.wait()
        report_rate(params.count, time.perf_counter() - began)


async def events_from_worker(params: Params) -> None:
    seen, finished, primary = 0, trio.Event(), made(1)

    def tick(data: object) -> None:
        nonlocal seen
        seen += 1
        if seen == params.count:
            finished.set()

    on_message(primary, {"ready": lambda data: None, EVENT: tick})
    async with primary:
        [worker] = primary.workers.values()
        begin()
        began = time.perf_counter()
        await worker.send({"type": "go"})
        await finished.wait()
        report_rate(params.count, time.perf_counter() - began)


async def start(params: Params) -> None:
    begin()
    began = time.perf_counter()
    async with made(params.workers):
        report_laps([time.perf_counter() - began])


WORK = {
    "worker-request": request,
    "worker-events": events_to_worker,
    "primary-events": events_from_worker,
    "start": start,
}


async def main() -> None:
    asked = arguments()
    await (serve(asked) if asked.role == "serve" else WORK[asked.workload](asked.params))


if __name__ == "__main__":
    trio.run(main)
