"""The floor: sockets, trio's readiness calls and msgspec, with no library between.

Frames are the very bytes of pyipc's requests and replies. There are no names, handlers, calls in
flight, time-outs or limits, and a frame is taken to arrive in one piece, as small ones do.
"""

from __future__ import annotations

import socket
import time
from typing import Any

import msgspec
import trio

from common import DATA, DELIMITER, LIFETIME, arguments, ready, report_round_trips

encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder().decode


async def receive(sock: socket.socket) -> Any:
    await trio.lowlevel.wait_readable(sock)
    frame = sock.recv(65536)
    return decode(frame[:-1]) if frame else None


def send(sock: socket.socket, kind: str, data: object) -> None:
    sock.send(encode({"type": kind, "data": data}) + DELIMITER)


async def serve(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        ready()
        await trio.lowlevel.wait_readable(listener)
        sock, _ = listener.accept()
    with sock:
        sock.setblocking(False)
        while (frame := await receive(sock)) is not None:
            request = frame["data"]
            send(sock, "pyipc.reply", {"call": request["call"], "data": request["data"]})


async def ask(path: str, count: int) -> None:
    laps = []
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        sock.setblocking(False)
        warm_up = count // 10 + 100
        for call in range(warm_up + count):
            began = time.perf_counter()
            send(sock, "pyipc.request", {"call": call, "event": "plain", "data": DATA})
            answer = (await receive(sock))["data"]["data"]
            laps.append(time.perf_counter() - began)
        assert answer == DATA
    report_round_trips(laps[warm_up:])


async def main() -> None:
    role, path, count = arguments()
    with trio.fail_after(LIFETIME):
        if role == "serve":
            await serve(path)
        else:
            await ask(path, count)


if __name__ == "__main__":
    trio.run(main)
