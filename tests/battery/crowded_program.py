"""A server that may have 64 files open, in a process of its own: ``python -m tests.battery.crowded_program ADDRESS``.

It answers ``usage`` with the processor time that it has used, the times that it failed to accept, and what it logged.
"""

from __future__ import annotations

import logging
import os
import resource
import sys
from typing import Any

import trio

import pyipc

FILES = 64


class Lines(logging.Handler):
    """Counts what is logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one line."""
        self.lines.append(record.getMessage())


async def main(address: str) -> None:
    """Serve until the input ends."""
    lines = Lines()
    logging.getLogger("pyipc").addHandler(lines)
    server = pyipc.Server(address)
    server.on("echo", lambda message: message.data)

    @server.on("usage")
    def usage(message: pyipc.Message[Any]) -> dict[str, Any]:
        times, statistics = os.times(), server.statistics()
        return {
            "cpu": times.user + times.system,
            "accept_errors": statistics.accept_errors,
            "accepted": statistics.accepted,
            "lines": lines.lines,
        }

    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))
    async with server:
        print(server.addresses[0], flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
