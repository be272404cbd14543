"""The floor of all: blocking sockets, one process a side, msgspec, and nothing that could be left out.

A request or answer is taken to arrive in one piece, as small ones do. A large message has a length that both sides
know, and its receiver reads it into memory that is there already: encode, copy, decode. A broadcast is encoded once
and handed to one socket after the other; nobody may be slow. It can serve one client, or many that say little. TLS is
the standard library's.
"""

from __future__ import annotations

import selectors
import socket
import time
from typing import TYPE_CHECKING, Any

from common import (
    DELIMITER,
    EVENT,
    Arguments,
    Frames,
    Params,
    arguments,
    begin,
    blob,
    client_context,
    connect,
    decode,
    encode,
    host,
    listen,
    payload,
    ready,
    report_laps,
    report_rate,
    server_context,
    warm_up,
)

if TYPE_CHECKING:
    from collections.abc import Callable

#: Bytes of events that are collected for one write.
BATCH_SIZE = 65_536


# --- the server ---


def serve_requests(sock: socket.socket, params: Params) -> None:
    handlers: dict[str, Callable[[Any], Any]] = {EVENT: lambda data: data}
    while frame := sock.recv(65_536):
        request = decode(frame[:-1])
        sock.sendall(encode(request.type, handlers[request.type](request.data)) + DELIMITER)


def serve_events(sock: socket.socket, params: Params) -> None:
    seen = 0

    def tick(data: Any) -> None:
        nonlocal seen
        seen += 1

    handlers: dict[str, Callable[[Any], None]] = {EVENT: tick}
    frames = Frames()
    while chunk := sock.recv(65_536):
        for frame in frames.cut(chunk):
            event = decode(frame)
            handlers[event.type](event.data)
        if seen == params.count:
            sock.sendall(encode("done", seen) + DELIMITER)


def serve_large(sock: socket.socket, params: Params) -> None:
    handlers: dict[str, Callable[[Any], int]] = {EVENT: lambda data: len(data["s"])}
    buffer = bytearray(params.size)
    while True:
        view = memoryview(buffer)
        while view:
            received = sock.recv_into(view)
            if not received:
                return
            view = view[received:]
        event = decode(buffer)
        sock.sendall(encode("done", handlers[event.type](event.data)) + DELIMITER)


def serve_bytes(sock: socket.socket, params: Params) -> None:
    while True:
        buffer = bytearray(params.size)
        view = memoryview(buffer)
        while view:
            received = sock.recv_into(view)
            if not received:
                return
            view = view[received:]
        sock.sendall(encode("done", len(bytes(buffer))) + DELIMITER)


def serve_crowd(listener: socket.socket, params: Params) -> None:
    """Broadcast to many, or just hold them."""
    clients: list[socket.socket] = []

    def go() -> None:
        for _ in range(params.count):
            frame = encode(EVENT, payload(params.size)) + DELIMITER
            for client in clients:
                client.sendall(frame)

    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is listener:
                    client, _ = listener.accept()
                    clients.append(client)
                    selector.register(client, selectors.EVENT_READ)
                    continue
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                chunk = sock.recv(4_096)
                if not chunk:
                    selector.unregister(sock)
                    continue
                for frame in chunk.split(DELIMITER)[:-1]:
                    if decode(frame).type == "go":
                        go()
                    else:
                        sock.sendall(encode("here", None) + DELIMITER)


SERVE = {"request": serve_requests, "events": serve_events, "large": serve_large, "bytes": serve_bytes}


def serve(args: Arguments) -> None:
    with listen(args.address) as listener:
        ready(args.address, listener)
        if args.workload in SERVE:
            sock, _ = listener.accept()
            if context := server_context(args.address):
                sock = context.wrap_socket(sock, server_side=True)
            SERVE[args.workload](sock, args.params)
        else:
            serve_crowd(listener, args.params)


# --- the driver ---


def drive_requests(sock: socket.socket, params: Params) -> None:
    def request(data: Any) -> Any:
        sock.sendall(encode(EVENT, data) + DELIMITER)
        return decode(sock.recv(65_536)[:-1]).data

    data, laps = payload(params.size), []
    for _ in range(warm_up(params.count)):
        request(data)
    begin()
    for _ in range(params.count):
        began = time.perf_counter()
        answered = request(data)
        laps.append(time.perf_counter() - began)
        assert answered == data
    report_laps(laps)


def drive_events(sock: socket.socket, params: Params) -> None:
    data = payload(params.size)
    begin()
    began = time.perf_counter()
    batch = bytearray()
    for _ in range(params.count):
        batch += encode(EVENT, data) + DELIMITER
        if len(batch) >= BATCH_SIZE:
            sock.sendall(batch)
            batch.clear()
    sock.sendall(batch)
    done = decode(sock.recv(65_536)[:-1])
    seconds = time.perf_counter() - began
    assert done.data == params.count
    report_rate(params.count, seconds)


def drive_large(sock: socket.socket, params: Params) -> None:
    data, laps = payload(params.size), []
    begin()
    for _ in range(params.count):
        began = time.perf_counter()
        sock.sendall(encode(EVENT, data))
        done = decode(sock.recv(65_536)[:-1])
        laps.append(time.perf_counter() - began)
        assert done.data == len(data["s"])
    report_laps(laps)


def drive_bytes(sock: socket.socket, params: Params) -> None:
    data, laps = blob(params.size), []
    begin()
    for _ in range(params.count):
        began = time.perf_counter()
        sock.sendall(data)
        done = decode(sock.recv(65_536)[:-1])
        laps.append(time.perf_counter() - began)
        assert done.data == len(data)
    report_laps(laps)


DRIVE = {"request": drive_requests, "events": drive_events, "large": drive_large, "bytes": drive_bytes}


def main() -> None:
    args = arguments()
    if args.role == "serve":
        serve(args)
    else:
        sock = connect(args.address)
        if context := client_context(args.address):
            sock = context.wrap_socket(sock, server_hostname=host(args.address))
        with sock:
            DRIVE[args.workload](sock, args.params)


if __name__ == "__main__":
    main()
