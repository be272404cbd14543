"""Bytes as they are, without frames."""

from __future__ import annotations

import trio

import pyipc
from place import Place, read_command_line

DATA = bytes.fromhex("00ff80c3a90c")


async def world(place: Place) -> None:
    server = pyipc.Server(place.endpoint(pyipc.Raw(), listens=True))
    done = trio.Event()

    @server.on("data")
    async def turn_round(message: pyipc.Message[bytes]) -> None:
        print("heard", message.data.hex())
        await message.connection.emit("data", message.data[::-1])
        done.set()

    async with server:
        place.say(server.addresses[0].port)
        await done.wait()


async def hello(place: Place) -> None:
    async with pyipc.connect(place.endpoint(pyipc.Raw())) as client, client.expect("data") as answer:
        await client.emit("data", DATA)
        received = b""
        while len(received) < len(DATA):  # a stream may divide the bytes as it likes
            received += (await answer.get()).data
        print(received.hex())


if __name__ == "__main__":
    role, place = read_command_line()
    trio.run(world if role == "world" else hello, place)
