"""The other side in a process of its own, for tests of who that is: ``python -m tests.conformance.stranger``.

It calls the server of a test, says its process id and where it listens itself, and stays until it is ended.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import trio

import pyipc
from tests.cli.processes import start
from tests.conformance.subjects import SUBJECTS

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from tests.cli.processes import Program
    from tests.conformance.subjects import Subject

__all__ = ["invite"]


def invite(subject: Subject, server: pyipc.Server) -> AbstractAsyncContextManager[Program]:
    """Start the process, which sends the request ``stranger`` to a server, with its process id and its address."""
    folder = subject.folder / "stranger"
    folder.mkdir()
    command = (sys.executable, "-m", "tests.conformance.stranger")
    return start(subject.name, folder, str(server.addresses[0]), command=command)


async def main(name: str, folder: str, address: str) -> None:
    subject = SUBJECTS[name](Path(folder))
    server = pyipc.Server(subject.server_endpoint())
    async with server, pyipc.connect(subject.client_endpoint(pyipc.parse_address(address))) as client:
        await client.request("stranger", [os.getpid(), str(server.addresses[0])])
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2], sys.argv[3])
