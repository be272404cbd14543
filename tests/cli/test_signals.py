"""Ctrl-C, SIGTERM and the closing of the terminal: in order, with the right exit status, and nothing left behind."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest
import trio

import pyipc
from pyipc.cli.exits import ExitCode
from tests.cli.processes import PATIENCE, PYIPC, eventually, run, start
from tests.conftest import CANNOT_RUN

if TYPE_CHECKING:
    from pathlib import Path

if sys.platform == "win32":
    pytest.skip(f"{CANNOT_RUN} there are no signals to send", allow_module_level=True)

SIGNALS = [
    (signal.SIGINT, ExitCode.INTERRUPTED),
    (signal.SIGTERM, ExitCode.TERMINATED),
    (signal.SIGHUP, ExitCode.HANGUP),
]


@pytest.mark.parametrize(("number", "status"), SIGNALS)
async def test_a_server_says_goodbye_and_takes_its_files_with_it(
    address: str, directory: Path, number: int, status: ExitCode
) -> None:
    endings: list[pyipc.Disconnected] = []
    async with start("serve", address) as server:
        await server.listening()
        assert list(directory.iterdir()) != []
        with trio.fail_after(PATIENCE):
            async with pyipc.connect(address, reconnect=False, on_disconnect=endings.append) as client:
                await client.request("x")
                result = await server.interrupt(number)
                await eventually(lambda: endings, "the end of the connection")
    assert (result.status, result.err) == (status, f"listening on {address}\n")
    assert result.lines[-1].endswith("#1  disconnected  this side closed the connection (closed)")
    assert endings[0].code == "goodbye"
    assert list(directory.iterdir()) == []


@pytest.mark.parametrize(("number", "status"), SIGNALS[:2])
@pytest.mark.parametrize("command", ["listen", "emit", "request"])
async def test_a_client_says_goodbye(address: str, command: str, number: int, status: ExitCode) -> None:
    endings: list[pyipc.Disconnected] = []
    server = pyipc.Server(address)
    server.on_disconnect(endings.append)
    events: list[object] = []
    server.on("x", events.append)

    @server.on("hang")
    async def hang(message: pyipc.Message[object]) -> None:
        await trio.sleep_forever()

    arguments = {"listen": [], "emit": ["x", "--lines"], "request": ["hang", "1"]}[command]
    with trio.fail_after(2 * PATIENCE):
        async with server, start(command, address, *arguments) as program:
            await eventually(lambda: server.connections, "the connection")
            (connection,) = server.connections
            await eventually(lambda: connection.peer.protocol != "plain", "the introduction")
            # Once a message has gone through it, it is surely where a signal is waited for.
            if command == "request":
                await eventually(lambda: connection.statistics().concurrent_requests, "the request")
            elif command == "emit":
                await program.write("1\n")
                await eventually(lambda: events, "the event")
            else:
                await server.broadcast("x")
                await program.line("event +x +null")
            result = await program.interrupt(number)
            await eventually(lambda: endings, "the end of the connection")
    assert result.status == status
    assert "Traceback" not in result.err
    assert endings[0].code == "goodbye"


@pytest.mark.parametrize(("number", "status"), SIGNALS[:2])
async def test_while_connecting(address: str, number: int, status: ExitCode) -> None:
    async with start("listen", address, "--connect-timeout", "60", "-v") as program:
        await program.line("could not connect", stream="err")
        result = await program.interrupt(number)
    assert (result.status, result.out) == (status, "")
    assert "Traceback" not in result.err


async def test_a_broadcast_that_waits(address: str, directory: Path) -> None:
    async with start("broadcast", address, "x", "1") as program:
        await program.listening()
        result = await program.interrupt()
    assert (result.status, result.out) == (ExitCode.INTERRUPTED, "")
    assert list(directory.iterdir()) == []


async def test_a_second_signal_does_not_wait_for_a_peer_that_hangs(address: str, directory: Path) -> None:
    """The first lets connections close in order, which a peer that does not answer draws out to close_timeout."""
    async with start("serve", address) as server:
        await server.listening()
        with trio.fail_after(PATIENCE):
            stream = await trio.open_unix_socket(address.removeprefix("unix:"))
            await stream.send_all(b'{"type":"x"}\f')
            await server.line("event +x +null")
            server.process.send_signal(signal.SIGINT)
            # Our half is closed by the server; it waits for the other half.
            assert await stream.receive_some() == b""
            result = await server.interrupt(signal.SIGTERM)
            await stream.aclose()
    assert result.status in (ExitCode.INTERRUPTED, ExitCode.TERMINATED)
    assert result.err == f"listening on {address}\n"
    assert list(directory.iterdir()) == []


async def test_what_the_parent_ignores_stays_ignored(address: str) -> None:
    """A shell starts background jobs of scripts with SIGINT ignored, and nohup ignores SIGHUP."""
    ignoring = ["bash", "-c", 'trap "" INT HUP; exec "$@"', "bash", *PYIPC]
    async with start("serve", address, command=ignoring) as server:
        await server.listening()
        server.process.send_signal(signal.SIGINT)
        server.process.send_signal(signal.SIGHUP)
        assert (await run("request", address, "x", "1")).status == 0
        assert (await server.interrupt(signal.SIGTERM)).status == ExitCode.TERMINATED


@pytest.mark.parametrize("opened", [False, True])
async def test_a_pipe_with_a_name_that_is_silent_does_not_keep_it_from_ending(
    address: str, directory: Path, opened: bool
) -> None:
    """Whether nobody opens its other end, or whoever did writes nothing."""
    pipe = directory / "pipe"
    os.mkfifo(pipe)
    other_end = os.open(pipe, os.O_RDWR) if opened else None
    heard: list[object] = []
    with trio.fail_after(2 * PATIENCE):
        async with pyipc.Server(address) as server, start("emit", address, "x", "1", f"@{pipe}") as program:
            server.on("x", heard.append)
            await eventually(lambda: heard, "the event before it")
            result = await program.interrupt()
    if other_end is not None:
        os.close(other_end)
    assert (result.status, result.out, result.err) == (ExitCode.INTERRUPTED, "", "")


async def test_input_that_never_comes_does_not_keep_it_from_ending(address: str) -> None:
    with trio.fail_after(2 * PATIENCE):
        async with pyipc.Server(address) as server, start("emit", address, "x") as program:
            await eventually(lambda: server.connections, "the connection")
            result = await program.interrupt()
    assert (result.status, result.out, result.err) == (ExitCode.INTERRUPTED, "", "")
