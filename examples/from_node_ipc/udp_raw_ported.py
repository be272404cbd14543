"""Bytes over UDP, line by line as with node-ipc: a datagram is what was emitted.

(In the idiomatic form UDP is one more address: see raw.py.)
"""

from __future__ import annotations

from typing import Any

import trio

import pyipc
from place import Place, read_command_line
from pyipc.node_ipc import IPC, Socket

DATA = "00ff80c3a90c"


def world(ipc: IPC, place: Place) -> None:
    def started(where: dict[str, Any]) -> None:
        place.say(where["port"])
        ipc.server.on("data", turn_round)

    def turn_round(data: bytes, socket: Socket) -> None:
        print("heard", data.hex())
        ipc.server.emit(socket, data[::-1])
        ipc.server.stop()

    ipc.config.raw_buffer = True
    place.serve(ipc, started)
    ipc.server.start()


def hello(ipc: IPC, place: Place) -> None:
    there = pyipc.parse_address(place.address)

    def started() -> None:
        ipc.server.on("data", answered)
        ipc.server.emit({"address": there.host, "port": there.port}, DATA)

    def answered(data: bytes) -> None:
        print(data.hex())
        ipc.server.stop()

    ipc.config.raw_buffer = True
    ipc.config.encoding = "hex"
    ipc.serve_net(there.host, 0, "udp6" if ":" in there.host else "udp4", started)
    ipc.server.start()


if __name__ == "__main__":
    role, place = read_command_line()
    ipc = place.ipc()
    (world if role == "world" else hello)(ipc, place)
    trio.run(ipc.run)
