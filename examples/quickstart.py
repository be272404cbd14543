"""A server and a client in one program: ``python examples/quickstart.py``."""

from __future__ import annotations

import os

import trio

import pyipc

router = pyipc.Router()


@router.on("greet")
async def greet(message: pyipc.Message[dict[str, str]]) -> str:
    await message.connection.emit("news", f"{message.data['name']} is here")
    return f"Hello, {message.data['name']}!"


async def main() -> None:
    address = f"quickstart-{os.getpid()}"
    async with pyipc.Server(address, router=router) as server, pyipc.connect(address) as client:
        news = client.events("news")
        print(await client.request("greet", {"name": "Ada"}, timeout=5))
        print("news:", (await news.get(timeout=5)).data)
        report = await server.broadcast("news", "that is all")
        print("told to", report.sent, "client:", (await news.get(timeout=5)).data)


trio.run(main)
