"""A question and its answer, over any transport."""

from __future__ import annotations

import trio

import pyipc
from place import Place, read_command_line


async def world(place: Place) -> None:
    server = pyipc.Server(place.endpoint(listens=True))
    gone = trio.Event()

    @server.on("greet")
    def greet(message: pyipc.Message[str]) -> str:
        print("heard", message.data)
        return f"{message.data} world!"

    server.on_disconnect(lambda reason: gone.set())
    async with server:
        place.say(server.addresses[0].port)
        await gone.wait()


async def hello(place: Place) -> None:
    async with pyipc.connect(place.endpoint()) as client:
        print(await client.request("greet", "hello"))


if __name__ == "__main__":
    role, place = read_command_line()
    trio.run(world if role == "world" else hello, place)
