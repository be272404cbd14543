"""Bytes as they are, with node-ipc's ``rawBuffer``."""

from __future__ import annotations

from typing import Any

import trio

from place import Place, read_command_line
from pyipc.node_ipc import IPC, Socket

DATA = "00ff80c3a90c"


def world(ipc: IPC, place: Place) -> None:
    def started(where: dict[str, Any]) -> None:
        place.say(where.get("port", 0))
        ipc.server.on("data", turn_round)
        ipc.server.on("socket.disconnected", lambda socket, id: ipc.server.stop())

    def turn_round(data: bytes, socket: Socket) -> None:
        print("heard", data.hex())
        ipc.server.emit(socket, data[::-1])

    ipc.config.raw_buffer = True
    place.serve(ipc, started)
    ipc.server.start()


def hello(ipc: IPC, place: Place) -> None:
    received = bytearray()

    def set_up() -> None:
        ipc.of.world.on("connect", lambda: ipc.of.world.emit(DATA))
        ipc.of.world.on("data", answered)

    def answered(data: bytes) -> None:
        received.extend(data)
        if len(received) == len(DATA) // 2:  # a stream may divide the bytes as it likes
            print(received.hex())
            ipc.disconnect("world")

    ipc.config.raw_buffer = True
    ipc.config.encoding = "hex"
    place.connect_to(ipc, "world", set_up)


if __name__ == "__main__":
    role, place = read_command_line()
    ipc = place.ipc()
    (world if role == "world" else hello)(ipc, place)
    trio.run(ipc.run)
