"""Two programs report to a third over UDP, which tells both that they may go; line by line as with node-ipc.

There, a broadcast over UDP reaches nobody; here it reaches everybody that something has come from.
(In the idiomatic form UDP is one more address: see broadcast.py.)
"""

from __future__ import annotations

from typing import Any

import trio

import pyipc
from place import Place, read_command_line
from pyipc.node_ipc import IPC


def world(ipc: IPC, place: Place) -> None:
    heard: set[str] = set()

    def started(where: dict[str, Any]) -> None:
        place.say(where["port"])
        ipc.server.on("app.message", note)

    def note(data: dict[str, str]) -> None:
        heard.add(data["id"])
        if heard == {"hello", "goodbye"}:
            print("heard", *sorted(heard))
            ipc.server.broadcast("kill.connection", {"id": "world"})
            ipc.server.stop()

    place.serve(ipc, started)
    ipc.server.start()


def client(ipc: IPC, place: Place) -> None:
    there = pyipc.parse_address(place.address)

    def started() -> None:
        ipc.server.on("kill.connection", end)
        report = {"id": ipc.config.id, "message": f"{ipc.config.id} is here"}
        ipc.server.emit({"address": there.host, "port": there.port}, "app.message", report)

    def end(data: dict[str, str]) -> None:
        print("goodbye,", data["id"])
        ipc.server.stop()

    ipc.serve_net(there.host, 0, "udp6" if ":" in there.host else "udp4", started)
    ipc.server.start()


if __name__ == "__main__":
    role, place = read_command_line()
    ipc = place.ipc()
    ipc.config.id = role
    (world if role == "world" else client)(ipc, place)
    trio.run(ipc.run)
