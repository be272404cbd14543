"""The server: counts the words of every text it is sent, tells everybody how far it is, answers for the totals.

Run it as ``python examples/wordcount/server.py ADDRESS``.
"""

from __future__ import annotations

import sys
from typing import TypedDict

import trio

import pyipc
from corpus import Tally


class SourceFile(TypedDict):
    name: str
    text: str


tally = Tally()
router = pyipc.Router()
server = pyipc.Server(sys.argv[1], router=router)
stop = trio.Event()


@router.on("file")
async def count(message: pyipc.Message[SourceFile]) -> None:
    tally.add(message.data["text"])
    if tally.files % 20 == 0:
        await server.broadcast("progress", {"files": tally.files})


@router.on("sent-all")
async def client_is_done(_: pyipc.Message[None]) -> None:
    # Events of one connection are handled in order, so all of this client's files are counted by now.
    await server.broadcast("progress", {"files": tally.files})


@router.on("totals")
def totals(_: pyipc.Message[None]) -> dict[str, int]:
    return tally.totals()


@router.on("most-common")
def most_common(message: pyipc.Message[int]) -> list[tuple[str, int]]:
    return tally.words.most_common(message.data)


@router.on("stop")
def stop_serving(_: pyipc.Message[None]) -> None:
    stop.set()


async def main() -> None:
    async with server:
        await stop.wait()


trio.run(main)
