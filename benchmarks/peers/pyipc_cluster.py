"""pyipc.cluster: a primary and its workers, which run this very program, through the public interface alone.

Connections that are handed over are served as streams, which is what others have; the variant ``server`` serves them
with a `pyipc.Server`. With ``shared`` workers accept by themselves.
"""

from __future__ import annotations

import time
from typing import Any

import trio

import pyipc
from common import (
    DELIMITER,
    EVENT,
    Arguments,
    Params,
    arguments,
    begin,
    decode,
    encode,
    payload,
    ready,
    report_laps,
    report_rate,
    warm_up,
    work,
    worker_arguments,
)
from pyipc import cluster

# --- a worker ------------------------------------------------------------------------------------------------------


async def be_worker(worker: cluster.Worker) -> None:
    asked = worker_arguments()
    if asked.workload == "handover":
        await serve_connections(worker, asked)
    else:
        handle(worker, asked)
        await worker.run()


def handle(worker: cluster.Worker, asked: Arguments) -> None:
    """Register the handlers that a workload needs."""
    params = asked.params
    if asked.workload == "worker-events":
        seen = 0

        @worker.on(EVENT)
        def tick(message: pyipc.Message[Any]) -> None:
            nonlocal seen
            seen += 1
            if seen == params.count:
                message.connection.emit_nowait("done", seen)

    elif asked.workload == "primary-events":

        @worker.on("go")
        async def go(message: pyipc.Message[Any]) -> None:
            data = payload(params.size)
            for _ in range(params.count):
                await worker.emit(EVENT, data)

    else:
        worker.on(EVENT, lambda message: work(message.data))


async def serve_connections(worker: cluster.Worker, asked: Arguments) -> None:
    scheme, _, place = asked.address.partition(":")
    address = asked.address if scheme == "unix" else f"{scheme}://{place}"
    if asked.params.variant == "server":
        server = pyipc.Server(pyipc.Endpoint(address))

        @server.on(EVENT)
        def tick(message: pyipc.Message[Any]) -> None:
            message.connection.emit_nowait(EVENT, message.data)

        await server.run()
    else:
        await trio.serve_listeners(answer, await worker.open_listeners(address))


async def answer(stream: cluster.HandedStream) -> None:
    rest = b""
    async with stream:
        async for chunk in stream:
            *frames, rest = (rest + chunk).split(DELIMITER)
            for frame in frames:
                await stream.send_all(encode(EVENT, decode(frame).data) + DELIMITER)


# --- the primary, with a server's workers ---


async def serve(asked: Arguments) -> None:
    listening = 0
    all_listen = trio.Event()
    address = asked.address
    policy = "shared" if asked.params.variant == "shared" else "round-robin"
    primary = cluster.Cluster(workers=asked.params.workers, policy=policy)

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


# --- the primary, as the driver ---


async def request(params: Params) -> None:
    data, laps = payload(params.size), []
    async with cluster.Cluster(workers=1) as primary:
        [worker] = primary.workers.values()
        for _ in range(warm_up(params.count)):
            await worker.request(EVENT, data)
        begin()
        for _ in range(params.count):
            began = time.perf_counter()
            answered = await worker.request(EVENT, data)
            laps.append(time.perf_counter() - began)
            assert answered == data
        report_laps(laps)


async def events_to_worker(params: Params) -> None:
    data, told = payload(params.size), trio.Event()
    primary = cluster.Cluster(workers=1)

    @primary.router.on("done")
    def done(message: pyipc.Message[int]) -> None:
        assert message.data == params.count
        told.set()

    async with primary:
        [worker] = primary.workers.values()
        begin()
        began = time.perf_counter()
        for _ in range(params.count):
            await worker.emit(EVENT, data)
        await told.wait()
        report_rate(params.count, time.perf_counter() - began)


async def events_from_worker(params: Params) -> None:
    seen, finished = 0, trio.Event()
    primary = cluster.Cluster(workers=1)

    @primary.router.on(EVENT)
    def tick(message: pyipc.Message[Any]) -> None:
        nonlocal seen
        seen += 1
        if seen == params.count:
            finished.set()

    async with primary:
        [worker] = primary.workers.values()
        begin()
        began = time.perf_counter()
        await worker.emit("go")
        await finished.wait()
        report_rate(params.count, time.perf_counter() - began)


async def start(params: Params) -> None:
    begin()
    began = time.perf_counter()
    async with cluster.Cluster(workers=params.workers):
        report_laps([time.perf_counter() - began])


async def jobs(params: Params) -> None:
    each = params.count // params.tasks
    async with cluster.Cluster(workers=params.workers) as primary:

        async def submit(data: Any) -> None:
            for _ in range(each):
                job = await primary.submit(EVENT, data)
                assert await job.result() == data

        begin()
        began = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for task in range(params.tasks):
                nursery.start_soon(submit, payload(params.size, 100 + task))
        report_rate(each * params.tasks, time.perf_counter() - began)


WORK = {
    "worker-request": request,
    "worker-events": events_to_worker,
    "primary-events": events_from_worker,
    "start": start,
    "jobs": jobs,
}


async def be_primary() -> None:
    asked = arguments()
    if asked.role == "serve":
        await serve(asked)
    else:
        await WORK[asked.workload](asked.params)


if __name__ == "__main__":
    if cluster.is_worker:
        cluster.run_worker(be_worker)
    else:
        trio.run(be_primary)
