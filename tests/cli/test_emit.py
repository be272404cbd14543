"""``pyipc emit``: data from everywhere, and an exit status that means delivered."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio

import pyipc
from pyipc.cli.exits import ExitCode
from tests.cli.processes import PATIENCE, eventually, run, start
from tests.cli.terminal import start_in_terminal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@asynccontextmanager
async def heard(address: str | pyipc.Endpoint) -> AsyncIterator[list[tuple[str, Any]]]:
    """A server; the events that it has heard."""
    events: list[tuple[str, Any]] = []
    server = pyipc.Server(address)
    server.on("**", lambda message: events.append((message.event, message.data)))
    with trio.fail_after(2 * PATIENCE):
        async with server:
            yield events


async def emitted(address: str, *arguments: str, input: str | bytes = b"", cwd: Path | None = None) -> list[Any]:
    """The data that a server hears when ``pyipc emit`` is given these arguments and this input."""
    async with heard(address) as events:
        result = await run("emit", address, "x", *arguments, input=input, cwd=cwd)
        assert (result.status, result.out, result.err) == (0, "", "")
    return [data for _, data in events]


async def test_json_in_arguments(address: str) -> None:
    assert await emitted(address, '{"a": [1, 2.5, null, "ä"]}', "-1", '"x"') == [{"a": [1, 2.5, None, "ä"]}, -1, "x"]


async def test_text_in_arguments(address: str) -> None:
    assert await emitted(address, "--text", "hello there", "{", "12") == ["hello there", "{", "12"]


async def test_options_may_stand_anywhere(address: str) -> None:
    assert await emitted(address, "1", "--quiet", "2", "--text", "--", "--3") == ["1", "2", "--3"]


async def test_files_and_input_in_their_order(address: str, tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text('{\n  "from": "a file"\n}\n', "utf-8")
    (tmp_path / "bom.json").write_bytes(b"\xef\xbb\xbf[1]")
    data = await emitted(address, "@one.json", "2", "-", "@bom.json", input='["the input"]', cwd=tmp_path)
    assert data == [{"from": "a file"}, 2, ["the input"], [1]]


@pytest.mark.parametrize(
    ("arguments", "input", "expected"),
    [
        ([], '{"a":\n1}\n', [{"a": 1}]),
        ([], "", [None]),
        ([], " \n", [None]),
        (["--lines"], '1\n\n  \n{"a":2}\r\n"last"', [1, {"a": 2}, "last"]),
        (["--lines"], "", []),
        (["--lines", "--text"], "one\ntwo words\n", ["one", "two words"]),
        (["--text"], "all\nof it\n", ["all\nof it\n"]),
        ([], '"\\ud800 \\u0000"', ["\ud800 \0"]),
    ],
)
async def test_standard_input(address: str, arguments: list[str], input: str, expected: list[Any]) -> None:
    assert await emitted(address, *arguments, input=input) == expected


async def test_lines_longer_than_a_read(address: str) -> None:
    lines = ["ä" * 100_000, "b", "c" * 200_000]
    assert await emitted(address, "--lines", "--text", input="\n".join(lines)) == lines


async def test_lines_are_sent_as_they_come(address: str) -> None:
    async with heard(address) as events, start("emit", address, "x", "--lines", "--json") as program:
        for number in range(3):
            await program.write(f"{number}\n")
            await eventually(lambda: ("x", number) in events, "an event")  # noqa: B023 - used at once
        await program.close_stdin()
        result = await program.finish()
        assert (result.status, json.loads(result.out)) == (0, {"kind": "emitted", "event": "x", "count": 3})


async def test_a_terminal_is_not_waited_for(address: str) -> None:
    async with heard(address) as events, start_in_terminal("emit", address, "x") as terminal:
        assert await terminal.finish() == 0
        assert terminal.text == "sent 1"
        assert events == [("x", None)]


async def test_much_is_all_delivered(address: str) -> None:
    count = 5_000
    assert await emitted(address, "--lines", input="".join(f"{n}\n" for n in range(count))) == list(range(count))


@pytest.mark.parametrize(
    ("arguments", "input", "sentence"),
    [
        (["{a: 1}"], "", "the argument is not JSON: {a: 1} (Expecting property name"),
        (["hello"], "", "put JSON in single quotes, as '{\"n\": 1}'"),
        (["NaN"], "", "NaN is no number of JSON"),
        (["1e999"], "", "1e999 is out of range"),
        (["["], "", "the argument is not JSON"),
        (["[" * 100_000], "", "it is nested too deep"),
        ([""], "", "the argument is empty; write null"),
        (["-"], "", "standard input is empty; write null"),
        ([], "1 2", "standard input is not JSON: 1 2 (Extra data at line 1, column 3)"),
        (["--lines"], "1\n\nx\x1b[31m\n", r"line 3 of standard input is not JSON: x\x1b[31m"),
        ([], b"\xff", "standard input is not UTF-8"),
        (["--raw", "1"], "", "with --raw only text can be sent"),
    ],
)
async def test_what_is_not_json_is_refused(
    address: str, arguments: list[str], input: str | bytes, sentence: str
) -> None:
    async with heard(address):
        result = await run("emit", address, "x", *arguments, input=input)
    assert (result.status, result.out) == (ExitCode.USAGE, "")
    assert sentence in result.err
    assert len(result.err.splitlines()) == 1


async def test_a_file_that_is_not_there(address: str) -> None:
    async with heard(address):
        result = await run("emit", address, "x", "@/nowhere/x.json")
    assert result.status == ExitCode.IO
    assert result.err == "pyipc: cannot read /nowhere/x.json: No such file or directory\n"


@pytest.mark.parametrize(
    ("event", "data", "sentence"),
    [
        ("", "1", "an event's name must not be empty"),
        ("pyipc.x", "1", "reserved"),
        ("x", json.dumps("x" * 2 * 1024 * 1024), "the limit is 1,048,576"),
    ],
)
async def test_what_cannot_be_sent_is_refused(address: str, event: str, data: str, sentence: str) -> None:
    async with heard(address) as events:
        result = await run("emit", address, event, input=data)
    assert (result.status, events) == (ExitCode.USAGE, [])
    assert sentence in result.err


async def test_raw_bytes(address: str) -> None:
    async with heard(pyipc.Endpoint(address, framing=pyipc.Raw())) as events:
        assert (await run("emit", address, "data", "--raw", "--text", "GET /\n")).status == 0
        await eventually(lambda: events, "the bytes")
    assert events == [("data", b"GET /\n")]


async def test_another_delimiter(address: str) -> None:
    async with heard(pyipc.Endpoint(address, framing=pyipc.Json(delimiter=b"\n"))) as events:
        assert (await run("emit", address, "x", "1", "--delimiter", r"\n")).status == 0
    assert events == [("x", 1)]


@pytest.mark.parametrize("more", ["2\n", ""])
async def test_a_server_that_leaves_is_told(address: str, more: str) -> None:
    async with start("emit", address, "x", "--lines", "--connect-timeout", "20") as program:
        async with heard(address) as events:
            await program.write("1\n")
            await eventually(lambda: events, "an event")
        await program.write(more)
        await program.close_stdin()
        result = await program.finish()
    assert (result.status, result.out) == (ExitCode.LOST, "")
    assert result.err.startswith("pyipc: the ")
    assert len(result.err.splitlines()) == 1


async def test_files_are_attached_and_the_other_side_shows_their_sizes(address: str, tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"\f\x01" * 1_024)
    async with start("serve", address) as server:
        await server.listening()
        result = await run("emit", address, "photo", "7", "--attach", "one", "--attach", "one", cwd=tmp_path)
        assert (result.status, result.err) == (0, "")
        await server.line(r"  event +photo  7  with attachments of 2 KiB, 2 KiB$")


async def test_a_file_that_cannot_be_attached(address: str, tmp_path: Path) -> None:
    result = await run("emit", address, "photo", "7", "--attach", "none", cwd=tmp_path)
    assert result.status == ExitCode.IO
    assert "cannot read none: No such file or directory" in result.err


async def test_a_server_that_takes_no_attachments_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"x")
    result = await run("emit", "udp://127.0.0.1:9", "photo", "7", "--attach", "one", cwd=tmp_path)
    assert result.status == ExitCode.REFUSED
    assert "'attachments' does not work over datagrams" in result.err
