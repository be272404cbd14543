"""One question after the other, each when the last was answered."""

from __future__ import annotations

import trio

import pyipc
from place import Place, read_command_line


async def world(place: Place) -> None:
    server = pyipc.Server(place.endpoint(listens=True))
    gone = trio.Event()

    @server.on("double")
    async def double(message: pyipc.Message[int]) -> int:
        await trio.sleep(0.01)  # it takes its time
        return 2 * message.data

    server.on_disconnect(lambda reason: gone.set())
    async with server:
        place.say(server.addresses[0].port)
        await gone.wait()


async def hello(place: Place) -> None:
    async with pyipc.connect(place.endpoint()) as client:
        for number in range(3):
            print(number, await client.request("double", number))


if __name__ == "__main__":
    role, place = read_command_line()
    trio.run(world if role == "world" else hello, place)
