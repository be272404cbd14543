"""grpc.aio: JSON in gRPC's messages, by generic handlers that encode and decode with msgspec instead of protobuf.

Requests are unary calls: gRPC looks up the name of the method, which is the handler, and matches the answer. Events,
echoes and the large message go through one stream in both directions, whose handler looks up the event. There is no
limit of size. The variant ``uvloop`` runs both ends on uvloop. There is no ``broadcast``, which would be a call and a
queue for every client, and no ``idle``: a connection that does not greet as HTTP/2 does is none.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from common import (
    EVENT,
    Arguments,
    Envelope,
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
)
from conversation import Answer, check, converse_async, handlers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),
]


def serialize(message: Answer) -> bytes:
    return encode(*message)


# --- serving -------------------------------------------------------------------------------------------------------


async def serve(asked: Arguments) -> None:
    handle = handlers(asked.workload, asked.params)

    async def tick(message: Envelope, context: Any) -> Answer | None:
        return handle[EVENT](message)

    async def talk(messages: AsyncIterator[Envelope], context: Any) -> AsyncIterator[Answer]:
        async for message in messages:
            if (answer := handle[message.type](message)) is not None:
                yield answer

    codec = {"request_deserializer": decode, "response_serializer": serialize}
    methods = {
        EVENT: grpc.unary_unary_rpc_method_handler(tick, **codec),
        "talk": grpc.stream_stream_rpc_method_handler(talk, **codec),
    }
    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("bench", methods)])
    port = server.add_insecure_port(asked.address.removeprefix("tcp:"))
    await server.start()
    ready(asked.address if asked.address.startswith("unix:") else f"tcp:127.0.0.1:{port}")
    await server.wait_for_termination()


# --- driving -------------------------------------------------------------------------------------------------------


async def drive(asked: Arguments) -> None:
    codec = {"request_serializer": serialize, "response_deserializer": decode}
    channel = grpc.aio.insecure_channel(asked.address.removeprefix("tcp:"), options=OPTIONS)
    await channel.channel_ready()  # it would connect at the first call, which is measured
    if asked.workload in ("request", "requests"):
        loop = request if asked.workload == "request" else requests
        await loop(channel.unary_unary(f"/bench/{EVENT}", **codec), asked.params)
        return
    stream = channel.stream_stream("/bench/talk", **codec)()

    async def send(event: str, data: object = None, call: int = 0) -> None:
        await stream.write((event, data, call))

    await converse_async(asked.workload, asked.params, send, stream.read)


async def request(ask: Any, params: Params) -> None:
    data, laps = payload(params.size), []
    first = warm_up(params.count)
    for call in range(first + params.count):
        if call == first:
            begin()
        began = time.perf_counter()
        answer = await ask((EVENT, data, 0))
        laps.append(time.perf_counter() - began)
        check(answer.data, data)
    report_laps(laps[first:])


async def requests(ask: Any, params: Params) -> None:
    calls = iter(range(params.count))

    async def ask_all(task: int) -> None:
        data = payload(params.size, 100 + task)
        for _ in calls:
            check((await ask((EVENT, data, 0))).data, data)

    begin()
    began = time.perf_counter()
    async with asyncio.TaskGroup() as asking:
        for task in range(params.tasks):
            asking.create_task(ask_all(task))
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
