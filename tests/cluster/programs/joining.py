"""Joins, and ends with code 3 and the error on standard output if that goes wrong."""

from __future__ import annotations

import sys

import trio

from pyipc import cluster


async def main() -> None:
    async with cluster.join():
        pass


if __name__ == "__main__":
    try:
        trio.run(main)
    except cluster.ClusterError as error:
        print(error, file=sys.stderr)
        sys.exit(3)
