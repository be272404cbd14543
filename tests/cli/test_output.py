"""The output: readers that leave, readers that stop reading, and text that a terminal must not obey."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import sys
import unicodedata
from typing import TYPE_CHECKING, Any

import pytest
import trio

import pyipc
from pyipc.cli.exits import ExitCode
from pyipc.cli.showing.console import Console
from pyipc.cli.showing.text import json_text, payload, payload_text, printable
from tests.cli.processes import PATIENCE, PYIPC, eventually, run, start
from tests.conftest import CANNOT_RUN

if TYPE_CHECKING:
    from pathlib import Path

POSIX = pytest.mark.skipif(sys.platform == "win32", reason=f"{CANNOT_RUN} it needs a POSIX shell")
LINUX = pytest.mark.skipif(sys.platform != "linux", reason=f"{CANNOT_RUN} only Linux tells that a reader has gone")

HEAD = ["bash", "-c", '"$@" | head -n 1; echo "status ${PIPESTATUS[0]}"', "bash", *PYIPC]


@POSIX
async def test_serve_into_head(address: str, directory: Path) -> None:
    async with start("serve", address, command=HEAD) as server:
        await server.listening()
        # The first line tells of this connection, and the server may be gone before that is of any use.
        async with pyipc.connect(address, wait=False):
            result = await server.finish()
    assert "connected" in result.lines[0]
    assert result.lines[1:] == [f"status {ExitCode.BROKEN_PIPE:d}"]
    assert result.err == f"listening on {address}\n"
    assert list(directory.iterdir()) == []


@LINUX
async def test_serve_into_head_as_json(address: str, directory: Path) -> None:
    """The first line is written before anybody comes, and its reader leaves at once."""
    result = await run("serve", address, "--json", command=HEAD)
    assert json.loads(result.lines[0]) == {"kind": "listening", "address": address}
    assert result.lines[1:] == [f"status {ExitCode.BROKEN_PIPE:d}"]
    assert result.err == f"listening on {address}\n"
    assert list(directory.iterdir()) == []


@POSIX
async def test_listen_into_head(address: str) -> None:
    with trio.fail_after(2 * PATIENCE):
        async with pyipc.Server(address) as server, start("listen", address, command=HEAD) as listener:
            await listener.line("^connected", stream="err")
            while server.connections:
                await server.broadcast("x", 1)
                await trio.sleep(0.001)
            result = await listener.finish()
    assert result.lines[1:] == [f"status {ExitCode.BROKEN_PIPE:d}"]
    assert re.fullmatch("connected to .*\n", result.err)


@POSIX
@pytest.mark.parametrize("command", ["request", "broadcast", "emit"])
async def test_others_into_nothing(address: str, command: str) -> None:
    """What is noticed only when the last is written counts as well, and the interpreter does not complain."""
    script = 'exec 3> >(exec true); pid=$!; wait $pid; "$@" >&3; echo "status $?"'
    arguments = [command, address, "x", "1", "--json"]
    with trio.fail_after(2 * PATIENCE):
        if command == "broadcast":
            async with (
                start(*arguments, command=["bash", "-c", script, "bash", *PYIPC]) as program,
                pyipc.connect(address, wait=False, reconnect=False),
            ):
                result = await program.finish()
        else:
            async with pyipc.Server(address) as server:
                server.on("x", lambda message: None)
                result = await run(*arguments, command=["bash", "-c", script, "bash", *PYIPC])
    assert result.out == f"status {ExitCode.BROKEN_PIPE:d}\n"
    assert "Traceback" not in result.err
    assert "Exception" not in result.err


@LINUX
async def test_a_reader_that_leaves_is_noticed_without_anything_to_write(address: str, directory: Path) -> None:
    reading, writing = os.pipe()
    async with start("serve", address, stdout=writing) as server:
        os.close(writing)
        await server.listening()
        os.close(reading)
        result = await server.finish()
    assert (result.status, result.err) == (ExitCode.BROKEN_PIPE, f"listening on {address}\n")
    assert list(directory.iterdir()) == []


@POSIX
@pytest.mark.parametrize("non_blocking", [False, True])
async def test_a_reader_that_stops_reading_holds_back_the_sender_and_nobody_else(
    address: str, non_blocking: bool
) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, not non_blocking)
    count, filler = 6_000, "x" * 1_000
    async with start("serve", address, "--json", stdout=writing) as server:
        os.close(writing)
        await server.listening()
        with trio.fail_after(2 * PATIENCE):
            async with (
                pyipc.connect(address, heartbeat_interval=0.1) as client,
                pyipc.connect(address, heartbeat_interval=0.1) as other,
                trio.open_nursery() as nursery,
            ):
                sent = 0

                async def flood() -> None:
                    nonlocal sent
                    for number in range(count):
                        await client.emit("flood", [number, filler])
                        sent += 1

                nursery.start_soon(flood)
                # At last nothing moves but the heartbeats, without which each side would soon give up the other.
                before = -1
                while sent != before:
                    before = sent
                    for connected in (client, other):
                        start_size = _received(connected)
                        await eventually(functools.partial(_has_received, connected, start_size + 200), "heartbeats")
                assert _outbox_size(client) >= 64 * 1024
                assert sent < count
                assert client.statistics().connects == other.statistics().connects == 1
                # The reader is back.
                records = await _read_records(reading, count)
    os.close(reading)
    assert [record["data"][0] for record in records] == list(range(count))


def _outbox_size(client: pyipc.Client) -> int:
    connection = client.statistics().connection
    return 0 if connection is None else connection.outbox_size


def _has_received(client: pyipc.Client, size: int) -> bool:
    return _received(client) >= size


def _received(client: pyipc.Client) -> int:
    connection = client.statistics().connection
    assert connection is not None
    return connection.bytes_received


async def _read_records(descriptor: int, count: int) -> list[dict[str, Any]]:
    """So many events from a pipe."""
    events: list[dict[str, Any]] = []
    async with trio.lowlevel.FdStream(os.dup(descriptor)) as stream:
        rest = b""
        while len(events) < count:
            data = await stream.receive_some(65536)
            assert data, "the output ended"
            *lines, rest = (rest + data).split(b"\n")
            events += [record for line in lines if (record := json.loads(line))["kind"] == "event"]
    return events


@POSIX
@pytest.mark.parametrize("number", [2, 15])
async def test_a_blocked_output_does_not_keep_it_from_ending(address: str, directory: Path, number: int) -> None:
    reading, writing = os.pipe()
    async with start("serve", address, stdout=writing) as server:
        os.close(writing)
        await server.listening()
        # What the server has not read when it ends is lost.
        with trio.fail_after(2 * PATIENCE), contextlib.suppress(pyipc.Undelivered):
            async with pyipc.connect(address, reconnect=False, offline="raise") as client:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_flood, client)
                    await eventually(lambda: _outbox_size(client) >= 64 * 1024, "back-pressure")
                    server.process.send_signal(number)
                    await eventually(lambda: not client.connected, "the goodbye")
                    nursery.cancel_scope.cancel()
                # The second one does not wait for what the first has to.
                server.process.send_signal(number)
                result = await server.finish()
    os.close(reading)
    assert result.status == 128 + number
    assert "Traceback" not in result.err
    assert list(directory.iterdir()) == []


async def _flood(client: pyipc.Client) -> None:
    with contextlib.suppress(pyipc.ConnectionClosed):
        while True:
            await client.emit("flood", "x" * 1_000)


# --- text ---


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("plain ä 漢 🙂", "plain ä 漢 🙂"),
        ("\x1b[31m", r"\x1b[31m"),
        ("\x9b31m", r"\x9b31m"),
        ("a\nb\tc\r\0\x7f", r"a\nb\tc\r\x00\x7f"),
        ("\u202eright\u2028\u200b\ufeff", r"\u202eright\u2028\u200b\ufeff"),
        ("\ud800", r"\ud800"),
        ("\u2800\ufe0f\u034f", r"\u2800\ufe0f\u034f"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_text_that_a_terminal_would_obey_is_escaped(text: str, safe: str) -> None:
    assert printable(text) == safe
    assert json.loads(json_text([text])) == [text]
    assert not re.search("[\x00-\x1f\x7f-\x9f\u2028\u202e\ud800]", json_text([text]))


HIDING = "\xad\u034f\u115f\u180e\u3164\ufe0f\ufff9\u2800\U000e0000\U000e007f"


def test_whatever_reorders_or_hides_text_is_escaped() -> None:
    every = [chr(number) for number in range(sys.maxunicode + 1)]
    unsafe = [one for one in every if unicodedata.category(one) in ("Cc", "Cf", "Cs", "Zl", "Zp")] + list(HIDING)
    assert [one for one in unsafe if not printable(one).isascii()] == []
    assert [one for one in unsafe if not json_text(one).isascii() or json.loads(json_text(one)) != one] == []


def test_json_may_be_indented() -> None:
    assert json_text({"a": [1]}, indent=2) == '{\n  "a": [\n    1\n  ]\n}'


def test_json_has_no_nan() -> None:
    assert (
        json_text({"a": [float("nan"), float("-inf"), 1.5], "b": (float("inf"),)}) == '{"a":[null,null,1.5],"b":[null]}'
    )


def test_json_in_a_narrow_encoding() -> None:
    assert json_text("ä🙂", ascii_only=True) == '"\\u00e4\\ud83d\\ude42"'


def test_bytes_are_shown_as_text_or_base64() -> None:
    assert payload(b"text") == {"data": "text"}
    assert payload(b"\xff") == {"base64": "/w=="}
    assert payload({"a": 1}) == {"data": {"a": 1}}
    assert payload_text(b"\x1b[1m\xff") == r"'\x1b[1m\xff'"


# --- stderr ---


async def test_errors_that_nobody_reads_are_counted_and_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w", encoding="utf-8") as stream, os.fdopen(reading, "rb") as pipe:
        monkeypatch.setattr(sys, "stderr", stream)
        console = Console(json=False, quiet=False, on_failure=lambda error: None)
        for number in range(100_000):
            console.error(f"warning {number:99,}")
        said = b""
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(console.errors.run)
                nursery.start_soon(console.drain)
                while b"left out" not in said:
                    said += await trio.to_thread.run_sync(pipe.read1, 65_536)
                console.error("the next one")
                while b"the next one" not in said:
                    said += await trio.to_thread.run_sync(pipe.read1, 65_536)
                nursery.cancel_scope.cancel()
    *lines, count, last = said.decode().splitlines()
    assert [line.split()[-1] for line in lines] == [f"{number:,}" for number in range(len(lines))]
    assert len(said) < 128 * 1024
    assert count == f"pyipc: {100_000 - len(lines):,} lines were left out here, as nobody read them"
    assert last == "the next one"
