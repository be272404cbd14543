"""One of several clients: sends its share of the files. It may send faster than the server counts.

    python examples/wordcount/client.py ADDRESS SHARE SHARES [LIMIT]
"""

from __future__ import annotations

import sys

import trio
from corpus import read, source_files

import pyipc


async def main(address: str, share: int, shares: int, limit: int | None = None) -> None:
    async with pyipc.connect(address) as client:
        for path in source_files(limit)[share::shares]:
            # Waits when the server is behind: nothing piles up on either side, and nothing is dropped.
            await client.emit("file", {"name": str(path), "text": read(path)})
        await client.emit("sent-all")


trio.run(main, sys.argv[1], *map(int, sys.argv[2:]))
