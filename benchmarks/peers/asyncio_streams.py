"""asyncio's ``StreamReader`` and ``StreamWriter``: JSON and a delimiter. The variant ``uvloop`` runs them on uvloop.

A message is one ``write`` and one ``drain``. The reader's limit is asyncio's own, unless messages are longer. There are
no time-outs and no connection that comes back.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from common import (
    DELIMITER,
    EVENT,
    Arguments,
    Envelope,
    Params,
    arguments,
    begin,
    client_context,
    connect,
    decode,
    encode,
    host,
    listen,
    payload,
    ready,
    report_rate,
    server_context,
)
from conversation import check, converse_async, handlers


def frame(event: str, data: object = None, call: int = 0) -> bytes:
    return encode(event, data, call) + DELIMITER


async def receive(reader: asyncio.StreamReader) -> Envelope:
    return decode((await reader.readuntil(DELIMITER))[:-1])


def limit(params: Params) -> int:
    return max(65_536, 2 * params.size)


# --- serving -------------------------------------------------------------------------------------------------------


async def serve(asked: Arguments) -> None:
    params = asked.params
    handle = handlers(asked.workload, params)
    clients: list[asyncio.StreamWriter] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            message = await receive(reader)
            if (answer := handle[message.type](message)) is not None:
                writer.write(frame(*answer))
                await writer.drain()

    async def broadcast(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        clients.append(writer)
        while True:
            if (await receive(reader)).type == "here":
                writer.write(frame("here"))
                await writer.drain()
            else:
                await send_to_all()

    async def send_to_all() -> None:
        for _ in range(params.count):
            encoded = frame(EVENT, payload(params.size))
            for client in clients:
                client.write(encoded)
                await client.drain()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    sock = listen(asked.address)
    handler = {"broadcast": broadcast, "idle": hold}.get(asked.workload, answer)
    start = asyncio.start_unix_server if asked.address.startswith("unix:") else asyncio.start_server
    server = await start(handler, sock=sock, limit=limit(params), backlog=4_096, ssl=server_context(asked.address))
    ready(asked.address, sock)
    await server.serve_forever()


# --- driving -------------------------------------------------------------------------------------------------------


async def drive(asked: Arguments) -> None:
    open_connection = asyncio.open_unix_connection if asked.address.startswith("unix:") else asyncio.open_connection
    context = client_context(asked.address)
    reader, writer = await open_connection(
        sock=connect(asked.address),
        limit=limit(asked.params),
        ssl=context,
        server_hostname=host(asked.address) if context else None,
    )
    if asked.workload == "requests":
        await requests(reader, writer, asked.params)
        return

    async def send(event: str, data: object = None, call: int = 0) -> None:
        writer.write(frame(event, data, call))
        await writer.drain()

    await converse_async(asked.workload, asked.params, send, lambda: receive(reader))


async def requests(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, params: Params) -> None:
    loop = asyncio.get_running_loop()
    calls = iter(range(1, params.count + 1))
    waiting: dict[int, asyncio.Future[Any]] = {}

    async def read() -> None:
        while True:
            reply = await receive(reader)
            waiting.pop(reply.call).set_result(reply.data)

    async def ask(task: int) -> None:
        data = payload(params.size, 100 + task)
        for call in calls:
            waiting[call] = answer = loop.create_future()
            writer.write(frame(EVENT, data, call))
            await writer.drain()
            check(await answer, data)

    async with asyncio.TaskGroup() as reading:
        reading.create_task(read())
        begin()
        began = time.perf_counter()
        async with asyncio.TaskGroup() as asking:
            for task in range(params.tasks):
                asking.create_task(ask(task))
        report_rate(params.count, time.perf_counter() - began)


def main() -> None:
    asked = arguments()
    run = asyncio.run
    if asked.params.variant == "uvloop":
        import uvloop

        run = uvloop.run
    run((serve if asked.role == "serve" else drive)(asked))


if __name__ == "__main__":
    main()
