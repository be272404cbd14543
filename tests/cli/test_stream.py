"""``pyipc stream``: asks, and shows the items as they come."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio

import pyipc
from pyipc.cli.exits import ExitCode
from tests.cli.processes import PATIENCE, eventually, run, start

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def serving(address: str, ended: list[Any] | None = None) -> AsyncIterator[pyipc.Server]:
    """A server with some streams."""
    server = pyipc.Server(address)

    @server.on("count")
    async def count(message: pyipc.Message[int]) -> AsyncIterator[dict[str, int]]:
        for number in range(message.data):
            yield {"n": number}

    @server.on("log")
    async def log(message: pyipc.Message[Any]) -> AsyncIterator[str]:
        try:
            yield "a\x1b[31m"
            await trio.sleep_forever()
        finally:
            if ended is not None:
                ended.append(message.data)

    @server.on("pictures")
    async def pictures(message: pyipc.Message[Any]) -> AsyncIterator[pyipc.Attached[int]]:
        for number in range(2):
            yield pyipc.Attached(number, [b"\x1b[31m" * number])

    @server.on("breaks")
    async def breaks(message: pyipc.Message[Any]) -> AsyncIterator[int]:
        yield 1
        raise ValueError("no \x1b[31mluck")

    with trio.fail_after(2 * PATIENCE):
        async with server:
            yield server


async def test_a_line_of_json_for_every_item(address: str) -> None:
    async with serving(address):
        result = await run("stream", address, "count", "3")
        assert (result.status, result.out, result.err) == (0, '{"n":0}\n{"n":1}\n{"n":2}\n', "")
        result = await run("stream", address, "count", "--json", "--lines", input="1\n2\n")
        records = [{"kind": "item", "event": "count", "data": {"n": number}} for number in (0, 0, 1)]
        assert (result.status, [json.loads(line) for line in result.lines]) == (0, records)


async def test_what_is_attached_to_an_item_is_told_and_not_shown(address: str) -> None:
    async with serving(address):
        result = await run("stream", address, "pictures")
        expected = ["0  with attachments of 0 B", "1  with attachments of 5 B"]
        assert (result.status, result.lines, result.err) == (0, expected, "")
        result = await run("stream", address, "pictures", "--json")
        assert [json.loads(line)["attachments"] for line in result.lines] == [[0], [5]]


async def test_items_are_shown_as_they_come_and_the_server_hears_of_the_end(address: str) -> None:
    ended: list[Any] = []
    async with serving(address, ended):
        async with start("stream", address, "log", "1") as program:
            await program.line(r"^\"a\\u001b\[31m\"$")
            assert (await program.interrupt()).status == ExitCode.INTERRUPTED
        await eventually(lambda: ended == [1], "the end of the first")
        result = await run("stream", address, "log", "2", "--count", "1")
        assert (result.status, len(result.lines)) == (0, 1)
        await eventually(lambda: ended == [1, 2], "the end of the second")


async def test_an_error_after_items(address: str) -> None:
    async with serving(address):
        result = await run("stream", address, "breaks", "1")
        assert (result.status, result.out) == (ExitCode.REFUSED, "1\n")
        assert result.err.startswith("pyipc: the stream 'breaks' has failed: ")
        assert len(result.err.splitlines()) == 1
        result = await run("stream", address, "breaks", "1", "--json")
        assert [json.loads(line)["kind"] for line in result.lines] == ["item", "error"]
        result = await run("stream", address, "nothing", "1", "--json")
        assert (result.status, json.loads(result.out)["code"]) == (ExitCode.REFUSED, "no-handler")


async def test_no_item_in_time(address: str) -> None:
    async with serving(address):
        result = await run("stream", address, "log", "1", "--timeout", "0.3", "--json")
    assert result.status == ExitCode.TIMEOUT
    assert [json.loads(line).get("code") for line in result.lines] == [None, "timeout"]


async def test_a_connection_that_breaks_meanwhile(address: str) -> None:
    async with serving(address) as server, start("stream", address, "log", "1") as program:
        await program.line("a")
        for connection in server.connections:
            connection.abort("lost", "by the test", linger=False)
        result = await program.finish()
    assert result.status == ExitCode.LOST
    assert result.err.startswith("pyipc: ")
