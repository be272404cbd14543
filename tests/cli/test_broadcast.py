"""``pyipc broadcast``: a server for as long as it takes to tell its clients something."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import trio

from pyipc.cli.exits import ExitCode
from tests.cli.processes import PATIENCE, Program, run, start

if TYPE_CHECKING:
    from pathlib import Path


async def listeners(stack: AsyncExitStack, address: str, count: int, *arguments: str) -> list[Program]:
    """Listeners that wait for the server to be there."""
    return [
        await stack.enter_async_context(
            start("listen", address, "--json", "--connect-timeout", str(PATIENCE), *arguments)
        )
        for _ in range(count)
    ]


async def test_every_client_gets_every_line(address: str, directory: Path) -> None:
    async with AsyncExitStack() as stack:
        clients = await listeners(stack, address, 3, "--count", "2")
        result = await run("broadcast", address, "tick", "--lines", "--clients", "3", "--json", input='1\n{"n": 2}\n')
        assert (result.status, result.err) == (0, f"listening on {address}\n")
        report = {"kind": "broadcast", "event": "tick", "sent": 3, "dropped": 0}
        assert [json.loads(line) for line in result.lines] == [report] * 2
        for client in clients:
            records = [json.loads(line) for line in (await client.finish()).lines]
            assert [(record["event"], record["data"]) for record in records] == [("tick", 1), ("tick", {"n": 2})]
    assert list(directory.iterdir()) == []


async def test_much_is_dropped_for_nobody(address: str) -> None:
    """More than an outbox holds: who broadcasts waits for those who read."""
    lines = [json.dumps("x" * 10_000 + str(number)) for number in range(1_500)]
    async with AsyncExitStack() as stack:
        (client,) = await listeners(stack, address, 1, "--count", str(len(lines)))
        result = await run("broadcast", address, "tick", "--lines", input="\n".join(lines))
        assert (result.status, set(result.lines)) == (0, {"sent to 1, dropped for 0"})
        ended = await client.finish()
        assert [json.dumps(json.loads(line)["data"]) for line in ended.lines] == lines


async def test_it_waits_no_longer_than_it_is_told(address: str) -> None:
    async with AsyncExitStack() as stack:
        (client,) = await listeners(stack, address, 1, "--count", "1")
        async with start("broadcast", address, "tick", "5", "--clients", "9", "--wait", "3") as program:
            await client.line("^connected", stream="err")
            result = await program.finish()
            assert (result.status, result.out) == (0, "sent to 1, dropped for 0\n")
        assert json.loads((await client.finish()).out)["data"] == 5


async def test_nobody_came(address: str, directory: Path) -> None:
    result = await run("broadcast", address, "tick", "5", "--wait", "0.2")
    assert (result.status, result.out) == (ExitCode.TIMEOUT, "")
    assert result.err.splitlines()[-1] == "pyipc: nobody connected within 0.2 s; nothing was sent"
    assert list(directory.iterdir()) == []


async def test_what_cannot_be_sent_is_refused_before_listening(address: str) -> None:
    result = await run("broadcast", address, "tick", "{")
    assert (result.status, result.out) == (ExitCode.USAGE, "")
    assert "listening" not in result.err


async def test_a_dropped_copy_is_an_exit_status(address: str) -> None:
    """A client that never reads is waited for once, then closed, and misses what comes after that."""
    lines = "\n".join(json.dumps("x" * 900_000) for _ in range(16))
    async with start("broadcast", address, "tick", "--lines") as program:
        await program.listening()
        with trio.fail_after(2 * PATIENCE):
            stream = await trio.open_unix_socket(address.removeprefix("unix:"))
            await program.write(lines)
            await program.close_stdin()
            result = await program.finish()
            await stream.aclose()
    assert result.status == ExitCode.LOST
