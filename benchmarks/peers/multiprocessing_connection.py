"""``multiprocessing.connection``: blocking ``send`` and ``recv`` of tuples, put in and out by pickle, not JSON.

Whoever may connect can have anything run here: that is pickle. Requests have numbers, so that one thread keeps many of
them on their way. Over TCP the module leaves Nagle's algorithm on. There is no ``idle``: a server has a thread for each
connection, and ten thousand threads are no measurement of connections.
"""

from __future__ import annotations

import pickle
import selectors
import time
from multiprocessing.connection import Client, Listener
from typing import Any

from common import EVENT, Arguments, Envelope, Params, arguments, begin, payload, ready, report_rate, target
from conversation import check, converse, handlers

#: Its type has another number of parameters in each version of Python.
Connection = Any


def receive(connection: Connection) -> Envelope:
    return Envelope(*connection.recv())


# --- serving -------------------------------------------------------------------------------------------------------


def serve(asked: Arguments) -> None:
    with Listener(target(asked.address), backlog=4_096) as listener:
        where = listener.address
        ready(asked.address if isinstance(where, str) else f"tcp:{where[0]}:{where[1]}")
        if asked.workload == "broadcast":
            broadcast([listener.accept() for _ in range(asked.params.clients)], asked.params)
        else:
            answer(listener.accept(), asked)


def answer(connection: Connection, asked: Arguments) -> None:
    handle = handlers(asked.workload, asked.params)
    while True:
        message = receive(connection)
        if (answer := handle[message.type](message)) is not None:
            connection.send(answer)


def broadcast(clients: list[Connection], params: Params) -> None:
    for client in clients:
        client.send(("here",))
    check(receive(clients[0]).type, "go")
    for _ in range(params.count):
        pickled = pickle.dumps((EVENT, payload(params.size)))
        for client in clients:
            client.send_bytes(pickled)
    clients[0].recv()


# --- driving -------------------------------------------------------------------------------------------------------


def drive(asked: Arguments) -> None:
    if asked.workload == "broadcast":
        hear([Client(target(asked.address)) for _ in range(asked.params.clients)], asked.params)
    connection = Client(target(asked.address))

    def send(event: str, data: object = None, call: int = 0) -> None:
        connection.send((event, data, call))

    converse(asked.workload, asked.params, send, lambda: receive(connection))


def hear(clients: list[Connection], params: Params) -> None:
    expected = pickle.dumps((EVENT, payload(params.size)))
    with selectors.DefaultSelector() as selector:
        for client in clients:
            check(receive(client).type, "here")
            selector.register(client, selectors.EVENT_READ, client)
        begin()
        began = time.perf_counter()
        clients[0].send(("go",))
        left = params.count * params.clients
        while left:
            for key, _ in selector.select():
                check(key.data.recv_bytes(), expected)
                left -= 1
        report_rate(params.count * params.clients, time.perf_counter() - began)


def main() -> None:
    asked = arguments()
    (serve if asked.role == "serve" else drive)(asked)


if __name__ == "__main__":
    main()
