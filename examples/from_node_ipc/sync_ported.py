"""One question after the other with node-ipc's ``sync``: what is emitted waits until something has come in."""

from __future__ import annotations

from typing import Any

import trio

from place import Place, read_command_line
from pyipc.node_ipc import IPC, Socket


def world(ipc: IPC, place: Place) -> None:
    def started(where: dict[str, Any]) -> None:
        place.say(where.get("port", 0))
        ipc.server.on("double", answer)
        ipc.server.on("socket.disconnected", lambda socket, id: ipc.server.stop())

    async def answer(data: int, socket: Socket) -> None:
        await trio.sleep(0.01)  # it takes its time
        ipc.server.emit(socket, "doubled", [data, 2 * data])

    place.serve(ipc, started)
    ipc.server.start()


def hello(ipc: IPC, place: Place) -> None:
    def set_up() -> None:
        ipc.of.world.on("connect", connected)
        ipc.of.world.on("doubled", answered)

    def connected() -> None:
        for number in range(3):
            ipc.of.world.emit("double", number)

    def answered(data: list[int]) -> None:
        print(*data)
        if data[0] == 2:
            ipc.disconnect("world")

    ipc.config.sync = True
    place.connect_to(ipc, "world", set_up)


if __name__ == "__main__":
    role, place = read_command_line()
    ipc = place.ipc()
    (world if role == "world" else hello)(ipc, place)
    trio.run(ipc.run)
