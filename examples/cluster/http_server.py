"""An HTTP server in workers. Any server that takes listeners of trio can share its address; this is a small one on h11.
It takes that package: ``pip install h11``.

::

    $ python examples/cluster/http_server.py
    four requests, answered by workers: 1 1 2 2
    during a reload: 0 requests failed, over 4 connections that are kept alive
    answered by processes of the generations 1 2
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
from typing import Any

import h11
import trio

from pyipc import cluster

#: Seconds that a client which keeps its connection may take for one more request when the worker is to leave.
LINGER = 2.0


async def work(worker: cluster.Worker) -> None:
    listeners = await worker.open_listeners("tcp://127.0.0.1:0")
    await trio.serve_listeners(functools.partial(serve, worker), listeners)


async def serve(worker: cluster.Worker, stream: trio.abc.Stream) -> None:
    """Serve one connection: a request after the other."""
    connection = h11.Connection(h11.SERVER)
    async with stream:
        while await next_request(worker, connection, stream) is not None:
            body = json.dumps({"worker": worker.id, "generation": worker.generation}).encode()
            headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
            if worker.draining:
                headers.append(("Connection", "close"))  # asks the client to make its next connection, to another
            answer = [h11.Response(status_code=200, headers=headers), h11.Data(data=body), h11.EndOfMessage()]
            await stream.send_all(b"".join(connection.send(part) or b"" for part in answer))
            if connection.our_state is not h11.DONE:
                return
            connection.start_next_cycle()


async def next_request(
    worker: cluster.Worker, connection: h11.Connection, stream: trio.abc.Stream
) -> h11.Request | None:
    """The next request; ``None`` if there is none any more, or it does not come while the worker lingers."""

    async def linger() -> None:
        await worker.wait_draining()
        await trio.sleep(LINGER)
        nursery.cancel_scope.cancel()

    request = None
    is_whole = False
    async with trio.open_nursery() as nursery:
        nursery.start_soon(linger)
        while not is_whole:
            try:
                event = connection.next_event()
                if event is h11.NEED_DATA:
                    connection.receive_data(bytes(await stream.receive_some()))
            except (h11.RemoteProtocolError, trio.BrokenResourceError):
                break
            if isinstance(event, h11.ConnectionClosed):
                break
            if isinstance(event, h11.Request):
                request = event
            is_whole = isinstance(event, h11.EndOfMessage)
        nursery.cancel_scope.cancel()
    return request if is_whole else None


async def main() -> None:
    primary = cluster.Cluster(workers=2)
    listening = trio.Event()
    port = 0

    @primary.once("listening")
    def note(event: cluster.WorkerEvent) -> None:
        nonlocal port
        assert event.address is not None
        assert event.address.port is not None
        port = event.address.port
        listening.set()

    async with primary:
        await listening.wait()
        answers = [await trio.to_thread.run_sync(get_once, port) for _ in range(4)]
        print("four requests, answered by workers:", *sorted(answer["worker"] for answer in answers))

        failures = 0
        generations = set()
        is_reloaded = False

        async def ask() -> None:
            nonlocal failures
            # It keeps its connection, and makes another when it was asked to by "Connection: close".
            with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as client:
                while not is_reloaded:
                    try:
                        generations.add((await trio.to_thread.run_sync(get, client))["generation"])
                    except (OSError, http.client.HTTPException):
                        failures += 1

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(ask)
            await primary.reload()
            is_reloaded = True
        print(f"during a reload: {failures} requests failed, over 4 connections that are kept alive")
        print("answered by processes of the generations", *sorted(generations))


def get_once(port: int) -> Any:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as client:
        return get(client)


def get(client: http.client.HTTPConnection) -> Any:
    client.request("GET", "/")
    return json.load(client.getresponse())


if cluster.is_primary:
    trio.run(main)
else:
    cluster.run_worker(work)
