"""The server of topics for node-ipc programs, and any other client; it answers what they publish.

python topics.py [address]
"""

from __future__ import annotations

import sys

import trio

import pyipc


async def main() -> None:
    address = sys.argv[1] if len(sys.argv) > 1 else "node-ipc:world"
    async with pyipc.Server(address) as server, server.subscribe("orders.new") as orders:
        await server.publish("state.shop", "open", retain=True)
        print("listening", flush=True)
        async for message in orders:
            await server.publish("orders.done", message.data)


if __name__ == "__main__":
    trio.run(main)
