"""The floor of pyipc: non-blocking sockets, trio's readiness calls and msgspec, with no library between.

A request and its reply are the very bytes of pyipc's. There are no calls in flight, time-outs or limits, a request is
taken to arrive in one piece, as small ones do, and nobody may be slow.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import trio

from common import (
    DELIMITER,
    EVENT,
    Arguments,
    Frames,
    arguments,
    begin,
    connect,
    decode,
    encode,
    listen,
    payload,
    ready,
    report_laps,
    report_rate,
    warm_up,
)

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

#: As many events as pyipc lets wait before it writes: its outbox's high-water mark.
BATCH_SIZE = 65_536


async def receive(sock: socket.socket) -> bytes:
    await trio.lowlevel.wait_readable(sock)
    return sock.recv(65_536)


async def send_all(sock: socket.socket, data: bytes | bytearray) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[sock.send(view) :]
        except BlockingIOError:
            await trio.lowlevel.wait_writable(sock)


async def accept(listener: socket.socket) -> socket.socket:
    await trio.lowlevel.wait_readable(listener)
    sock, _ = listener.accept()
    sock.setblocking(False)
    return sock


# --- requests ---


def answer(data: Any) -> Any:
    return data


async def serve_requests(sock: socket.socket) -> None:
    handlers: dict[str, Callable[[Any], Any]] = {EVENT: answer}
    while frame := await receive(sock):
        request = decode(frame[:-1]).data
        reply = {"call": request["call"], "data": handlers[request["event"]](request["data"])}
        sock.send(encode("pyipc.reply", reply) + DELIMITER)


async def request(sock: socket.socket, call: int, data: Any) -> Any:
    sock.send(encode("pyipc.request", {"call": call, "event": EVENT, "data": data}) + DELIMITER)
    return decode((await receive(sock))[:-1]).data["data"]


async def drive_requests(sock: socket.socket, args: Arguments) -> None:
    data, count, laps = payload(args.params.size), args.params.count, []
    for call in range(warm_up(count)):
        await request(sock, call, data)
    begin()
    for call in range(count):
        began = time.perf_counter()
        answered = await request(sock, call, data)
        laps.append(time.perf_counter() - began)
        assert answered == data
    report_laps(laps)


# --- events ---


async def serve_events(sock: socket.socket, count: int) -> None:
    seen = 0

    def tick(data: Any) -> None:
        nonlocal seen
        seen += 1

    handlers: dict[str, Callable[[Any], None]] = {EVENT: tick}
    frames = Frames()
    while chunk := await receive(sock):
        for frame in frames.cut(chunk):
            event = decode(frame)
            handlers[event.type](event.data)
        if seen == count:
            await send_all(sock, encode("done", seen) + DELIMITER)


async def drive_events(sock: socket.socket, args: Arguments) -> None:
    data, count = payload(args.params.size), args.params.count
    begin()
    began = time.perf_counter()
    batch = bytearray()
    for _ in range(count):
        batch += encode(EVENT, data) + DELIMITER
        if len(batch) >= BATCH_SIZE:
            await send_all(sock, batch)
            batch = bytearray()
    await send_all(sock, batch)
    done = decode((await receive(sock))[:-1])
    seconds = time.perf_counter() - began
    assert done.data == count
    report_rate(count, seconds)


async def main() -> None:
    args = arguments()
    if args.role == "serve":
        with listen(args.address) as listener:
            ready(args.address, listener)
            sock = await accept(listener)
        with sock:
            if args.workload == "request":
                await serve_requests(sock)
            else:
                await serve_events(sock, args.params.count)
    else:
        with connect(args.address) as sock:
            sock.setblocking(False)
            await (drive_requests if args.workload == "request" else drive_events)(sock, args)


if __name__ == "__main__":
    trio.run(main)
