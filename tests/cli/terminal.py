"""The real ``pyipc`` in a pseudo-terminal, with the screen that a person would see."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from tests.cli.processes import PATIENCE, PYIPC, environment
from tests.conftest import CANNOT_RUN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from pathlib import Path

    import pyte.screens

__all__ = ["Terminal", "start_in_terminal", "without_rich"]


class Terminal:
    """A program and its screen. Made by `start_in_terminal`, which ends the program.

    Attributes:
        screen: What is on it, character by character, with colors.
        process: The program.
        raw: Every byte that the terminal was sent.
    """

    def __init__(self, process: trio.Process, master: trio.lowlevel.FdStream, columns: int, rows: int) -> None:
        import pyte

        self.process = process
        self.screen = pyte.HistoryScreen(columns, rows)
        self.raw = b""
        self._stream = pyte.ByteStream(self.screen)
        self._master = master
        self._news = trio.Condition()
        self._ended = False

    @property
    def lines(self) -> list[str]:
        """The lines on the screen, without the space at their ends."""
        return [line.rstrip() for line in self.screen.display]

    @property
    def text(self) -> str:
        """The screen as text."""
        return "\n".join(self.lines).rstrip()

    async def shows(self, text: str) -> None:
        """Wait until the screen shows this text."""
        await self.until(lambda: text in self.text, f"{text!r} on the screen")

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until something is true of the screen."""
        with trio.move_on_after(PATIENCE):
            async with self._news:
                while not condition() and not self._ended:
                    await self._news.wait()
        assert condition(), f"{what} did not come; the screen:\n{self.text}"

    async def type(self, keys: str) -> None:
        """Type on the keyboard; ``"\\x03"`` is Ctrl-C."""
        await self._master.send_all(keys.encode())

    async def finish(self) -> int:
        """Wait until the program has ended; its exit status."""
        with trio.move_on_after(PATIENCE):
            async with self._news:
                while not self._ended:
                    await self._news.wait()
            return await self.process.wait()
        pytest.fail(f"it did not end; the screen:\n{self.text}")

    async def hang_up(self) -> None:
        """Close the terminal."""
        await self._master.aclose()

    def style(self, text: str) -> pyte.screens.Char:
        """The first character of this text on the screen, with its style."""
        for number, line in enumerate(self.screen.display):
            if text in line:
                return self.screen.buffer[number][line.index(text)]
        pytest.fail(f"no {text!r} on the screen:\n{self.text}")

    async def read(self) -> None:
        """Show what the program writes until it has ended."""
        while True:
            try:
                data = await self._master.receive_some(65536)
            except (trio.BrokenResourceError, trio.ClosedResourceError):  # Linux: nobody has the other side any more
                data = b""
            async with self._news:
                self._ended = not data
                self.raw += data
                self._stream.feed(data)
                self._news.notify_all()
            if not data:
                return


@asynccontextmanager
async def start_in_terminal(
    *arguments: str | os.PathLike[str],
    command: Sequence[str] = PYIPC,
    env: Mapping[str, str] | None = None,
    columns: int = 100,
    rows: int = 30,
) -> AsyncIterator[Terminal]:
    """Run ``pyipc`` in a terminal of its own; at the end of the block it is killed if it has not ended."""
    if sys.platform == "win32":
        pytest.skip(f"{CANNOT_RUN} there are no pseudo-terminals")
    import fcntl
    import pty
    import struct
    import termios

    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    variables = {"TERM": "xterm-256color", "COLUMNS": "", "LINES": "", "NO_COLOR": "", **(env or {})}
    process = await trio.lowlevel.open_process(
        [*command, *(os.fspath(argument) for argument in arguments)],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={name: value for name, value in environment(variables).items() if value},
        start_new_session=True,
        # So that Ctrl-C typed there becomes a signal.
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(slave)
    stream = trio.lowlevel.FdStream(master)
    terminal = Terminal(process, stream, columns, rows)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(terminal.read)
            yield terminal
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            process.kill()
            await process.wait()
            await stream.aclose()


def without_rich(directory: Path) -> dict[str, str]:
    """Environment variables with which rich cannot be imported."""
    (directory / "rich.py").write_text('raise ImportError("rich is not installed here")\n', "utf-8")
    path = os.pathsep.join((str(directory), environment()["PYTHONPATH"]))
    found = subprocess.run(
        [sys.executable, "-c", "import rich"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert found.returncode != 0, "rich can be imported all the same"
    return {"PYTHONPATH": path}
