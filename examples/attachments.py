"""Files beside messages: ``python examples/attachments.py``.

A client sends pictures, each with its name and the hash by which the server can tell that it arrived whole. The server
answers with a thumbnail. The bytes travel as they are: there is no base64, and nothing is read as text.
"""

from __future__ import annotations

import hashlib
import random

import trio

import pyipc

LIMIT = 16 * 1024 * 1024  # of one message; both sides have to agree
server = pyipc.Server("memory:album", max_attachments_size=LIMIT)
album: dict[str, bytes] = {}


@server.on("add")
def add(message: pyipc.Message[dict[str, str]]) -> pyipc.Attached[dict[str, int]]:
    (picture,) = message.attachments
    if hashlib.sha256(picture).hexdigest() != message.data["sha256"]:
        raise pyipc.Refused("damaged", "the hash is another one")
    album[message.data["name"]] = picture
    return pyipc.Attached({"size": len(picture)}, [thumbnail(picture)])


def thumbnail(picture: bytes) -> bytes:
    return picture[:: len(picture) // 1_000]


async def main() -> None:
    chance = random.Random(7)
    pictures = {f"{name}.jpg": chance.randbytes(size) for name, size in (("cat", 3_000_000), ("dog", 12_000_000))}
    async with server, pyipc.connect("memory:album", max_attachments_size=LIMIT) as client:
        for name, picture in pictures.items():
            about = {"name": name, "sha256": hashlib.sha256(picture).hexdigest()}
            answer = await client.request("add", about, attachments=[picture], result=pyipc.Attached[dict[str, int]])
            (small,) = answer.attachments
            print(f"{name}: {answer.data['size']:,} bytes sent, a thumbnail of {len(small):,} came back")
        try:
            await client.request("add", {"name": "fake.jpg", "sha256": "0"}, attachments=[b"no picture"])
        except pyipc.RemoteError as error:
            print(f"fake.jpg: {error.code}")
        try:
            await client.emit("add", {"name": "whale.jpg"}, attachments=[bytes(20_000_000)])
        except pyipc.MessageTooLarge as error:
            print(f"whale.jpg: {error.size:,} bytes, and the limit is {error.limit:,}")


trio.run(main)
