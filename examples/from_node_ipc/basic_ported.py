"""A question and its answer, line by line as with node-ipc."""

from __future__ import annotations

from typing import Any

import trio

from place import Place, read_command_line
from pyipc.node_ipc import IPC, Socket


def world(ipc: IPC, place: Place) -> None:
    def started(where: dict[str, Any]) -> None:
        place.say(where.get("port", 0))
        ipc.server.on("message", answer)
        ipc.server.on("socket.disconnected", lambda socket, id: ipc.server.stop())

    def answer(data: str, socket: Socket) -> None:
        print("heard", data)
        ipc.server.emit(socket, "message", data + " world!")

    place.serve(ipc, started)
    ipc.server.start()


def hello(ipc: IPC, place: Place) -> None:
    def set_up() -> None:
        ipc.of.world.on("connect", lambda: ipc.of.world.emit("message", "hello"))
        ipc.of.world.on("message", answered)

    def answered(data: str) -> None:
        print(data)
        ipc.disconnect("world")

    place.connect_to(ipc, "world", set_up)


if __name__ == "__main__":
    role, place = read_command_line()
    ipc = place.ipc()
    (world if role == "world" else hello)(ipc, place)
    trio.run(ipc.run)
