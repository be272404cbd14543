"""websockets, its trio implementation: JSON in text messages.

Compression, which only costs time on one machine, is off, and there is no limit of size. The pings that watch over a
silent peer stay on. Requests of many tasks have numbers. There is no ``idle``: a connection
that says nothing has not shaken hands.
"""

from __future__ import annotations

import contextlib
import functools
import time
from typing import Any

import trio
from websockets.trio.client import connect, unix_connect
from websockets.trio.server import broadcast, serve

from common import (
    EVENT,
    Arguments,
    Envelope,
    Params,
    arguments,
    begin,
    client_context,
    decode,
    encode,
    listen,
    payload,
    ready,
    report_rate,
    server_context,
)
from conversation import check, converse_async, handlers

#: A connection at either end.
Connection = Any

OPTIONS: dict[str, Any] = {"compression": None, "max_size": None}


async def send(connection: Connection, event: str, data: object = None, call: int = 0) -> None:
    await connection.send(encode(event, data, call), text=True)


async def receive(connection: Connection) -> Envelope:
    return decode(await connection.recv(decode=False))


# --- serving -------------------------------------------------------------------------------------------------------


async def run_server(asked: Arguments) -> None:
    params = asked.params
    handle = handlers(asked.workload, params)
    clients: list[Connection] = []

    async def answer(connection: Connection) -> None:
        while True:
            message = await receive(connection)
            if (answer := handle[message.type](message)) is not None:
                await send(connection, *answer)

    async def publish(connection: Connection) -> None:
        clients.append(connection)
        if len(clients) == params.clients:
            await broadcast(clients, encode("here", None), text=True)
        await receive(connection)
        for _ in range(params.count):
            await broadcast(clients, encode(EVENT, payload(params.size)), text=True)
        await receive(connection)

    sock = listen(asked.address)
    ready(asked.address, sock)
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
    handler = publish if asked.workload == "broadcast" else answer
    await serve(handler, listeners=[listener], ssl=server_context(asked.address), **OPTIONS)


# --- driving -------------------------------------------------------------------------------------------------------


def connection_to(address: str) -> Any:
    scheme, _, rest = address.partition(":")
    if scheme == "unix":
        return unix_connect(rest, **OPTIONS)
    if context := client_context(address):
        return connect(f"wss://{rest}", proxy=None, ssl=context, **OPTIONS)
    return connect(f"ws://{rest}", proxy=None, **OPTIONS)


async def drive(asked: Arguments) -> None:
    if asked.workload == "broadcast":
        await hear(asked)
        return
    async with connection_to(asked.address) as connection:
        if asked.workload == "requests":
            await requests(connection, asked.params)
        else:
            talk = functools.partial(send, connection), functools.partial(receive, connection)
            await converse_async(asked.workload, asked.params, *talk)


async def requests(connection: Connection, params: Params) -> None:
    calls = iter(range(1, params.count + 1))
    answered: dict[int, trio.Event] = {}
    answers: dict[int, Any] = {}

    async def read() -> None:
        while True:
            reply = await receive(connection)
            answers[reply.call] = reply.data
            answered.pop(reply.call).set()

    async def ask(task: int) -> None:
        data = payload(params.size, 100 + task)
        for call in calls:
            answered[call] = done = trio.Event()
            await send(connection, EVENT, data, call)
            await done.wait()
            check(answers.pop(call), data)

    async with trio.open_nursery() as reading:
        reading.start_soon(read)
        begin()
        began = time.perf_counter()
        async with trio.open_nursery() as asking:
            for task in range(params.tasks):
                asking.start_soon(ask, task)
        report_rate(params.count, time.perf_counter() - began)


async def hear(asked: Arguments) -> None:
    params = asked.params
    expected = encode(EVENT, payload(params.size))

    async def listen_to(connection: Connection) -> None:
        for _ in range(params.count):
            check(await connection.recv(decode=False), expected)

    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connection_to(asked.address)) for _ in range(params.clients)]
        for client in clients:
            check((await receive(client)).type, "here")
        begin()
        began = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(listen_to, client)
            await send(clients[0], "go")
        report_rate(params.count * params.clients, time.perf_counter() - began)


def main() -> None:
    asked = arguments()
    trio.run(run_server if asked.role == "serve" else drive, asked)


if __name__ == "__main__":
    main()
