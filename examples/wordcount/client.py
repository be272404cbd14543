"""One of several clients: sends its share of the files. It may send faster than the server counts.

Run it as ``python examples/wordcount/client.py ADDRESS SHARE SHARES LIMIT``.
"""

from __future__ import annotations

import sys

import trio

import pyipc
from corpus import read, source_files


async def main(address: str, share: int, shares: int, limit: int) -> None:
    async with pyipc.connect(address) as client:
        for path in source_files(limit)[share::shares]:
            # Waits when the server is behind: nothing piles up on either side, and nothing is dropped.
            await client.emit("file", {"name": str(path), "text": read(path)})
        await client.emit("sent-all")


address, share, shares, limit = sys.argv[1:]
trio.run(main, address, int(share), int(shares), int(limit))
