"""asyncio's streams: JSON, a line each, as its documentation has it, with every limit as it is."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections import Counter
from typing import Any

from victim import Arguments, arguments, ask_lines_async, begin, error_name, handle, note, paced, payload, say


async def read_line() -> str:
    return await asyncio.to_thread(sys.stdin.readline)


async def send(writer: asyncio.StreamWriter, data: object) -> None:
    writer.write(json.dumps(data).encode() + b"\n")
    await writer.drain()


async def serve(asked: Arguments) -> None:
    params = asked.params

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                job = json.loads(line)
                await asyncio.sleep(begin(params, job))
                await send(writer, handle(params, job))
        except Exception as error:
            note("noticed", error_name(error))
        else:
            note("noticed", "the end")
        finally:
            writer.close()

    async with await asyncio.start_unix_server(talk, asked.place) as server:
        say(ready=True)
        await server.serve_forever()


async def ask(asked: Arguments) -> None:
    async def connect(stack: contextlib.AsyncExitStack) -> Any:
        reader, writer = await asyncio.open_unix_connection(asked.place)
        stack.callback(writer.close)
        return reader, writer

    async def call(connection: Any, job: Any) -> Any:
        reader, writer = connection
        await send(writer, job)
        if asked.role == "tell":
            return {}
        line = await asyncio.wait_for(reader.readline(), asked.params.patience)
        if not line:
            raise ConnectionError("the server has closed the connection")
        return json.loads(line)

    await ask_lines_async(asked.params, read_line, asyncio.sleep, connect, call)


async def publish(asked: Arguments) -> None:
    params, told, full = asked.params, Counter[str](), asyncio.Event()
    clients: set[asyncio.StreamWriter] = set()

    async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        clients.add(writer)
        if len(clients) == params.clients:
            full.set()
        with contextlib.suppress(OSError):
            await reader.read()
        clients.discard(writer)
        told["the end of a connection"] += 1

    async with await asyncio.start_unix_server(join, asked.place):
        say(ready=True)
        await full.wait()
        say(full=True)
        await read_line()
        for pause in paced(params):
            await asyncio.sleep(pause)
            for writer in list(clients):
                await send(writer, payload(params))
        say(sent=params.count)
        while await read_line():
            say(told=told)


async def subscribe(asked: Arguments) -> None:
    got = 0
    reader, writer = await asyncio.open_unix_connection(asked.place)

    async def listen() -> None:
        nonlocal got
        while line := await reader.readline():
            json.loads(line)
            got += 1

    listening = asyncio.create_task(listen())
    say(ready=True)
    while await read_line():
        say(got=got)
    listening.cancel()
    writer.close()


ROLES = {"serve": serve, "ask": ask, "tell": ask, "publish": publish, "subscribe": subscribe}

if __name__ == "__main__":
    asked = arguments()
    asyncio.run(ROLES[asked.role](asked))
