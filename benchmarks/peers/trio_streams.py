"""trio's ``SocketStream``, or ``SSLStream``: JSON and a delimiter, as a program on trio writes it without a library.

A message is one ``send_all``; what one read brings is answered with one, and requests of many tasks go through one task
that writes whatever waits. There are no limits, no time-outs and no connection that comes back.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import trio

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


class Messages:
    """The messages that come over a stream."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._begun = bytearray()
        self._unread: deque[bytearray] = deque()

    async def receive_batch(self) -> list[bytearray]:
        """The frames that the next read completes; none at the end."""
        async for chunk in self._stream:
            complete, delimiter, rest = chunk.rpartition(DELIMITER)
            if delimiter:
                self._begun += complete
                frames = self._begun.split(DELIMITER)
                self._begun = bytearray(rest)
                return frames
            self._begun += chunk
        return []

    async def receive(self) -> Envelope:
        if not self._unread:
            self._unread.extend(await self.receive_batch())
        return decode(self._unread.popleft())


# --- serving -------------------------------------------------------------------------------------------------------


async def serve(asked: Arguments) -> None:
    params = asked.params
    handle = handlers(asked.workload, params)
    clients: list[trio.abc.Stream] = []

    async def answer(stream: trio.abc.Stream) -> None:
        messages = Messages(stream)
        while batch := await messages.receive_batch():
            answers = [handle[message.type](message) for message in map(decode, batch)]
            if frames := [frame(*answer) for answer in answers if answer is not None]:
                await stream.send_all(b"".join(frames))

    async def broadcast(stream: trio.abc.Stream) -> None:
        clients.append(stream)
        messages = Messages(stream)
        while batch := await messages.receive_batch():
            for message in map(decode, batch):
                if message.type == "here":
                    await stream.send_all(frame("here"))
                else:
                    await send_to_all()

    async def send_to_all() -> None:
        for _ in range(params.count):
            encoded = frame(EVENT, payload(params.size))
            for client in clients:
                await client.send_all(encoded)

    async def hold(stream: trio.abc.Stream) -> None:
        await stream.receive_some()

    sock = listen(asked.address)
    listener: trio.abc.Listener[trio.abc.Stream] = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
    if context := server_context(asked.address):
        listener = trio.SSLListener(listener, context)
    ready(asked.address, sock)
    handler = {"broadcast": broadcast, "idle": hold}.get(asked.workload, answer)
    await trio.serve_listeners(handler, [listener])


# --- driving -------------------------------------------------------------------------------------------------------


async def drive(asked: Arguments) -> None:
    stream: trio.abc.Stream = trio.SocketStream(trio.socket.from_stdlib_socket(connect(asked.address)))
    if context := client_context(asked.address):
        stream = trio.SSLStream(stream, context, server_hostname=host(asked.address))
    messages = Messages(stream)
    if asked.workload == "requests":
        await requests(stream, messages, asked.params)
        return

    async def send(event: str, data: object = None, call: int = 0) -> None:
        await stream.send_all(frame(event, data, call))

    await converse_async(asked.workload, asked.params, send, messages.receive)


async def requests(stream: trio.abc.Stream, messages: Messages, params: Params) -> None:
    calls = iter(range(1, params.count + 1))
    answered: dict[int, trio.Event] = {}
    answers: dict[int, Any] = {}
    outgoing, frames = trio.open_memory_channel[bytes](params.tasks)

    async def write() -> None:
        async for first in frames:
            others = [frames.receive_nowait() for _ in range(frames.statistics().current_buffer_used)]
            await stream.send_all(b"".join([first, *others]))

    async def read() -> None:
        while batch := await messages.receive_batch():
            for reply in map(decode, batch):
                answers[reply.call] = reply.data
                answered.pop(reply.call).set()

    async def ask(task: int) -> None:
        data = payload(params.size, 100 + task)
        for call in calls:
            answered[call] = done = trio.Event()
            outgoing.send_nowait(frame(EVENT, data, call))
            await done.wait()
            check(answers.pop(call), data)

    async with trio.open_nursery() as pumping:
        pumping.start_soon(read)
        pumping.start_soon(write)
        begin()
        began = time.perf_counter()
        async with trio.open_nursery() as asking:
            for task in range(params.tasks):
                asking.start_soon(ask, task)
        report_rate(params.count, time.perf_counter() - began)


async def main() -> None:
    asked = arguments()
    await (serve if asked.role == "serve" else drive)(asked)


if __name__ == "__main__":
    trio.run(main)
