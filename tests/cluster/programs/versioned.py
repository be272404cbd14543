"""A worker that says which version of this file it runs, over pyipc and over HTTP. A test edits that."""

import os
from functools import partial

import h11
import trio

import pyipc
from pyipc import cluster

VERSION = 1


async def main(worker: cluster.Worker) -> None:
    if os.environ.get("NEVER_READY"):
        await trio.sleep_forever()
    server = pyipc.Server(os.environ["PYIPC_ADDRESS"])

    @server.on("version")
    async def version(message: pyipc.Message[object]) -> list[object]:
        await trio.sleep(0.01)
        return [VERSION, message.data]

    async with server:
        await trio.serve_listeners(partial(serve, worker), await worker.open_listeners(os.environ["HTTP_ADDRESS"]))


async def serve(worker: cluster.Worker, stream: trio.abc.Stream) -> None:
    connection = h11.Connection(h11.SERVER)
    async with stream:
        while True:
            target = await request(connection, stream)
            if target is None:
                return
            await trio.sleep(0.01)
            body = f"{VERSION} {target}".encode()
            headers = [("Content-Length", str(len(body)))]
            if worker.draining:
                headers.append(("Connection", "close"))
            answer = (h11.Response(status_code=200, headers=headers), h11.Data(data=body), h11.EndOfMessage())
            await stream.send_all(b"".join(connection.send(part) or b"" for part in answer))
            if connection.our_state is not h11.DONE:
                return
            connection.start_next_cycle()


async def request(connection: h11.Connection, stream: trio.abc.Stream) -> str | None:
    target = None
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(bytes(await stream.receive_some()))
        elif isinstance(event, h11.Request):
            target = event.target.decode()
        elif isinstance(event, h11.EndOfMessage):
            return target
        elif isinstance(event, h11.ConnectionClosed):
            return None
