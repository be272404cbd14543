"""``pyipc listen``: shows what a server sends."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio

import pyipc
from pyipc.cli.exits import ExitCode
from tests.cli.processes import PATIENCE, Program, eventually, run, start


def events(program: Program) -> list[tuple[str, Any]]:
    """What a listener with ``--json`` has shown."""
    records = [json.loads(line) for line in program.out.decode().splitlines()]
    return [(record["event"], record["data"]) for record in records]


async def test_all_events_are_shown(address: str) -> None:
    with trio.fail_after(2 * PATIENCE):
        async with pyipc.Server(address) as server, start("listen", address) as listener:
            await connected(server, listener)
            await server.broadcast("news", {"n": 1})
            await server.broadcast("more.news", None)
            await listener.line(r'^\d\d:\d\d:\d\d\.\d{3}  #1  event         news  {"n":1}$')
            await listener.line(r"  more\.news  null$")


async def connected(server: pyipc.Server, listener: Program) -> pyipc.Connection:
    """Wait until both sides know of each other."""
    await listener.line("^connected to", stream="err")
    await eventually(lambda: server.connections, "the connection")
    (connection,) = server.connections
    return connection


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["a"], ["a"]),
        (["a", "b.*"], ["a", "b.c"]),
        (["b.**"], ["b", "b.c", "b.c.d"]),
        (["*", "a", "**"], ["a", "b", "b.c", "b.c.d"]),
    ],
)
async def test_patterns_choose_and_nothing_is_shown_twice(
    address: str, patterns: list[str], expected: list[str]
) -> None:
    with trio.fail_after(2 * PATIENCE):
        async with pyipc.Server(address) as server, start("listen", address, *patterns, "--json") as listener:
            connection = await connected(server, listener)
            for name in ("a", "b", "b.c", "b.c.d"):
                await server.broadcast(name, name)
            # The answer comes when all events before it have been shown.
            await connection.request(expected[-1])
            await listener.until(lambda: len(events(listener)) >= len(expected), "the events")
            assert events(listener) == [(name, name) for name in expected]


async def test_it_comes_back(address: str) -> None:
    with trio.fail_after(2 * PATIENCE):
        async with start("listen", address, "--json", "--count", "2", "--connect-timeout", "20") as listener:
            for number in range(2):
                async with pyipc.Server(address) as server:
                    await connected(server, listener)
                    await server.broadcast("life", number)
                    await listener.line(f'"data":{number}}}$')
            result = await listener.finish()
    assert (result.status, events(listener)) == (0, [("life", 0), ("life", 1)])
    assert "disconnected: the peer closed; connecting again" in result.err


async def test_nobody_there(address: str) -> None:
    result = await run("listen", address, "--connect-timeout", "0.2")
    assert (result.status, result.out) == (ExitCode.UNREACHABLE, "")
    assert result.err.startswith(f"pyipc: could not connect to {address} within 0.2 s")


async def test_too_few_in_time(address: str) -> None:
    with trio.fail_after(2 * PATIENCE):
        async with pyipc.Server(address):
            result = await run("listen", address, "--count", "1", "--timeout", "0.3", "--quiet")
    assert (result.status, result.err) == (ExitCode.TIMEOUT, "pyipc: 0 of 1 messages came within 0.3 s\n")


async def test_a_pattern_that_is_none(address: str) -> None:
    with trio.fail_after(2 * PATIENCE):
        async with pyipc.Server(address):
            result = await run("listen", address, "a*")
    assert result.status == ExitCode.USAGE
    assert "has a '*' inside the segment" in result.err


async def test_a_server_of_another_version_is_not_tried_again(address: str) -> None:
    async def goodbye(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        message = '{"type":"pyipc.goodbye","data":{"code":"version","message":"speak another version"}}\f'
        await stream.send_all(message.encode())
        await stream.aclose()

    sock = trio.socket.socket(trio.socket.AF_UNIX)
    await sock.bind(address.removeprefix("unix:"))
    sock.listen()
    with trio.fail_after(2 * PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, goodbye, [trio.SocketListener(sock)])
            result = await run("listen", address)
            nursery.cancel_scope.cancel()
    assert result.status in (ExitCode.LOST, ExitCode.UNREACHABLE)
    assert "speak another version" in result.err
