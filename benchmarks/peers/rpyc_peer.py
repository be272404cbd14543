"""RPyC: methods of a remote service. JSON travels as bytes, because RPyC passes a dict by reference.

RPyC looks up the name of the method, which is the handler, and puts its arguments in and out with its own serializer.
Many requests are many asynchronous calls over one connection, which RPyC matches with their results. An event is such a
call too, as there are none without a result; at most a hundred are waited for at a time. Compression, which only costs
time on one machine, is off, and so is Nagle's algorithm. There is no ``large``, as writing copies what is left after
every 64 KB (many seconds for 64 MB), no ``echo`` and no ``broadcast``, as a call back is answered before anything else
goes on, and no ``idle``, as a connection is a thread.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from typing import Any

import rpyc
from rpyc.utils.factory import connect_channel
from rpyc.utils.server import ThreadedServer

from common import (
    EVENT,
    Arguments,
    Params,
    arguments,
    begin,
    connect,
    decode,
    encode,
    payload,
    ready,
    report_laps,
    report_rate,
    target,
    warm_up,
)
from conversation import check


class Handlers:
    """What the service offers."""

    def __init__(self) -> None:
        self._seen = 0

    def exposed_ask(self, received: bytes) -> bytes:
        message = decode(received)
        return encode("reply", message.data)

    def exposed_tick(self, received: bytes) -> int:
        """How many there have been."""
        decode(received)
        self._seen += 1
        return self._seen


def serve(asked: Arguments) -> None:
    where = target(asked.address)
    service = type("Service", (Handlers, rpyc.Service), {})
    if isinstance(where, str):
        server = ThreadedServer(service, socket_path=where)
    else:
        server = ThreadedServer(service, hostname=where[0], port=where[1])
        server.listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what it accepts has it too
    threading.Thread(target=server.start).start()
    while not server.active:
        time.sleep(0.001)
    ready(asked.address if isinstance(where, str) else f"tcp:{server.host}:{server.port}")


# --- driving -------------------------------------------------------------------------------------------------------


def drive(asked: Arguments) -> None:
    connection = connect_channel(rpyc.Channel(rpyc.SocketStream(connect(asked.address)), compress=False))
    loops = {"request": request, "requests": requests, "events": events}
    loops[asked.workload](connection.root, asked.params)


def request(remote: Any, params: Params) -> None:
    ask = remote.ask
    data, laps = payload(params.size), []
    first = warm_up(params.count)
    for call in range(first + params.count):
        if call == first:
            begin()
        began = time.perf_counter()
        answer = decode(ask(encode(EVENT, data)))
        laps.append(time.perf_counter() - began)
        check(answer.data, data)
    report_laps(laps[first:])


def requests(remote: Any, params: Params) -> None:
    ask = rpyc.async_(remote.ask)
    data = [payload(params.size, 100 + task) for task in range(params.tasks)]
    waiting: deque[Any] = deque()
    begin()
    began = time.perf_counter()
    for number in range(params.count + params.tasks):
        task = number % params.tasks
        if number >= params.tasks:
            check(decode(waiting.popleft().value).data, data[task])
        if number < params.count:
            waiting.append(ask(encode(EVENT, data[task])))
    report_rate(params.count, time.perf_counter() - began)


def events(remote: Any, params: Params) -> None:
    tick = rpyc.async_(remote.tick)
    data = payload(params.size)
    waiting: deque[Any] = deque()
    begin()
    began = time.perf_counter()
    for number in range(params.count + params.tasks):
        if number >= params.tasks:
            check(waiting.popleft().value, number - params.tasks + 1)
        if number < params.count:
            waiting.append(tick(encode(EVENT, data)))
    report_rate(params.count, time.perf_counter() - began)


def main() -> None:
    asked = arguments()
    (serve if asked.role == "serve" else drive)(asked)


if __name__ == "__main__":
    main()
