"""Asks a node-ipc server, or any other.

python client.py [address]
"""

from __future__ import annotations

import sys

import trio

import pyipc


async def main() -> None:
    address = sys.argv[1] if len(sys.argv) > 1 else "node-ipc:world"
    async with pyipc.connect(address) as client:
        print(await client.request("greet", {"name": "Ada"}))
        print(await client.request("divide", [1, 4], result=float))
        try:
            await client.request("divide", [1, 0])
        except pyipc.RemoteError as error:
            print(error)
        try:
            await client.request("sing")
        except pyipc.NoHandler:
            print("it does not sing")


if __name__ == "__main__":
    trio.run(main)
