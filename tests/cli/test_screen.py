"""What a person sees: the commands in a terminal, with rich and without."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import trio

import pyipc
from pyipc.cli.exits import ExitCode
from tests.cli.processes import PATIENCE, run
from tests.cli.terminal import start_in_terminal, without_rich

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PLAIN = ["no rich", "no color", "dumb"]


@pytest.fixture(params=["rich", *PLAIN])
def look(request: pytest.FixtureRequest) -> str:
    """How the terminal is to look."""
    assert isinstance(request.param, str)
    return request.param


@pytest.fixture
def env(look: str, tmp_path: Path) -> Mapping[str, str]:
    """The environment for it."""
    return {
        "rich": {},
        "no rich": without_rich(tmp_path) if look == "no rich" else {},
        "no color": {"NO_COLOR": "1"},
        "dumb": {"TERM": "dumb"},
    }[look]


async def test_serve(address: str, look: str, env: Mapping[str, str]) -> None:
    async with start_in_terminal("serve", address, env=env) as terminal:
        await terminal.shows(f"listening on {address}")
        await run("emit", address, "seen", '{"page": 7}')
        await terminal.shows("disconnected")
        first, connected, seen, disconnected = terminal.lines[:4]
        assert first == f"listening on {address}"
        assert connected[12:].startswith("  #1  connected     process ")
        assert seen[12:] == '  #1  event         seen  {"page":7}'
        assert disconnected[12:].startswith("  #1  disconnected  the peer closed")
        if look == "rich":
            assert terminal.style("seen").bold
            assert terminal.style("process").fg == "green"
            assert terminal.style('"page"').fg != "default"
        else:
            assert b"\x1b" not in terminal.raw
        await terminal.type("\x03")
        assert await terminal.finish() == ExitCode.INTERRUPTED
        assert "Traceback" not in terminal.text


async def test_listen(address: str, look: str, env: Mapping[str, str]) -> None:
    with trio.fail_after(2 * PATIENCE):
        async with pyipc.Server(address) as server, start_in_terminal("listen", address, env=env) as terminal:
            await terminal.shows(f"connected to {address}")
            await server.broadcast("news", ["\x1b[2J\x1b]0;owned\x07", "ä"])
            await terminal.shows("news")
            shown = terminal.lines[1][12:]
            assert shown == r'  #1  event         news  ["\u001b[2J\u001b]0;owned\u0007","ä"]'
            assert terminal.screen.title == ""
            assert terminal.style("news").bold == (look == "rich")
            await terminal.type("\x03")
            assert await terminal.finish() == ExitCode.INTERRUPTED


async def test_request(address: str, look: str, env: Mapping[str, str]) -> None:
    server = pyipc.Server(address)
    server.on("ask", lambda message: {"name": "Ada", "list": [1, None], "asked": message.data})
    with trio.fail_after(2 * PATIENCE):
        async with server, start_in_terminal("request", address, "ask", env=env) as terminal:
            assert await terminal.finish() == 0
    answer: dict[str, Any] = {"name": "Ada", "list": [1, None], "asked": None}
    assert terminal.text == json.dumps(answer, indent=2)
    assert (terminal.style('"name"').fg != "default") == (look == "rich")


async def test_a_line_wider_than_the_terminal_is_left_to_it(address: str) -> None:
    """A line that is broken by us would be copied from the screen in pieces."""
    server = pyipc.Server(address)
    server.on("ask", lambda message: "x" * 150)
    with trio.fail_after(2 * PATIENCE):
        async with server, start_in_terminal("request", address, "ask") as terminal:
            assert await terminal.finish() == 0
    assert terminal.raw.count(b"\n") == 1


async def test_an_error(address: str) -> None:
    async with start_in_terminal("emit", address, "x", "--connect-timeout", "0.2", columns=200) as terminal:
        assert await terminal.finish() == ExitCode.UNREACHABLE
        assert terminal.text.startswith(f"pyipc: could not connect to {address} within 0.2 s")


async def test_the_terminal_is_closed(address: str, directory: Path) -> None:
    async with start_in_terminal("serve", address) as terminal:
        await terminal.shows("listening on")
        await terminal.hang_up()
        with trio.fail_after(PATIENCE):
            assert await terminal.process.wait() in (ExitCode.HANGUP, ExitCode.IO)
    assert list(directory.iterdir()) == []
