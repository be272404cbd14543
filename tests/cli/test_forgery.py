"""What a peer says never becomes a line of its own, which would pass for one that ``pyipc`` wrote itself."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

import pyipc
from pyipc.cli.main import LineFormatter
from pyipc.cli.showing.text import Lines, printable
from tests.cli.processes import PATIENCE, eventually, run, start
from tests.conftest import CANNOT_RUN
from tests.interop.node import Place

if TYPE_CHECKING:
    from tests.cli.processes import Result

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason=f"{CANNOT_RUN} there are no Unix sockets")
only_linux = pytest.mark.skipif(sys.platform != "linux", reason=f"{CANNOT_RUN} /proc tells what a process is")

FORGERY = "well\nFORGED\tline\u2028FORGED"
#: How it is shown: escaped, or with marks for what the library has taken out already.
HARMLESS = (r"well\nFORGED\tline\u2028FORGED", "well\ufffdFORGED\ufffdline\ufffdFORGED")
FORGERY_AS_CODE = f"'''{FORGERY}'''"


def frame(kind: str, **data: Any) -> bytes:
    return json.dumps({"type": kind, "data": data}).encode() + b"\f"


HELLO = frame("pyipc.hello", versions=[1])


def no_line_is_forged(result: Result) -> None:
    both = result.out + result.err
    assert any(harmless in both for harmless in HARMLESS)
    assert not [line for line in both.splitlines() if line.startswith("FORGED")], both


async def test_by_a_goodbye_to_a_server(address: str) -> None:
    async with start("serve", address) as server:
        await server.listening()
        async with await trio.open_unix_socket(address.removeprefix("unix:")) as stream:
            await stream.send_all(HELLO + frame("pyipc.goodbye", code="bye", message=FORGERY))
            await server.line("#1  disconnected  ")
        result = await server.interrupt()
    no_line_is_forged(result)


async def test_by_the_name_of_an_event(address: str) -> None:
    async with start("serve", address) as server:
        await server.listening()
        async with await trio.open_unix_socket(address.removeprefix("unix:")) as stream:
            await stream.send_all(frame(FORGERY))
            await server.line("event ")
        result = await server.interrupt()
    no_line_is_forged(result)


async def test_by_a_server_that_is_listened_to(address: str) -> None:
    """In what is logged, and in the note that the connection has ended."""
    with trio.fail_after(2 * PATIENCE):
        async with start("listen", address, "-v", "--connect-timeout", "20") as program:
            listener = (await Place("unix", path=address.removeprefix("unix:")).listen())[0]
            async with listener, await listener.accept() as stream:
                await stream.send_all(
                    frame("pyipc.welcome", version=1)
                    + frame("pyipc.goaway", code="restart", message=FORGERY)
                    + frame("pyipc.goodbye", code="bye", message=FORGERY)
                )
                await program.line("^disconnected: ", stream="err")
                result = await program.interrupt()
    no_line_is_forged(result)
    assert result.err.count(HARMLESS[1]) == 2, result.err


async def test_by_the_error_that_answers_a_request(address: str) -> None:
    async with pyipc.Server(address) as server:

        @server.on("ask")
        def fail(message: pyipc.Message[Any]) -> None:
            raise ValueError(FORGERY)

        result = await run("request", address, "ask", "1")
    no_line_is_forged(result)
    assert len(result.err.splitlines()) == 1


@only_linux
async def test_by_the_command_line_of_a_server(address: str) -> None:
    code = (
        f"{FORGERY_AS_CODE}\n"
        "import sys, trio, pyipc\n"
        "async def main():\n"
        "    async with pyipc.Server(sys.argv[1]):\n"
        "        await trio.sleep_forever()\n"
        "trio.run(main)\n"
    )
    # Only the beginning of a command line is shown, and so the interpreter's name has to be short.
    python = Path(sys.executable)
    path = {"PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}
    async with start("-c", code, address, command=[python.name], env=path):
        await eventually(lambda: os.path.exists(address.removeprefix("unix:")), "a socket")
        result = await run("doctor", address)
    no_line_is_forged(result)


# --- in what is watched ---


async def watched(directory: Path, address: str, *frames: bytes) -> Result:
    """What `pyipc tap` tells of a client that sends these."""
    listener = (await Place("unix", path=address.removeprefix("unix:")).listen())[0]
    async with listener, start("tap", f"unix:{directory / 't'}", address) as tap:
        await tap.listening()
        async with await trio.open_unix_socket(str(directory / "t")) as client, await listener.accept() as server:
            await client.send_all(b"".join(frames))
            await client.send_eof()
            while await server.receive_some():
                pass
        await tap.line("#1    closed")
        return await tap.interrupt()


@pytest.mark.parametrize(
    "forging",
    [
        frame("pyipc.error", call=1, code="no", message=FORGERY),
        frame("pyipc.error", call=1, code=FORGERY, message="no"),
        frame(f"pyipc.{FORGERY}"),
        frame(FORGERY),
        frame("pyipc.request", call=1, event=FORGERY),
        frame("pyipc.goodbye", code="bye", message=FORGERY),
    ],
)
async def test_by_a_frame(directory: Path, address: str, forging: bytes) -> None:
    no_line_is_forged(await watched(directory, address, forging))


@pytest.mark.parametrize(
    "large",
    [
        frame("pyipc.error", call=1, code="no", message="x" * 60_000),
        frame("pyipc." + "x" * 60_000),
        frame("x" * 60_000),
        frame("pyipc.request", call=1, event="x" * 60_000),
    ],
)
async def test_long_texts_are_shortened(directory: Path, address: str, large: bytes) -> None:
    result = await watched(directory, address, large)
    assert max(map(len, result.lines)) < 400
    assert "xxx ..." in result.out


# --- where lines are meant ---


def test_our_own_line_ends_are_kept() -> None:
    assert printable(Lines("a\nb\tc\x1b")) == "a\nb\tc\\x1b"
    assert printable("a\nb\tc\x1b") == r"a\nb\tc\x1b"


def test_a_traceback_is_indented() -> None:
    try:
        raise ValueError(FORGERY)
    except ValueError:
        record = logging.LogRecord("pyipc", logging.ERROR, "", 1, "it failed: %s", (FORGERY,), sys.exc_info())
    first, *rest = LineFormatter("pyipc: %(message)s").format(record).splitlines()
    assert first == r"pyipc: it failed: well\nFORGED\tline\u2028FORGED"
    assert len(rest) > 3
    assert all(line.startswith("    ") for line in rest)
