"""``pyipc serve``: shows what arrives, and answers."""

from __future__ import annotations

import base64
import datetime
import json
import re
from typing import TYPE_CHECKING, Any

import pytest
import trio

import pyipc
from pyipc.cli.exits import ExitCode
from tests.cli.processes import PATIENCE, run, start

if TYPE_CHECKING:
    from pathlib import Path

TIME = r"\d\d:\d\d:\d\d\.\d{3}"


async def test_what_is_shown(address: str) -> None:
    async with start("serve", address) as server:
        assert await server.listening() == address
        await run("emit", address, "seen", '{"page": 7}', "2")
        await run("request", address, "greet", '"Ada"')
        await server.line("disconnected", count=2)
        shown = (await server.interrupt()).out
    assert re.fullmatch(
        rf"{TIME}  #1  connected     process \d+, user \d+\n"
        rf'{TIME}  #1  event         seen  {{"page":7}}\n'
        rf"{TIME}  #1  event         seen  2\n"
        rf"{TIME}  #1  disconnected  the peer closed.*\n"
        rf"{TIME}  #2  connected     process \d+, user \d+\n"
        rf'{TIME}  #2  request       greet  "Ada"\n'
        rf"{TIME}  #2  disconnected  the peer closed \(goodbye\)\n",
        shown,
    )


async def test_what_is_recorded(address: str) -> None:
    async with start("serve", address, "--json") as server:
        await server.listening()
        await run("emit", address, "a", "[1]")
        await run("request", address, "b", "{}")
        await server.line("disconnected", count=2)
        records = [json.loads(line) for line in (await server.interrupt()).lines]
    assert records[0] == {"kind": "listening", "address": address}
    kinds = ["connected", "event", "disconnected", "connected", "request", "disconnected"]
    assert [record["kind"] for record in records[1:]] == kinds
    assert [record["connection"] for record in records[1:]] == [1, 1, 1, 2, 2, 2]
    assert all(datetime.datetime.fromisoformat(record["time"]).tzinfo for record in records[1:])
    assert records[2] | {"time": ""} == {"time": "", "kind": "event", "connection": 1, "event": "a", "data": [1]}
    assert records[5]["event"] == "b"
    assert records[1]["peer"].keys() == {"address", "pid", "uid", "gid"}
    assert (records[6]["code"], records[6]["by_peer"]) == ("goodbye", True)


@pytest.mark.parametrize(
    ("arguments", "reply", "echoed"),
    [
        ([], None, False),
        (["--echo"], {"n": 1}, True),
        (["--reply", '{"ok": true}'], {"ok": True}, False),
        (["--reply", "5", "--echo"], 5, True),
        (["--reply", "null", "--echo"], None, True),
    ],
)
async def test_what_is_answered(address: str, arguments: list[str], reply: Any, echoed: bool) -> None:
    async with start("serve", address, *arguments) as server:
        await server.listening()
        with trio.fail_after(PATIENCE):
            async with pyipc.connect(address) as client, client.events("**") as events:
                for name in ("plain", "with.dots", "a.b.c"):
                    assert await client.request(name, {"n": 1}) == reply
                    await client.emit(name, [name])
                # A later request has overtaken no event: whatever was to be sent back is here by then.
                await client.request("last")
                came = [await events.get(timeout=PATIENCE) for _ in range(3 if echoed else 0)]
                assert [(message.event, message.data) for message in came] == (
                    [(name, [name]) for name in ("plain", "with.dots", "a.b.c")] if echoed else []
                )
        await server.line("  (event|request)  ", count=7)
        assert re.findall(r"#1  (event|request) ", server.out.decode()) == ["request", "event"] * 3 + ["request"]


async def test_events_and_requests_at_once_are_told_apart(address: str) -> None:
    async with start("serve", address, "--echo", "--json") as server:
        await server.listening()
        with trio.fail_after(2 * PATIENCE):
            async with pyipc.connect(address) as client, trio.open_nursery() as nursery:

                async def ask(number: int) -> None:
                    assert await client.request("question", number) == number

                for number in range(300):
                    nursery.start_soon(ask, number)
                    await client.emit("statement", number)
        await server.line("disconnected")
        records = [json.loads(line) for line in (await server.interrupt()).lines]
    assert [record["data"] for record in records if record["kind"] == "event"] == list(range(300))
    assert all(record["event"] == "statement" for record in records if record["kind"] == "event")
    asked = [record for record in records if record["kind"] == "request"]
    assert all(record["event"] == "question" for record in asked)
    assert sorted(record["data"] for record in asked) == list(range(300))


