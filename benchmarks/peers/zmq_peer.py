"""pyzmq: JSON in ZeroMQ messages, blocking calls in one thread, beside ZeroMQ's own thread for the sockets.

One request goes from REQ to REP. Many, and echoes, go from DEALER to ROUTER; requests have numbers, so that one thread
keeps many of them on their way. Events go from PUSH to PULL, a broadcast from XPUB to SUB; what has to be said beside
them takes a second pair of PUSH and PULL. A PUSH that is full, with ZeroMQ's own limit of 1,000 messages at either end,
waits; an XPUB would drop and has no limit here. Sockets connect again by themselves, and what was on its way is lost.
There is no ``idle``: a connection that does not greet as ZeroMQ does counts for nothing.
"""

from __future__ import annotations

import functools
from typing import Any

import zmq

from common import EVENT, Arguments, Envelope, Params, arguments, decode, encode, payload, ready
from conversation import converse, handlers, hear

#: Its type has a parameter that older pyzmq does not know.
Socket = Any

context = zmq.Context()
context.max_sockets = 16_384


def url(address: str) -> str:
    scheme, _, rest = address.partition(":")
    return f"{'ipc' if scheme == 'unix' else 'tcp'}://{rest}"


def connect(kind: int, where: str) -> Socket:
    socket = context.socket(kind)
    socket.connect(where)
    return socket


def listen(kind: int, address: str) -> tuple[Socket, str]:
    """A socket, and the URL that it really has."""
    socket: Socket = context.socket(kind)
    if kind == zmq.XPUB:
        socket.set_hwm(0)
    socket.bind(url(address))
    return socket, socket.last_endpoint.decode()


def listen_beside(address: str) -> tuple[Socket, str]:
    """A PULL for what has to be said beside the events, and its URL."""
    return listen(zmq.PULL, f"{address}.beside" if address.startswith("unix:") else "tcp:127.0.0.1:*")


def send(socket: Socket, event: str, data: object = None, call: int = 0) -> None:
    message = encode(event, data, call)
    # What is handed over instead of copied costs more than the copy of a small message.
    socket.send(message, copy=len(message) < zmq.COPY_THRESHOLD)


def receive(socket: Socket) -> Envelope:
    return decode(socket.recv())


# --- serving -------------------------------------------------------------------------------------------------------


def serve(asked: Arguments) -> None:
    serving = {
        "request": (zmq.REP, reply),
        "requests": (zmq.ROUTER, route),
        "echo": (zmq.ROUTER, route),
        "events": (zmq.PULL, take),
        "large": (zmq.PULL, take),
        "broadcast": (zmq.XPUB, broadcast),
    }
    kind, loop = serving[asked.workload]
    socket, where = listen(kind, asked.address)
    ready(where.replace("ipc://", "unix:").replace("tcp://", "tcp:"))
    loop(socket, asked)


def reply(rep: Socket, asked: Arguments) -> None:
    respond(rep, rep, asked)


def route(router: Socket, asked: Arguments) -> None:
    handle = handlers(asked.workload, asked.params)
    while True:
        caller, received = router.recv_multipart()
        message = decode(received)
        if (answer := handle[message.type](message)) is not None:
            router.send_multipart((caller, encode(*answer)))


def take(pull: Socket, asked: Arguments) -> None:
    respond(pull, connect(zmq.PUSH, receive(pull).data), asked)


def respond(source: Socket, sink: Socket, asked: Arguments) -> None:
    handle = handlers(asked.workload, asked.params)
    while True:
        message = receive(source)
        if (answer := handle[message.type](message)) is not None:
            send(sink, *answer)


def broadcast(publisher: Socket, asked: Arguments) -> None:
    params = asked.params
    publisher.set(zmq.XPUB_VERBOSE, 1)  # tells of every client that subscribes, not only of the first
    beside, where = listen_beside(asked.address)
    for _ in range(params.clients):
        publisher.recv()
    send(publisher, "here", where)
    receive(beside)
    for _ in range(params.count):
        send(publisher, EVENT, payload(params.size))
    receive(beside)


# --- driving -------------------------------------------------------------------------------------------------------


def drive(asked: Arguments) -> None:
    if asked.workload == "broadcast":
        listen_to(url(asked.address), asked.params)
    elif asked.workload in ("events", "large"):
        push = connect(zmq.PUSH, url(asked.address))
        pull, where = listen_beside(asked.address)
        send(push, "answer", where)
        converse(asked.workload, asked.params, functools.partial(send, push), functools.partial(receive, pull))
    else:
        socket = connect(zmq.REQ if asked.workload == "request" else zmq.DEALER, url(asked.address))
        converse(asked.workload, asked.params, functools.partial(send, socket), functools.partial(receive, socket))


def listen_to(where: str, params: Params) -> None:
    clients = []
    for _ in range(params.clients):
        client = context.socket(zmq.SUB)
        client.set_hwm(0)
        client.subscribe(b"")
        client.connect(where)
        clients.append(client)
    told = [receive(client).data for client in clients]
    beside = connect(zmq.PUSH, told[0])
    hear(params, lambda: send(beside, "go"), [client.recv for client in clients])


def main() -> None:
    asked = arguments()
    (serve if asked.role == "serve" else drive)(asked)


if __name__ == "__main__":
    main()
