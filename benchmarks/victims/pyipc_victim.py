"""pyipc, through its public interface alone, with every option as it is.

The variant ``strict`` of a server has ``plain_peers=False``; who asks with the variant ``confirmed`` emits events that
are to be confirmed.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import trio

import pyipc
from victim import Arguments, arguments, ask_lines_async, begin, handle, note, paced, payload, say

if TYPE_CHECKING:
    import contextlib


async def read_line() -> str:
    return await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)


async def serve(asked: Arguments) -> None:
    params = asked.params
    server = pyipc.Server(f"unix:{asked.place}", plain_peers=params.variant != "strict")

    @server.on("job")
    async def job(message: pyipc.Message[Any]) -> dict[str, Any]:
        await trio.sleep(begin(params, message.data))
        return handle(params, message.data)

    @server.on_disconnect
    def left(why: pyipc.Disconnected) -> None:
        note("noticed", why.code)

    async with server:
        say(ready=True)
        await trio.sleep_forever()


async def ask(asked: Arguments) -> None:
    async def call(client: pyipc.Client, job: Any) -> Any:
        if asked.role == "tell":
            return await client.emit("job", job)
        if asked.params.variant == "confirmed":
            return await client.emit("job", job, confirm=True)
        return await client.request("job", job)

    await ask_lines_async(asked.params, read_line, trio.sleep, connector(asked), call, comes_back=True)


def connector(asked: Arguments) -> Any:
    async def connect(stack: contextlib.AsyncExitStack) -> pyipc.Client:
        patience = asked.params.patience
        client = pyipc.connect(
            f"unix:{asked.place}", connect_timeout=patience, request_timeout=patience, confirm_timeout=patience
        )
        return await stack.enter_async_context(client)

    return connect


async def publish(asked: Arguments) -> None:
    params, told, full = asked.params, Counter[str](), trio.Event()
    server = pyipc.Server(f"unix:{asked.place}")

    @server.on_connect
    def joined(connection: pyipc.Connection) -> None:
        if len(server.connections) == params.clients:
            full.set()

    @server.on_disconnect
    def left(why: pyipc.Disconnected) -> None:
        told[f"a connection was closed: {why.code}"] += 1

    async with server:
        say(ready=True)
        await full.wait()
        say(full=True)
        await read_line()
        for pause in paced(params):
            await trio.sleep(pause)
            report = await server.broadcast("news", payload(params))
            if report.dropped:
                told["it did not get a message"] += report.dropped
        say(sent=params.count)
        while await read_line():
            say(told=told)


async def subscribe(asked: Arguments) -> None:
    got = 0
    async with pyipc.connect(f"unix:{asked.place}") as client:

        @client.on("news")
        def news(message: pyipc.Message[Any]) -> None:
            nonlocal got
            got += 1

        say(ready=True)
        while await read_line():
            say(got=got)


ROLES = {"serve": serve, "ask": ask, "tell": ask, "publish": publish, "subscribe": subscribe}

if __name__ == "__main__":
    asked = arguments()
    trio.run(ROLES[asked.role], asked)
