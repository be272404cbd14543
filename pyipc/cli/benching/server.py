"""The other end of ``pyipc bench``, in a process of its own: ``python -m pyipc.cli.benching.server``.

It says on stdout where it listens, and ends with its standard input, so that it does not outlive
whoever started it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trio

import pyipc
from pyipc.cli.benching.workload import ECHO, EVENT, REQUEST
from pyipc.cli.exits import ExitCode, Failed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["make_server", "serve", "start"]

#: Seconds that it may take to start and to end.
_START_TIMEOUT: Final = 20.0
_STOP_TIMEOUT: Final = 5.0

_PREFIX: Final = "pyipc-bench-"
#: Bytes of a socket's path that every system takes.
_PATH_LIMIT: Final = 103
#: Where the package lies that runs now.
_HOME: Final = Path(pyipc.__file__).parent.parent


def make_server(address: str, max_frame_size: int) -> pyipc.Server:
    """A server that does what is measured, and nothing else.

    Args:
        address: Where.
        max_frame_size: Bytes of the largest message.
    """
    server = pyipc.Server(address, max_frame_size=max_frame_size)

    @server.on(REQUEST)
    def answer(message: pyipc.Message[Any]) -> Any:
        return message.data

    @server.on(EVENT)
    def swallow(message: pyipc.Message[Any]) -> None:
        return None

    @server.on(ECHO)
    async def send_back(message: pyipc.Message[Any]) -> None:
        await message.connection.emit(ECHO, message.data)

    return server


async def serve(address: str, max_frame_size: int) -> None:
    """Serve until standard input ends.

    Cancellation: closes at once.
    """
    server = make_server(address, max_frame_size)
    async with server:
        print(*server.addresses, flush=True)  # noqa: T201 - for the process that waits for it
        await trio.to_thread.run_sync(sys.stdin.buffer.read, abandon_on_cancel=True)


@asynccontextmanager
async def start(max_frame_size: int) -> AsyncIterator[str]:
    """A block in which such a process runs, on a socket of its own; gives its address.

    Raises:
        Failed: It does not start.

    Cancellation: ends the process.
    """
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=_short_place()) as directory:
        address = "tcp://127.0.0.1:0" if sys.platform == "win32" else f"unix:{directory}/s"
        process = await trio.lowlevel.open_process(
            # Without -P, what lies in the current directory would come before what is installed, and be run.
            [sys.executable, "-P", "-m", __spec__.name, address, str(max_frame_size)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_environment(),
            # Ctrl-C is for the measurement, which has to end first.
            start_new_session=True,
        )
        try:
            yield await _first_line(process)
        finally:
            with trio.CancelScope(shield=True):
                await _stop(process)


def _short_place() -> str | None:
    """Where a socket may lie: ``None`` for the usual place, unless paths there are too long for one."""
    usual = os.path.join(tempfile.gettempdir(), f"{_PREFIX}12345678", "s")
    return None if sys.platform == "win32" or len(os.fsencode(usual)) <= _PATH_LIMIT else "/tmp"


def _environment() -> dict[str, str]:
    """That of this process; and pyipc is found where it is now, even if that is the current directory."""
    paths = [str(_HOME), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


async def _first_line(process: trio.Process) -> str:
    assert process.stdout is not None
    said = b""
    with trio.move_on_after(_START_TIMEOUT):
        while not said.endswith(b"\n"):
            chunk = await process.stdout.receive_some()
            if not chunk:
                break
            said += chunk
    if not said.endswith(b"\n"):
        raise Failed(ExitCode.UNREACHABLE, "the server to measure with did not start; try with one of your own")
    return said.decode().strip()


async def _stop(process: trio.Process) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    await process.stdin.aclose()
    with trio.move_on_after(_STOP_TIMEOUT):
        await process.wait()
    process.kill()  # does nothing to one that has ended
    await process.wait()
    await process.stdout.aclose()


if __name__ == "__main__":
    # Where a new session is not enough, as on Windows.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    trio.run(serve, sys.argv[1], int(sys.argv[2]))
