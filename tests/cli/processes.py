"""The real ``pyipc`` in processes of its own, with bounds on every wait."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from tests.conftest import CANNOT_RUN, is_wine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

__all__ = ["PATIENCE", "PYIPC", "ROOT", "SCRIPT", "Program", "Result", "eventually", "needs_script", "run", "start"]

ROOT = Path(__file__).resolve().parent.parent.parent
#: The command line, with every warning an error.
PYIPC = (sys.executable, "-W", "error", "-m", "pyipc")
#: The command as it is installed, beside the interpreter.
SCRIPT = Path(sys.executable).with_name("pyipc.exe" if sys.platform == "win32" else "pyipc")
#: For tests of it.
needs_script = pytest.mark.skipif(is_wine(), reason=f"{CANNOT_RUN} nothing is installed under Wine")
#: Seconds that anything a process does may take on a busy machine.
PATIENCE = 25.0


@dataclasses.dataclass(frozen=True)
class Result:
    """How a program ended and what it said."""

    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """The lines of its output."""
        return self.out.splitlines()


class Program:
    """A program that runs. Made by `start`, which ends it.

    Attributes:
        process: The process.
        out: All that it wrote to stdout so far.
        err: The same for stderr.
    """

    def __init__(self, process: trio.Process, patience: float = PATIENCE) -> None:
        self.process = process
        self._patience = patience
        self.out = b""
        self.err = b""
        self._news = trio.Condition()
        self._open = 2

    async def line(self, pattern: str, *, stream: str = "out", count: int = 1) -> re.Match[str]:
        """Wait for a whole line in which the pattern is found; for the ``count``-th of them."""
        found: list[re.Match[str]] = []

        def look() -> bool:
            *whole, _ = _text(getattr(self, stream)).split("\n")
            found[:] = [match for line in whole if (match := re.search(pattern, line))]
            return len(found) >= count

        await self.until(look, f"{count} lines like {pattern!r} on {stream}")
        return found[count - 1]

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until something is true of what it wrote."""
        with trio.move_on_after(self._patience):
            async with self._news:
                while not condition() and self._open:
                    await self._news.wait()
        assert condition(), f"{what} did not come\n{self._story()}"

    async def listening(self) -> str:
        """Wait until a server listens; its address."""
        return (await self.line(r"listening on (\S+)$", stream="err"))[1]

    async def write(self, text: str) -> None:
        """Give it input."""
        assert self.process.stdin is not None
        await self.process.stdin.send_all(text.encode())

    async def close_stdin(self) -> None:
        """Give it no more input."""
        assert self.process.stdin is not None
        await self.process.stdin.aclose()

    async def finish(self) -> Result:
        """Wait until it has ended."""
        with trio.move_on_after(self._patience) as scope:
            status = await self.process.wait()
            async with self._news:
                while self._open:
                    await self._news.wait()
        assert not scope.cancelled_caught, f"it did not end\n{self._story()}"
        return Result(status, _text(self.out), _text(self.err))

    async def interrupt(self, number: int = signal.SIGINT) -> Result:
        """Send it a signal, and wait until it has ended."""
        self.process.send_signal(number)
        return await self.finish()

    async def read(self, name: str, stream: trio.abc.ReceiveStream) -> None:
        """Collect what it writes until it writes no more."""
        async for chunk in stream:
            async with self._news:
                setattr(self, name, getattr(self, name) + chunk)
                self._news.notify_all()
        async with self._news:
            self._open -= 1
            self._news.notify_all()

    def _story(self) -> str:
        return f"{self.process.args!r}: {self.process.returncode}\nstdout: {self.out!r}\nstderr: {self.err!r}"


def _text(output: bytes) -> str:
    """What a program wrote, with lines that end as Python's do."""
    return output.decode("utf-8", "surrogateescape").replace(os.linesep, "\n")


@asynccontextmanager
async def start(
    *arguments: str | os.PathLike[str],
    command: Sequence[str | os.PathLike[str]] = PYIPC,
    env: Mapping[str, str] | None = None,
    stdin: int = subprocess.PIPE,
    stdout: int = subprocess.PIPE,
    cwd: Path | None = None,
    pass_fds: Sequence[int] = (),
    patience: float = PATIENCE,
) -> AsyncIterator[Program]:
    """Run ``pyipc`` with these arguments; at the end of the block it is killed if it has not ended.

    Args:
        *arguments: Of the command line.
        command: Another program.
        env: Environment variables beside those of this process.
        stdin: As for `subprocess.Popen`; a pipe by default.
        stdout: The same.
        cwd: The directory it runs in.
        pass_fds: Descriptors that it inherits under their numbers.
        patience: Seconds that anything it does may take.
    """
    process = await trio.lowlevel.open_process(
        [os.fspath(word) for word in (*command, *arguments)],
        stdin=stdin,
        stdout=stdout,
        stderr=subprocess.PIPE,
        cwd=cwd,
        env=environment(env),
        pass_fds=pass_fds,
    )
    program = Program(process, patience)
    try:
        async with trio.open_nursery() as nursery:
            assert process.stderr is not None
            nursery.start_soon(program.read, "err", process.stderr)
            if process.stdout is not None:
                nursery.start_soon(program.read, "out", process.stdout)
            else:
                program._open -= 1
            yield program
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            process.kill()
            await process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    await trio.aclose_forcefully(stream)


async def run(
    *arguments: str | os.PathLike[str],
    command: Sequence[str | os.PathLike[str]] = PYIPC,
    input: str | bytes = b"",
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Result:
    """Run ``pyipc`` with these arguments and this input to its end."""
    async with start(*arguments, command=command, env=env, cwd=cwd) as program:
        assert program.process.stdin is not None
        with contextlib.suppress(trio.BrokenResourceError):  # it may end without reading all
            await program.process.stdin.send_all(input if isinstance(input, bytes) else input.encode())
        await program.close_stdin()
        return await program.finish()


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for a program of the tests: this repository's pyipc, and UTF-8."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", "PYTHONUNBUFFERED": "", **(more or {})}


async def eventually(condition: Callable[[], object], what: str = "it") -> None:
    """Wait until ``condition()`` is true; for what another process causes and nothing here announces."""
    with trio.move_on_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 - another process sets no event here
            await trio.sleep(0.01)
    assert condition(), f"{what} did not happen within {PATIENCE:g} s"
