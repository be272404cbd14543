"""pynng: JSON in nng messages, its blocking calls, beside nng's own threads for the sockets.

Requests go from Req0 to Rep0, many of them by contexts of one socket, which nng matches with their answers itself.
Echoes and events go over Pair0, which waits when its buffers are full. A broadcast goes from Pub0 to Sub0; both drop
what does not fit into their buffers, so these are made to hold all of it, and a loss would end the measurement. Sockets
connect again by themselves, and Req0 asks again. There is no ``idle``: a connection that does not greet as nng does
counts for nothing.
"""

from __future__ import annotations

import functools
import threading
import time
from typing import Any

import pynng

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
    report_rate,
)
from conversation import check, converse, handlers, hear

#: pynng has no types: a socket or a context of one.
Socket = Any

#: Messages that nng may hold at either end, as ZeroMQ does.
BUFFERS = {"recv_buffer_size": 1_000, "send_buffer_size": 1_000}


def url(address: str) -> str:
    scheme, _, rest = address.partition(":")
    return f"{'ipc' if scheme == 'unix' else 'tcp'}://{rest}"


def listen(socket: Socket, address: str) -> str:
    """Listen, and tell where really."""
    socket.listen(url(address))
    where = socket.listeners[0].local_address
    return address if address.startswith("unix:") else f"tcp:{where}"


def send(socket: Socket, event: str, data: object = None, call: int = 0) -> None:
    socket.send(encode(event, data, call))


def receive(socket: Socket) -> Envelope:
    return decode(socket.recv())


# --- serving -------------------------------------------------------------------------------------------------------


def serve(asked: Arguments) -> None:
    if asked.workload == "broadcast":
        broadcast(asked)
        return
    handle = handlers(asked.workload, asked.params)
    socket = pynng.Rep0() if asked.workload in ("request", "requests") else pynng.Pair0(**BUFFERS)
    socket.recv_max_size = 0
    ready(listen(socket, asked.address))
    while True:
        message = receive(socket)
        if (answer := handle[message.type](message)) is not None:
            send(socket, *answer)


def broadcast(asked: Arguments) -> None:
    params = asked.params
    publisher = pynng.Pub0(send_buffer_size=params.count + 1)
    connected = threading.Semaphore(0)
    publisher.add_post_pipe_connect_cb(lambda pipe: connected.release())
    ready(listen(publisher, asked.address))
    beside = pynng.Pull0()
    where = listen(beside, f"{asked.address}.beside" if asked.address.startswith("unix:") else "tcp:127.0.0.1:0")
    for _ in range(params.clients):
        connected.acquire()
    send(publisher, "here", url(where))
    receive(beside)
    for _ in range(params.count):
        send(publisher, EVENT, payload(params.size))
    receive(beside)


# --- driving -------------------------------------------------------------------------------------------------------


def drive(asked: Arguments) -> None:
    where, params = url(asked.address), asked.params
    if asked.workload == "broadcast":
        clients = [pynng.Sub0(topics=b"", recv_buffer_size=params.count + 1) for _ in range(params.clients)]
        for client in clients:
            client.dial(where, block=True)  # when it has subscribed: what comes before is dropped
        told = [receive(client).data for client in clients]
        beside = pynng.Push0(dial=told[0], block_on_dial=True)
        hear(params, lambda: send(beside, "go"), [client.recv for client in clients])
    elif asked.workload == "requests":
        requests(pynng.Req0(dial=where, block_on_dial=True), params)
    else:
        options = {} if asked.workload == "request" else BUFFERS
        socket = (pynng.Req0 if asked.workload == "request" else pynng.Pair0)(dial=where, block_on_dial=True, **options)
        converse(asked.workload, params, functools.partial(send, socket), functools.partial(receive, socket))


def requests(req: Socket, params: Params) -> None:
    contexts = [req.new_context() for _ in range(params.tasks)]
    data = [payload(params.size, 100 + task) for task in range(params.tasks)]
    begin()
    began = time.perf_counter()
    for number in range(params.count + params.tasks):
        task = number % params.tasks
        if number >= params.tasks:
            check(receive(contexts[task]).data, data[task])
        if number < params.count:
            send(contexts[task], EVENT, data[task])
    report_rate(params.count, time.perf_counter() - began)


def main() -> None:
    asked = arguments()
    (serve if asked.role == "serve" else drive)(asked)


if __name__ == "__main__":
    main()
