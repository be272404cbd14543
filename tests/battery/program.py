"""Programs of the battery: in processes of their own, so that what one of them holds or does is nobody else's.

A program and its test talk in lines of JSON: `Program` is the test's side, `told` and `tell` are the program's.
A program ends when its test does, even one that is killed: its standard input ends then.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence

__all__ = ["Program", "needs_processes", "running", "tell", "told"]

ROOT = Path(__file__).resolve().parent.parent.parent
needs_processes = pytest.mark.skipif(
    sys.platform == "win32", reason="cannot run here: needs the signals, sockets and pipes of Unix"
)


class Program:
    """A program that runs; made by `running`.

    Args:
        name: What to call it.
        process: Its process.

    Attributes:
        process: As given.
    """

    def __init__(self, name: str, process: trio.Process) -> None:
        self.process = process
        self._name = name
        self._rest = bytearray()

    async def tell(self, word: object) -> None:
        """Say something to it."""
        assert self.process.stdin is not None
        await self.process.stdin.send_all(json.dumps(word).encode() + b"\n")

    async def next(self) -> Any:
        """The next that it says.

        Raises:
            EOFError: It has ended.
        """
        assert self.process.stdout is not None
        while (end := self._rest.find(b"\n")) < 0:
            chunk = await self.process.stdout.receive_some()
            if not chunk:
                raise EOFError(f"the program {self._name} has ended, or says no more")
            self._rest += chunk
        line = bytes(self._rest[:end])
        del self._rest[: end + 1]
        return json.loads(line)

    async def end(self) -> None:
        """Let it end, and see that it does so without an error."""
        assert self.process.stdin is not None
        await self.process.stdin.aclose()
        status = await self.process.wait()
        assert status == 0, f"the program {self._name} ended with {status}"


@contextlib.asynccontextmanager
async def running(module: str, *arguments: object, inside: Sequence[str] = ()) -> AsyncIterator[Program]:
    """Run a module of the battery for the length of the block; one that has not ended by then is killed.

    Args:
        module: Its name in this package.
        *arguments: What it is given.
        inside: A command that runs another, inside of which it is to run.
    """
    command = [*inside, sys.executable, "-m", f"tests.battery.{module}", *map(str, arguments)]
    process = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
    try:
        yield Program(module, process)
    finally:
        if process.returncode is None:
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            for end in (process.stdin, process.stdout):
                assert end is not None
                await end.aclose()


def tell(word: object) -> None:
    """Say something to the test."""
    print(json.dumps(word), flush=True)


async def told() -> AsyncGenerator[Any, None]:
    """What the test says, until it has no more to say."""
    rest = bytearray()
    async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as stream:
        async for chunk in stream:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                yield json.loads(line)
