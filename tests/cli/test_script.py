"""Every command through the script that is installed, as a person types it."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

import pyipc
from pyipc.cli.main import COMMANDS
from tests.cli.processes import SCRIPT, run, start
from tests.conftest import CANNOT_RUN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason=f"{CANNOT_RUN} there are no Unix sockets")

SCRIPTED = [SCRIPT]


async def test_serve_request_emit_tap_and_doctor(address: str, directory: Path) -> None:
    spied = f"unix:{directory / 't'}"
    async with start("serve", address, "--echo", command=SCRIPTED) as server:
        await server.listening()
        async with start("tap", spied, address, command=SCRIPTED) as tap:
            await tap.listening()
            asked = await run("request", spied, "add", "[1, 2]", command=SCRIPTED)
            assert (asked.status, asked.out, asked.err) == (0, "[1,2]\n", "")
            emitted = await run("emit", spied, "seen", "7", command=SCRIPTED)
            assert (emitted.status, emitted.out, emitted.err) == (0, "", "")
            await server.line("event +seen +7$")
            await tap.line('request 1 "add" ')
            await tap.line('event "seen" 7$')
            assert (await tap.interrupt()).status == 130
        looked = await run("doctor", address, command=SCRIPTED)
        assert (looked.status, looked.err) == (0, "")
        assert f"process {server.process.pid} " in looked.out
        assert (await server.interrupt()).status == 130
    assert list(directory.iterdir()) == []


async def test_broadcast_and_listen(address: str) -> None:
    async with start("broadcast", address, "news", "1", command=SCRIPTED) as broadcast:
        await broadcast.listening()
        listened = await run("listen", address, "--count", "1", "--json", "-q", command=SCRIPTED)
        assert (await broadcast.finish()).out == "sent to 1, dropped for 0\n"
    assert (listened.status, listened.err) == (0, "")
    [event] = map(json.loads, listened.lines)
    assert (event["kind"], event["event"], event["data"]) == ("event", "news", 1)


async def test_serve_subscribe_and_publish(address: str) -> None:
    async with start("serve", address, command=SCRIPTED) as server:
        await server.listening()
        async with start("subscribe", address, "a.*", "--count", "1", "--json", command=SCRIPTED) as subscriber:
            await subscriber.line("^subscribed at", stream="err")
            published = await run("publish", address, "a.b", "1", command=SCRIPTED)
            assert (published.status, published.out, published.err) == (0, "", "")
            assert (await subscriber.finish()).status == 0
            [message] = map(json.loads, subscriber.out.decode().splitlines())
            assert (message["kind"], message["event"], message["data"]) == ("published", "a.b", 1)


async def test_stream(address: str) -> None:
    server = pyipc.Server(address)

    @server.on("rows")
    async def rows(message: pyipc.Message[int]) -> AsyncIterator[int]:
        for number in range(message.data):
            yield number

    async with server:
        result = await run("stream", address, "rows", "3", command=SCRIPTED)
        assert (result.status, result.out, result.err) == (0, "0\n1\n2\n", "")


async def test_bench() -> None:
    result = await run("bench", "--count", "10", "--json", command=SCRIPTED)
    assert (result.status, result.err) == (0, "")
    assert json.loads(result.out)["count"] == 10


async def test_cert(tmp_path: Path) -> None:
    made = await run("cert", "ca", str(tmp_path / "authority"), command=SCRIPTED)
    assert (made.status, made.err) == (0, "")
    shown = await run("cert", "show", str(tmp_path / "authority" / "ca.pem"), "--json", command=SCRIPTED)
    assert shown.status == 0
    assert "sha256:" in shown.out


async def test_run(tmp_path: Path) -> None:
    program = tmp_path / "brief.py"
    program.write_text(
        "from pyipc import cluster\n\n\nasync def main(worker):\n    await worker.ready()\n\n\n"
        "cluster.run_worker(main)\n"
    )
    result = await run("run", str(program), "--workers", "1", command=SCRIPTED)
    assert (result.status, result.out) == (0, "")
    assert "all workers have returned" in result.err


def test_all_of_them_are_here() -> None:
    assert set(COMMANDS) == {
        *("serve", "request", "emit", "tap", "doctor", "broadcast", "listen", "bench", "cert"),
        *("subscribe", "publish", "stream", "run"),
    }
