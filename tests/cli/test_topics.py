"""``pyipc subscribe`` and ``pyipc publish``: with a server between them, and without what it refuses."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio

import pyipc
from pyipc.cli.exits import ExitCode
from tests.cli.processes import PATIENCE, Program, eventually, run, start


def shown(program: Program) -> list[tuple[str, str, Any]]:
    """What a subscriber with ``--json`` has shown."""
    records = [json.loads(line) for line in program.out.decode().splitlines()]
    return [(record["kind"], record["event"], record["data"]) for record in records]


async def test_one_shows_what_the_other_publishes(address: str) -> None:
    with trio.fail_after(2 * PATIENCE):
        async with pyipc.Server(address) as server, start("subscribe", address, "orders.*") as subscriber:
            await subscriber.line("^subscribed at", stream="err")
            result = await run("publish", address, "orders.new", '{"id": 7}')
            assert (result.status, result.out, result.err) == (0, "", "")
            await subscriber.line(r'^\d\d:\d\d:\d\d\.\d{3}  #1  published     orders\.new  {"id":7}$')
            assert server.statistics().publishes == 1


async def test_what_is_kept_is_shown_as_that_or_left_out(address: str) -> None:
    with trio.fail_after(2 * PATIENCE):
        async with pyipc.Server(address):
            result = await run("publish", address, "state.load", "0.5", "0.7", "--retain", "--json")
            assert (result.status, json.loads(result.out)) == (
                0,
                {"kind": "emitted", "event": "state.load", "count": 2},
            )
            async with start("subscribe", address, "state.*", "--json", "--count", "1") as subscriber:
                assert (await subscriber.finish()).status == 0
            assert shown(subscriber) == [("retained", "state.load", 0.7)]
            async with start("subscribe", address, "state.*", "--json", "--count", "1", "--new") as subscriber:
                await subscriber.line("^subscribed at", stream="err")
                await run("publish", address, "state.other", "--text", "now")
                assert (await subscriber.finish()).status == 0
            assert shown(subscriber) == [("published", "state.other", "now")]


async def test_nothing_is_shown_twice(address: str) -> None:
    with trio.fail_after(2 * PATIENCE):
        async with (
            pyipc.Server(address) as server,
            start("subscribe", address, "a.*", "a.**", "b", "**", "--json", "--count", "4") as subscriber,
        ):
            await subscriber.line("^subscribed at", stream="err")
            topics = ["a.x", "a", "b", "c"]
            for topic in topics:
                await server.publish(topic, topic)
            assert (await subscriber.finish()).status == 0
    assert sorted(shown(subscriber)) == sorted(("published", topic, topic) for topic in topics)


async def test_it_comes_back(address: str) -> None:
    with trio.fail_after(2 * PATIENCE):
        options = ("--json", "--count", "2", "--connect-timeout", "20")
        async with start("subscribe", address, "t", *options) as subscriber:
            for number in range(2):
                async with pyipc.Server(address) as server:
                    await eventually(lambda: server.statistics().subscriptions, "the subscription")
                    await server.publish("t", number)
                    await subscriber.line(f'"data":{number}}}$')
            result = await subscriber.finish()
    assert (result.status, [data for _, _, data in shown(subscriber)]) == (0, [0, 1])
    assert "connecting again" in result.err


@pytest.mark.parametrize("quiet", [False, True])
async def test_what_the_server_refuses(address: str, quiet: bool) -> None:
    more = ["--quiet"] if quiet else []
    server = pyipc.Server(
        address, may_subscribe=lambda peer, pattern: False, may_publish=lambda peer, topic: topic == "open"
    )
    with trio.fail_after(2 * PATIENCE):
        async with server:
            result = await run("subscribe", address, "a", *more)
            assert result.status == ExitCode.REFUSED
            assert "not-allowed: this peer may not subscribe to 'a'" in result.err
            result = await run("publish", address, "closed", "1", "2", *more)
            assert result.status == ExitCode.REFUSED
            assert "the server refused to publish 2 of 2 under closed" in result.err
            assert ("this peer may not publish 'closed'" in result.err) is not quiet
            result = await run("publish", address, "open", "1", *more)
            assert (result.status, result.err) == (0, "")
            result = await run("publish", address, "a.*", "1")
            assert result.status == ExitCode.USAGE
            result = await run("subscribe", address, "a*")
            assert result.status == ExitCode.USAGE


async def test_nobody_there_and_too_few_in_time(address: str) -> None:
    result = await run("publish", address, "t", "1", "--connect-timeout", "0.2")
    assert result.status == ExitCode.UNREACHABLE
    with trio.fail_after(2 * PATIENCE):
        async with pyipc.Server(address):
            result = await run("subscribe", address, "t", "--count", "1", "--timeout", "0.3", "--quiet")
    assert (result.status, result.err) == (ExitCode.TIMEOUT, "pyipc: 0 of 1 messages came within 0.3 s\n")
