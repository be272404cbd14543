"""pyipc, both ends, through its public interface alone.

The variant ``async`` answers requests with an async handler, any other with a plain function; ``broadcast`` broadcasts
where others publish to a topic; ``confirmed`` emits events that are to be confirmed in place of requests; of bytes
``attachment`` sends them beside the JSON and ``base64`` in it. Limits on the size of a message and the number of
connections are raised to what the work needs; everything else is as a user gets it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

import pyipc
from common import (
    EVENT,
    Arguments,
    Params,
    arguments,
    begin,
    blob,
    listen,
    payload,
    ready,
    report_laps,
    report_rate,
    warm_up,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

FRAME_SIZE = 256 * 1024**2
CONNECTIONS = 100_000


@dataclasses.dataclass
class Blob:
    """Data with bytes, which become base64 on the way."""

    s: bytes


def endpoint(address: str, role: str) -> pyipc.Endpoint:
    """What pyipc calls an address of the benchmarks, for either side."""
    scheme, _, place = address.partition(":")
    if scheme in ("tcp", "udp"):
        return pyipc.Endpoint(f"{scheme}://{place}")
    if scheme in ("tls", "mtls"):
        return pyipc.Endpoint(f"tls://{place}", tls=TLS[scheme, role]())
    if scheme == "fd":
        return pyipc.Endpoint(f"fd:{listen(address).detach()}" if role == "serve" else f"unix:{place}")
    return pyipc.Endpoint(address)


#: Made where they are needed, as they read the files.
TLS = {
    ("tls", "serve"): lambda: pyipc.TLS(cert="server.pem", key="server-key.pem"),
    ("tls", "drive"): lambda: pyipc.TLS(ca="ca.pem"),
    ("mtls", "serve"): lambda: pyipc.TLS(cert="server.pem", key="server-key.pem", client_ca="ca.pem"),
    ("mtls", "drive"): lambda: pyipc.TLS(cert="client.pem", key="client-key.pem", ca="ca.pem"),
}


# --- the server ---


def handle(server: pyipc.Server, workload: str, params: Params) -> None:
    """Register the handlers that a workload needs."""
    seen = 0
    if workload in ("request", "requests"):
        if params.variant == "async":

            @server.on(EVENT)
            async def answer_async(message: pyipc.Message[Any]) -> Any:
                return message.data
        else:

            @server.on(EVENT)
            def answer(message: pyipc.Message[Any]) -> Any:
                return message.data

    elif workload == "echo":

        @server.on(EVENT)
        async def echo(message: pyipc.Message[Any]) -> None:
            await message.connection.emit(EVENT, message.data)

    elif workload in ("events", "large"):
        wanted = params.count if workload == "events" else 1

        @server.on(EVENT)
        def tick(message: pyipc.Message[Any]) -> None:
            nonlocal seen
            seen += 1
            if seen == wanted:
                message.connection.emit_nowait("done", seen if workload == "events" else len(message.data["s"]))
                seen = 0

    elif workload == "bytes" and params.variant == "attachment":

        @server.on(EVENT)
        def attachment(message: pyipc.Message[Any]) -> None:
            message.connection.emit_nowait("done", len(message.attachments[0]))

    elif workload == "bytes":

        @server.on(EVENT)
        def base64(message: pyipc.Message[Blob]) -> None:
            message.connection.emit_nowait("done", len(message.data.s))

    elif workload == "items":
        data = payload(params.size)
        if params.variant == "stream":

            @server.on("items")
            async def stream(message: pyipc.Message[int]) -> AsyncIterator[Any]:
                for _ in range(message.data):
                    yield data
        elif params.variant == "events":

            @server.on("items")
            async def emit(message: pyipc.Message[int]) -> None:
                for _ in range(message.data):
                    await message.connection.emit(EVENT, data)
        else:
            server.on("items", lambda message: data)

    elif workload in ("broadcast", "topic"):
        send = server.publish if workload == "topic" and params.variant != "broadcast" else server.broadcast

        @server.on("here")
        async def here(message: pyipc.Message[Any]) -> None:
            await message.connection.emit("here")

        @server.on("go")
        async def go(message: pyipc.Message[Any]) -> None:
            data = payload(params.size)
            for _ in range(params.count):
                report = await send(EVENT, data)
                assert report.sent == params.clients


def more_room(workload: str) -> dict[str, Any]:
    """Options for attachments, which an older pyipc does not know."""
    return {"max_attachments_size": FRAME_SIZE} if workload == "bytes" else {}


def make_server(args: Arguments) -> pyipc.Server:
    server = pyipc.Server(
        endpoint(args.address, "serve"),
        max_frame_size=FRAME_SIZE,
        max_inbox_size=FRAME_SIZE,
        **more_room(args.workload),
        max_connections=CONNECTIONS,
        max_connections_per_peer=CONNECTIONS,
    )
    handle(server, args.workload, args.params)
    return server


async def serve(args: Arguments) -> None:
    if args.address.startswith("memory:"):
        ready(args.address)
        await trio.sleep_forever()
    async with make_server(args) as server:
        where = server.addresses[0]
        scheme, _, _ = args.address.partition(":")
        ready(f"{scheme}:{where.host}:{where.port}" if where.port else args.address)
        await trio.sleep_forever()


# --- the driver ---


async def confirm(client: pyipc.Client, data: Any) -> Any:
    """What stands for a request where events are confirmed: there is no answer but that it was handled."""
    await client.emit(EVENT, data, confirm=True)
    return data


def asking(client: pyipc.Client, params: Params) -> Callable[[Any], Awaitable[Any]]:
    """How the server is asked."""
    return partial(confirm, client) if params.variant == "confirmed" else partial(client.request, EVENT)


async def request(client: pyipc.Client, params: Params) -> None:
    data, laps, ask = payload(params.size), [], asking(client, params)
    for _ in range(warm_up(params.count)):
        await ask(data)
    begin()
    for _ in range(params.count):
        began = time.perf_counter()
        answered = await ask(data)
        laps.append(time.perf_counter() - began)
        assert answered == data
    report_laps(laps)


async def requests(client: pyipc.Client, params: Params) -> None:
    async def ask(data: Any, count: int) -> None:
        for _ in range(count):
            assert await question(data) == data

    question = asking(client, params)
    each = params.count // params.tasks
    begin()
    began = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for task in range(params.tasks):
            nursery.start_soon(ask, payload(params.size, 100 + task), each)
    report_rate(each * params.tasks, time.perf_counter() - began)


async def echo(client: pyipc.Client, params: Params) -> None:
    data, sent, received, finished = payload(params.size), 0, 0, trio.Event()

    async def send(_: object = None) -> None:
        nonlocal sent
        if sent < params.count:
            sent += 1
            await client.emit(EVENT, data)

    @client.on(EVENT)
    async def back(message: pyipc.Message[Any]) -> None:
        nonlocal received
        received += 1
        assert message.data == data
        if received == params.count:
            finished.set()
        await send()

    begin()
    began = time.perf_counter()
    for _ in range(params.tasks):
        await send()
    await finished.wait()
    report_rate(received, time.perf_counter() - began)


async def events(client: pyipc.Client, params: Params) -> None:
    data = payload(params.size)
    async with client.expect("done") as done:
        begin()
        began = time.perf_counter()
        for _ in range(params.count):
            await client.emit(EVENT, data)
        answer = await done.get()
        seconds = time.perf_counter() - began
    assert answer.data == params.count
    report_rate(params.count, seconds)


async def large(client: pyipc.Client, params: Params) -> None:
    data, laps = payload(params.size), []
    async with client.expect("done") as done:
        begin()
        for _ in range(params.count):
            began = time.perf_counter()
            await client.emit(EVENT, data)
            answer = await done.get()
            laps.append(time.perf_counter() - began)
            assert answer.data == len(data["s"])
    report_laps(laps)


async def large_bytes(client: pyipc.Client, params: Params) -> None:
    data, laps = blob(params.size), []
    async with client.expect("done") as done:
        begin()
        for _ in range(params.count):
            began = time.perf_counter()
            if params.variant == "attachment":
                await client.emit(EVENT, attachments=[data])
            else:
                await client.emit(EVENT, {"s": data})
            answer = await done.get()
            laps.append(time.perf_counter() - began)
            assert answer.data == len(data)
    report_laps(laps)


async def items(client: pyipc.Client, params: Params) -> None:
    data, seen, finished = payload(params.size), 0, trio.Event()

    @client.on(EVENT)
    def take(message: pyipc.Message[Any]) -> None:
        nonlocal seen
        assert message.data == data
        seen += 1
        if seen == params.count:
            finished.set()

    begin()
    began = time.perf_counter()
    if params.variant == "stream":
        async with client.stream("items", params.count) as stream:
            async for item in stream:
                assert item == data
                seen += 1
    elif params.variant == "events":
        await client.emit("items", params.count)
        await finished.wait()
    else:
        for _ in range(params.count):
            assert await client.request("items") == data
            seen += 1
    seconds = time.perf_counter() - began
    assert seen == params.count
    report_rate(params.count, seconds)


WORK = {
    "request": request,
    "requests": requests,
    "echo": echo,
    "events": events,
    "large": large,
    "bytes": large_bytes,
    "items": items,
}


async def drive(args: Arguments) -> None:
    async with contextlib.AsyncExitStack() as stack:
        if args.address.startswith("memory:"):
            await stack.enter_async_context(make_server(args))
        there = endpoint(args.address, "drive")
        connecting = pyipc.connect(
            there, max_frame_size=FRAME_SIZE, max_outbox_size=FRAME_SIZE, **more_room(args.workload)
        )
        client = await stack.enter_async_context(connecting)
        await WORK[args.workload](client, args.params)


async def main() -> None:
    args = arguments()
    await (serve if args.role == "serve" else drive)(args)


if __name__ == "__main__":
    trio.run(main)
