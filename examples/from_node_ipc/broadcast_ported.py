"""Two clients report to a server, which tells both of them that they may go; line by line as with node-ipc."""

from __future__ import annotations

from typing import Any

import trio

from place import Place, read_command_line
from pyipc.node_ipc import IPC, Socket


def world(ipc: IPC, place: Place) -> None:
    heard: set[str] = set()

    def started(where: dict[str, Any]) -> None:
        place.say(where.get("port", 0))
        ipc.server.on("app.message", note)
        ipc.server.on("socket.disconnected", left)

    def note(data: dict[str, str], socket: Socket) -> None:
        heard.add(socket.id)
        if heard == {"hello", "goodbye"}:
            print("heard", *sorted(heard))
            ipc.server.broadcast("kill.connection", {"id": "world"})

    def left(socket: Socket, id: str) -> None:
        if not ipc.server.sockets:
            ipc.server.stop()

    place.serve(ipc, started)
    ipc.server.start()


def client(ipc: IPC, place: Place) -> None:
    def set_up() -> None:
        ipc.of.world.on("connect", connected)
        ipc.of.world.on("kill.connection", end)

    def connected() -> None:
        ipc.of.world.emit("app.message", {"id": ipc.config.id, "message": f"{ipc.config.id} is here"})

    def end(data: dict[str, str]) -> None:
        print("goodbye,", data["id"])
        ipc.disconnect("world")

    place.connect_to(ipc, "world", set_up)


if __name__ == "__main__":
    role, place = read_command_line()
    ipc = place.ipc()
    ipc.config.id = role
    (world if role == "world" else client)(ipc, place)
    trio.run(ipc.run)
