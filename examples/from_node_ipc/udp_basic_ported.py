"""A question and its answer over UDP, line by line as with node-ipc: each side is a server, and emits to an address.

(In the idiomatic form UDP is one more address: see basic.py.)
"""

from __future__ import annotations

from typing import Any

import trio

import pyipc
from place import Place, read_command_line
from pyipc.node_ipc import IPC, Socket


def world(ipc: IPC, place: Place) -> None:
    def started(where: dict[str, Any]) -> None:
        place.say(where["port"])
        ipc.server.on("message", answer)

    def answer(data: str, socket: Socket) -> None:
        print("heard", data)
        ipc.server.emit(socket, "message", data + " world!")
        ipc.server.stop()

    place.serve(ipc, started)
    ipc.server.start()


def hello(ipc: IPC, place: Place) -> None:
    there = pyipc.parse_address(place.address)

    def started() -> None:
        ipc.server.on("message", answered)
        ipc.server.emit({"address": there.host, "port": there.port}, "message", "hello")

    def answered(data: str) -> None:
        print(data)
        ipc.server.stop()

    ipc.serve_net(there.host, 0, "udp6" if ":" in there.host else "udp4", started)
    ipc.server.start()


if __name__ == "__main__":
    role, place = read_command_line()
    ipc = place.ipc()
    (world if role == "world" else hello)(ipc, place)
    trio.run(ipc.run)