async def test_several_addresses(address: str, directory: Path) -> None:
    async with start("serve", address, "tcp://127.0.0.1:0", "--count", "2", "--json") as server:
        tcp = (await server.line(r"listening on (tcp://127\.0\.0\.1:\d+)$", stream="err"))[1]
        assert not tcp.endswith(":0")
        assert (await run("emit", address, "x", "1")).status == 0
        assert (await run("emit", tcp, "x", "2")).status == 0
        result = await server.finish()
    records = [json.loads(line) for line in result.lines]
    assert [record["address"] for record in records if record["kind"] == "listening"] == [address, tcp]
    assert [record["data"] for record in records if record["kind"] == "event"] == [1, 2]
    (over_tcp,) = [record["peer"] for record in records if record["kind"] == "connected" and record["connection"] == 2]
    assert over_tcp["address"].startswith("tcp://127.0.0.1:")
    assert "pid" not in over_tcp
    assert result.status == 0
    assert list(directory.iterdir()) == []


async def test_the_last_of_a_count_is_answered_and_no_more_are_shown(address: str) -> None:
    async with start("serve", address, "--count", "3", "--reply", '"yes"') as server:
        await server.listening()
        result = await run("request", address, "q", "--lines", "--concurrency", "3", input="1\n2\n3\n")
        assert (result.status, result.out) == (0, '"yes"\n' * 3)
        ended = await server.finish()
    assert ended.status == 0
    assert ended.out.count(" request ") == 3


async def test_too_few_in_time(address: str) -> None:
    result = await run("serve", address, "--count", "2", "--timeout", "0.3")
    assert result.status == ExitCode.TIMEOUT
    assert result.err.splitlines()[-1] == "pyipc: 0 of 2 messages came within 0.3 s"
    assert (await run("serve", address, "--timeout", "0.3")).status == 0


async def test_an_address_that_is_taken(address: str) -> None:
    async with start("serve", address) as server:
        await server.listening()
        result = await run("serve", address)
        assert (result.status, result.out) == (ExitCode.UNREACHABLE, "")
        assert address.removeprefix("unix:") in result.err


async def test_raw_bytes(address: str) -> None:
    async with start("serve", address, "--raw", "--echo", "--json") as server:
        await server.listening()
        with trio.fail_after(PATIENCE):
            stream = await trio.open_unix_socket(address.removeprefix("unix:"))
            for data in (b"text \xc3\xa4\n", b"\xff\x00"):
                await stream.send_all(data)
                back = b""
                while len(back) < len(data):
                    back += await stream.receive_some()
                assert back == data
            await stream.aclose()
        await server.line("disconnected")
        events = [json.loads(line) for line in server.out.decode().splitlines() if '"event"' in line]
    assert events[0]["data"] == "text ä\n"
    assert base64.b64decode(events[1]["base64"]) == b"\xff\x00"


async def test_what_cannot_be_sent_back_is_told(address: str) -> None:
    """node-ipc programs cannot survive some names, and one may still send them."""
    async with start("serve", address, "--echo") as server:
        await server.listening()
        with trio.fail_after(PATIENCE):
            stream = await trio.open_unix_socket(address.removeprefix("unix:"))
            await stream.send_all(b'{"type":"toString","data":1}\f{"type":"fine","data":2}\f')
            assert await stream.receive_some() == b'{"type":"fine","data":2}\f'
            await stream.aclose()
        await server.line("an event is not sent back: .*toString", stream="err")


async def test_malformed_input_costs_its_sender_the_connection(address: str) -> None:
    async with start("serve", address) as server:
        await server.listening()
        with trio.fail_after(PATIENCE):
            stream = await trio.open_unix_socket(address.removeprefix("unix:"))
            await stream.send_all(b"nonsense\f")
            assert await stream.receive_some() == b""
            await stream.aclose()
        await server.line(r"disconnected  the peer sent a frame that is not JSON.* \(json\)$")
        assert (await run("request", address, "x", "1")).status == 0
