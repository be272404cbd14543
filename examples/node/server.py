"""Answers node-ipc programs, and any other client.

python server.py [address]
"""

from __future__ import annotations

import sys
from typing import TypedDict

import trio

import pyipc

router = pyipc.Router()


class Person(TypedDict):
    name: str


@router.on("greet")
def greet(message: pyipc.Message[Person]) -> str:
    return f"Hello, {message.data['name']}!"


async def main() -> None:
    address = sys.argv[1] if len(sys.argv) > 1 else "node-ipc:world"
    async with pyipc.Server(address, router=router):
        print("listening", flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main)
