"""websockets, its asyncio implementation: JSON in text messages, with every limit as it is."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

from websockets.asyncio.client import unix_connect
from websockets.asyncio.server import broadcast, unix_serve

from victim import Arguments, arguments, ask_lines_async, begin, error_name, handle, note, paced, payload, say

if TYPE_CHECKING:
    import contextlib


async def read_line() -> str:
    return await asyncio.to_thread(sys.stdin.readline)


async def serve(asked: Arguments) -> None:
    params = asked.params

    async def talk(connection: Any) -> None:
        try:
            async for message in connection:
                job = json.loads(message)
                await asyncio.sleep(begin(params, job))
                await connection.send(json.dumps(handle(params, job)))
        except Exception as error:
            note("noticed", error_name(error))
            raise
        note("noticed", "the end")

    async with unix_serve(talk, asked.place) as server:
        say(ready=True)
        await server.serve_forever()


async def ask(asked: Arguments) -> None:
    async def connect(stack: contextlib.AsyncExitStack) -> Any:
        return await stack.enter_async_context(unix_connect(asked.place, open_timeout=asked.params.patience))

    async def call(connection: Any, job: Any) -> Any:
        await connection.send(json.dumps(job))
        if asked.role == "tell":
            return {}
        return json.loads(await asyncio.wait_for(connection.recv(), asked.params.patience))

    await ask_lines_async(asked.params, read_line, asyncio.sleep, connect, call)


async def publish(asked: Arguments) -> None:
    params, told, full = asked.params, Counter[str](), asyncio.Event()
    clients: set[Any] = set()

    async def join(connection: Any) -> None:
        clients.add(connection)
        if len(clients) == params.clients:
            full.set()
        await connection.wait_closed()
        clients.discard(connection)
        told["the end of a connection"] += 1

    async with unix_serve(join, asked.place):
        say(ready=True)
        await full.wait()
        say(full=True)
        await read_line()
        for pause in paced(params):
            await asyncio.sleep(pause)
            broadcast(clients, json.dumps(payload(params)))
        say(sent=params.count)
        while await read_line():
            say(told=told)


async def subscribe(asked: Arguments) -> None:
    got = 0
    async with unix_connect(asked.place) as connection:

        async def listen() -> None:
            nonlocal got
            async for message in connection:
                json.loads(message)
                got += 1

        listening = asyncio.create_task(listen())
        say(ready=True)
        while await read_line():
            say(got=got)
        listening.cancel()


ROLES = {"serve": serve, "ask": ask, "tell": ask, "publish": publish, "subscribe": subscribe}

if __name__ == "__main__":
    asked = arguments()
    asyncio.run(ROLES[asked.role](asked))
