"""The driver of many connections with plain sockets, for any server: one that sends to all, one that holds still.

What it does itself is cheap, so that the server is what is measured.
"""

from __future__ import annotations

import os
import resource
import selectors
import sys
import time
from typing import TYPE_CHECKING

from common import (
    DELIMITER,
    EVENT,
    Params,
    arguments,
    begin,
    connect,
    decode,
    encode,
    payload,
    report_rate,
)

if TYPE_CHECKING:
    import socket

#: Descriptors that are kept for other things.
SPARE = 100
POLL_INTERVAL = 0.005


def broadcast(address: str, params: Params) -> None:
    """Be there with every client, say go, and count what comes."""
    clients = [connect(address) for _ in range(params.clients)]
    expected = (encode(EVENT, payload(params.size)) + DELIMITER) * params.count
    _greet(clients)
    _tell(clients, expected, params)


def topic(address: str, params: Params) -> None:
    """Subscribe with every client, say go, and count what comes."""
    if params.variant == "broadcast":
        broadcast(address, params)
        return
    clients = [connect(address) for _ in range(params.clients)]
    for client in clients:
        client.sendall(encode("pyipc.subscribe", {"call": 1, "pattern": EVENT}) + DELIMITER)
        answer = client.recv(4_096)
        assert decode(answer.rstrip(DELIMITER)).type == "pyipc.reply", answer
    frame = encode("pyipc.published", {"topic": EVENT, "data": payload(params.size)})
    _greet(clients)
    _tell(clients, (frame + DELIMITER) * params.count, params)


def _greet(clients: list[socket.socket]) -> None:
    for client in clients:
        client.sendall(encode("here", None) + DELIMITER)
        answer = client.recv(4_096)
        assert decode(answer.rstrip(DELIMITER)).type == "here", answer


def _tell(clients: list[socket.socket], expected: bytes, params: Params) -> None:
    """Let the server begin, and report how fast everything has come."""
    begin()
    began = time.perf_counter()
    clients[0].sendall(encode("go", None) + DELIMITER)
    witness = receive_all(clients, params.count)
    seconds = time.perf_counter() - began
    assert witness == expected, "what the first client was sent is not what was to be sent"
    report_rate(params.count * len(clients), seconds)


def receive_all(clients: list[socket.socket], count: int) -> bytes:
    """Wait until every client has ``count`` frames; return what the first was sent."""
    missing = [count] * len(clients)
    witness = bytearray()
    left = len(clients)
    with selectors.DefaultSelector() as selector:
        for index, client in enumerate(clients):
            selector.register(client, selectors.EVENT_READ, index)
        while left:
            for key, _ in selector.select():
                index = key.data
                chunk = clients[index].recv(65_536)
                assert chunk, "the server ended a connection"
                if index == 0:
                    witness += chunk
                missing[index] -= chunk.count(DELIMITER)
                assert missing[index] >= 0, "a client was sent too much"
                if missing[index] == 0:
                    selector.unregister(clients[index])
                    left -= 1
    return bytes(witness)


def idle(address: str, params: Params) -> None:
    """Open connections, and wait until the server has accepted them."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit < params.clients + SPARE:
        sys.exit(f"a process may open {limit:,} files here and this takes {params.clients + SPARE:,} (see ulimit -n)")
    before = descriptors(params.server_pid)
    begin()
    began = time.perf_counter()
    clients = [connect(address) for _ in range(params.clients)]
    while descriptors(params.server_pid) < before + len(clients):
        time.sleep(POLL_INTERVAL)
    report_rate(len(clients), time.perf_counter() - began)


def descriptors(pid: int) -> int:
    """How many files a process has open."""
    place = f"/proc/{pid}/fd"
    # Kernels before 6.2 do not tell the number without listing them.
    return os.stat(place).st_size or len(os.listdir(place))


def main() -> None:
    args = arguments()
    {"broadcast": broadcast, "topic": topic, "idle": idle}[args.workload](args.address, args.params)


if __name__ == "__main__":
    main()
