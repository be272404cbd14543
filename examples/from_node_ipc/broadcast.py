"""Two clients report to a server, which tells both of them that they may go."""

from __future__ import annotations

import functools

import trio

import pyipc
from place import Place, read_command_line


async def world(place: Place) -> None:
    server = pyipc.Server(place.endpoint(listens=True))
    all_gone = trio.Event()
    heard: set[str] = set()

    @server.on("app.message")
    async def note(message: pyipc.Message[dict[str, str]]) -> None:
        heard.add(message.data["id"])
        if heard == {"hello", "goodbye"}:
            print("heard", *sorted(heard))
            await server.broadcast("kill.connection", {"id": "world"})

    @server.on_disconnect
    def left(reason: pyipc.Disconnected) -> None:
        if not server.connections:
            all_gone.set()

    async with server:
        place.say(server.addresses[0].port)
        await all_gone.wait()


async def client(place: Place, name: str) -> None:
    async with pyipc.connect(place.endpoint()) as world, world.expect("kill.connection") as end:
        await world.emit("app.message", {"id": name, "message": f"{name} is here"})
        print("goodbye,", (await end.get()).data["id"])


if __name__ == "__main__":
    role, place = read_command_line()
    trio.run(world if role == "world" else functools.partial(client, name=role), place)
