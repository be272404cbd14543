"""``pyipc request``: asks, and shows the answers in order."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio

import pyipc
from pyipc.cli.exits import ExitCode
from tests.cli.processes import PATIENCE, eventually, run, start

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def serving(address: str) -> AsyncIterator[pyipc.Server]:
    """A server with some answers."""
    server = pyipc.Server(address)

    @server.on("add")
    async def add(message: pyipc.Message[list[int]]) -> int:
        return sum(message.data)

    @server.on("picture")
    async def picture(message: pyipc.Message[Any]) -> pyipc.Attached[dict[str, int]]:
        return pyipc.Attached({"width": 7}, [b"abc", b"\x1b[31m" * 1_024])

    @server.on("fail")
    async def fail(message: pyipc.Message[Any]) -> None:
        if message.data != "well":
            raise ValueError("no \x1b[31mluck")

    @server.on("hang")
    async def hang(message: pyipc.Message[Any]) -> None:
        await trio.sleep_forever()

    @server.on("slower.first")
    async def slower_first(message: pyipc.Message[int]) -> int:
        await trio.sleep(0.02 * (5 - message.data))
        return message.data

    with trio.fail_after(2 * PATIENCE):
        async with server:
            yield server


async def test_the_answer_as_json(address: str) -> None:
    async with serving(address):
        result = await run("request", address, "add", "[1, 2]")
        assert (result.status, result.out, result.err) == (0, "3\n", "")
        result = await run("request", address, "add", "--json", input="[3,\n4]")
        assert (result.status, json.loads(result.out)) == (0, {"kind": "reply", "event": "add", "data": 7})


async def test_what_is_attached_to_an_answer_is_told_and_not_shown(address: str) -> None:
    async with serving(address):
        result = await run("request", address, "picture")
        assert (result.status, result.err) == (0, "")
        assert result.out == '{"width":7}  with attachments of 3 B, 5 KiB\n'
        result = await run("request", address, "picture", "--json")
        record = {"kind": "reply", "event": "picture", "data": {"width": 7}, "attachments": [3, 5_120]}
        assert (result.status, json.loads(result.out)) == (0, record)


async def test_answers_in_the_order_of_the_lines(address: str) -> None:
    async with serving(address):
        result = await run("request", address, "slower.first", "--lines", "--concurrency", "5", input="0\n1\n2\n3\n4\n")
    assert (result.status, result.lines) == (0, ["0", "1", "2", "3", "4"])


async def test_concurrency_is_bounded(address: str) -> None:
    running = most = 0
    server = pyipc.Server(address)

    @server.on("work")
    async def work(message: pyipc.Message[Any]) -> Any:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await trio.sleep(0.002)
        running -= 1
        return message.data

    lines = [str(number) for number in range(100)]
    with trio.fail_after(2 * PATIENCE):
        async with server:
            result = await run("request", address, "work", "--lines", "--concurrency", "4", input="\n".join(lines))
    assert (result.status, result.lines) == (0, lines)
    assert 2 <= most <= 4


async def test_an_answer_is_shown_before_the_next_line_comes(address: str) -> None:
    async with serving(address), start("request", address, "add", "--lines") as program:
        for number in range(1, 4):
            await program.write(f"[{number}]\n")
            await program.line(f"^{number}$")
        await program.close_stdin()
        assert (await program.finish()).status == 0


@pytest.mark.parametrize(
    ("event", "data", "code", "words"),
    [
        ("fail", "1", "handler-failed", r"no \x1b[31mluck"),
        ("nothing", "1", "no-handler", "nothing here handles"),
        ("add", '["x"]', "invalid-data", "$[0]"),
    ],
)
async def test_an_error_is_told(address: str, event: str, data: str, code: str, words: str) -> None:
    async with serving(address):
        result = await run("request", address, event, data)
        assert (result.status, result.out) == (ExitCode.REFUSED, "")
        assert result.err.startswith(f"pyipc: {event!r} has no answer: ")
        assert words in result.err
        assert f"({code})" in result.err
        assert len(result.err.splitlines()) == 1
        result = await run("request", address, event, data, "--json")
        assert (result.status, result.err) == (ExitCode.REFUSED, "")
        record = json.loads(result.out)
        assert record["kind"] == "error"
        assert (record["event"], record["code"]) == (event, code)


async def test_an_error_among_answers(address: str) -> None:
    async with serving(address):
        result = await run("request", address, "fail", "--lines", "--json", input='"well"\n1\n"well"\n')
    assert result.status == ExitCode.REFUSED
    assert [json.loads(line)["kind"] for line in result.lines] == ["reply", "error", "reply"]


async def test_no_answer_in_time(address: str) -> None:
    async with serving(address):
        result = await run("request", address, "hang", "1", "--timeout", "0.3")
        assert (result.status, result.out) == (ExitCode.TIMEOUT, "")
        assert "no answer to 'hang' within 0.3 s" in result.err
        result = await run("request", address, "hang", "1", "--timeout", "0.3", "--json")
        assert (result.status, json.loads(result.out)["code"]) == (ExitCode.TIMEOUT, "timeout")


async def test_nobody_there(address: str) -> None:
    result = await run("request", address, "x", "1", "--connect-timeout", "0.2")
    assert (result.status, result.out) == (ExitCode.UNREACHABLE, "")


async def test_a_connection_that_breaks_meanwhile(address: str) -> None:
    async with serving(address) as server, start("request", address, "hang", "1") as program:
        await eventually(lambda: any(each.statistics().concurrent_requests for each in server.connections), "it")
        for connection in server.connections:
            connection.abort("lost", "by the test", linger=False)
        result = await program.finish()
    assert (result.status, result.out) == (ExitCode.LOST, "")
    assert result.err.startswith("pyipc: ")
    assert len(result.err.splitlines()) == 1


async def test_a_lone_surrogate_and_a_narrow_encoding(address: str) -> None:
    async with start("serve", address, "--echo") as server:
        await server.listening()
        for encoding in ("utf-8", "ascii"):
            data = '["ä", "\\ud800", "\\u009b"]'
            result = await run("request", address, "x", data, "--json", env={"PYTHONIOENCODING": encoding})
            assert result.err == ""
            assert json.loads(result.out)["data"] == ["ä", "\ud800", "\x9b"]
            assert "\x9b" not in result.out
