"""``pyipc tap`` as a real process between real clients and servers."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio

import pyipc
from pyipc.cli.peers import check_peer
from pyipc.transports import Peer, memory_link_pair
from tests.cli.processes import PATIENCE, eventually, run, start
from tests.cli.terminal import start_in_terminal
from tests.conftest import CANNOT_RUN, needs_node
from tests.interop.node import Place, start_node

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.cli.processes import Program

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason=f"{CANNOT_RUN} there are no Unix sockets")
only_linux = pytest.mark.skipif(sys.platform != "linux", reason=f"{CANNOT_RUN} /proc tells the memory of a process")


@pytest.fixture
def spied(directory: Path) -> str:
    """Where clients connect."""
    return f"unix:{directory / 't'}"


def records(program: Program) -> list[dict[str, Any]]:
    return [json.loads(line) for line in program.out.decode().splitlines()]


# --- pyipc's own programs ---


async def test_attachments_go_past_unharmed_and_their_sizes_are_shown(address: str, spied: str, tmp_path: Path) -> None:
    content = random.Random(1).randbytes(300_000) + b"\f\x01"
    (tmp_path / "file").write_bytes(content)
    (tmp_path / "empty").write_bytes(b"")
    got: list[Any] = []
    server = pyipc.Server(address)
    server.on("photo", lambda message: got.append((message.data, list(message.attachments))))
    with trio.fail_after(2 * PATIENCE):
        async with server, start("tap", spied, address, "--json", "--lossless") as tap:
            assert await tap.listening() == spied
            files = ("--attach", str(tmp_path / "file"), "--attach", str(tmp_path / "empty"))
            emitted = await run("emit", spied, "photo", "1", "2", *files)
            assert (emitted.status, emitted.err) == (0, "")
            await eventually(lambda: "closed" in {each["kind"] for each in records(tap)})
            told = [
                (each["kind"], each["size"])
                for each in records(tap)
                if each["kind"] in ("attachment", "event", "large")
            ]
    assert got == [(number, [content, b""]) for number in (1, 2)]
    assert told == [("attachment", 300_002), ("attachment", 0), ("event", 25)] * 2


async def test_requests_and_events_between_real_programs(address: str, spied: str) -> None:
    async with start("serve", address, "--echo") as server:
        await server.listening()
        async with start("tap", spied, address) as tap:
            assert await tap.listening() == spied
            asked = await run("request", spied, "add", "[1,2]")
            assert (asked.status, asked.out) == (0, "[1,2]\n")
            assert (await run("emit", spied, "seen", '{"page":7}')).status == 0
            clock = r"^\d\d:\d\d:\d\d\.\d{3} "
            await tap.line(clock + r"#1    connected: process \d+, user \d+$")
            await tap.line(clock + r"#1 -> +\d+ B hello \{.*")
            await tap.line(clock + r"#1 <- +\d+ B welcome \{.*")
            await tap.line(clock + r'#1 -> +\d+ B request 1 "add" \[1,2\]$')
            await tap.line(clock + r'#1 <- +\d+ B reply 1 to "add" after [\d.]+ [mµ]?s \[1,2\]$')
            await tap.line(clock + r"#1    closed after .* ->, .* <-$")
            await tap.line(clock + r'#2 -> +33 B event "seen" \{"page":7\}$')
            await tap.line(clock + r"#2    closed")
            result = await tap.interrupt()
    assert result.status == 130
    assert result.err == f"listening on {spied}\npassing on to {address}\n"


async def test_records_have_everything(address: str, spied: str) -> None:
    async with start("serve", address, "--echo") as server:
        await server.listening()
        async with start("tap", spied, address, "--json") as tap:
            await tap.listening()
            await run("request", spied, "add", json.dumps("x" * 1_000))
            await tap.line('"kind":"closed"')
            seen = records(tap)
    kinds = [record["kind"] for record in seen]
    assert kinds[0] == "connected"
    assert kinds[-1] == "closed"
    assert kinds.count("end") == 2
    [request], [reply] = ([record for record in seen if record["kind"] == kind] for kind in ("request", "reply"))
    assert (request["direction"], request["request"], request["data"]) == ("->", "add", "x" * 1_000)
    assert (reply["direction"], reply["request"], reply["data"]) == ("<-", "add", "x" * 1_000)
    assert (reply["call"], reply["connection"]) == (request["call"], 1)
    assert reply["elapsed"] >= 0
    there = sum(record["size"] + 1 for record in seen if record.get("direction") == "->")
    assert seen[-1]["size_to_server"] == there


async def test_the_screen(address: str, spied: str) -> None:
    async with start("serve", address, "--echo") as server:
        await server.listening()
        async with start_in_terminal("tap", spied, address, columns=120) as terminal:
            await terminal.shows(f"passing on to {address}")
            await run("request", spied, "\x1b[31madd\u202e", '"\\u001b[2J"')
            await terminal.shows("closed after")
            # Nothing that a peer sends is obeyed.
            assert r'request 1 "\u001b[31madd\u202e" "\u001b[2J"' in terminal.text
            assert r"listening on" in terminal.lines[0]
            await terminal.type("\x03")
            assert await terminal.finish() == 130


# --- node-ipc ---


@pytest.mark.interop
@pytest.mark.parametrize("version", ["9.2.1", "10.1.0"])
async def test_real_node_programs_do_not_notice(version: str, directory: Path, address: str, spied: str) -> None:
    modules = needs_node(version)
    with trio.fail_after(50):
        async with trio.open_nursery() as nursery, start("tap", spied, address, "--json") as tap:
            await tap.listening()
            server = await start_node(nursery, modules, directory)
            client = await start_node(nursery, modules, directory)
            try:
                await server.serve(Place("unix", path=address.removeprefix("unix:")), echo=["ask"])
                await client.connect(Place("unix", path=spied.removeprefix("unix:")), on=["ask"])
                await client.command("emit", id="world", event="ask", js='({name: "Ada", list: [1, 2.5, null]})')
                answer = await client.event("ask")
                assert answer["data"] == {"name": "Ada", "list": [1, 2.5, None]}
                await tap.line('"kind":"event"', count=2)
            finally:
                await client.aclose()
                await server.aclose()
            events = [record for record in records(tap) if record["kind"] == "event"]
            nursery.cancel_scope.cancel()
    assert [(event["direction"], event["event"]) for event in events] == [("->", "ask"), ("<-", "ask")]
    assert events[0]["data"] == events[1]["data"] == {"name": "Ada", "list": [1, 2.5, None]}


# --- bytes ---


@asynccontextmanager
async def between_bare_sockets(
    kind: str, directory: Path, *options: str, stdout: int = subprocess.PIPE
) -> AsyncIterator[tuple[Program, Place, trio.SocketListener]]:
    """A tap, where its clients connect, and the listener that it leads to."""
    listener, target = await Place(kind, path=f"{directory}/s").listen()  # type: ignore[arg-type]
    where = f"unix:{directory}/t" if kind == "unix" else "tcp://127.0.0.1:0"
    async with listener, start("tap", where, target.address, *options, stdout=stdout) as tap:
        address = pyipc.parse_address(await tap.listening())
        yield tap, Place(kind, path=address.name, port=address.port), listener  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["unix", "tcp"])
async def test_hostile_bytes_arrive_as_they_were_and_each_direction_ends_alone(kind: str, directory: Path) -> None:
    chance = random.Random(11)
    hostile = b"\f\f{\f[[[[\f\x00\xff\xfe\f" + b'{"type":"pyipc.reply","data":{"call":1e99}}\f' + b"[" * 100_000 + b"\f"
    # Few frames, since the test reads all that is shown of them.
    there = hostile + chance.randbytes(1_000_003).replace(b"\f", b"\r") + b'\f{"type":"never fini'
    back = chance.randbytes(700_001).replace(b"\f", b"\0") + hostile
    with trio.fail_after(PATIENCE):
        async with between_bare_sockets(kind, directory, "--lossless") as (tap, place, listener):
            client = await place.open()
            server = await listener.accept()
            async with client, server:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(client.send_all, there)
                    got = bytearray()
                    while len(got) < len(there):
                        got += await server.receive_some()
                assert bytes(got) == there
                await client.send_eof()
                assert await server.receive_some() == b""
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(server.send_all, back)
                    got = bytearray()
                    while len(got) < len(back):
                        got += await client.receive_some()
                assert bytes(got) == back
                await server.send_eof()
                assert await client.receive_some() == b""
            await tap.line("closed after")
            await tap.line("malformed: not JSON")
            await tap.line('unfinished: the delimiter never came: .*{"type":"never fini')


async def test_raw_shows_chunks(directory: Path) -> None:
    with trio.fail_after(PATIENCE):
        async with between_bare_sockets("unix", directory, "--raw") as (tap, place, listener):
            client = await place.open()
            server = await listener.accept()
            async with client, server:
                await client.send_all(b"PING\r\n")
                assert await server.receive_some() == b"PING\r\n"
                await tap.line(r"#1 -> +6 B 'PING\\r\\n'$")
                await server.send_all(b"\x00\x01\xff")
                assert await client.receive_some() == b"\x00\x01\xff"
                await tap.line(r"00 01 ff .* \.\.\.$")


async def test_another_delimiter(directory: Path) -> None:
    with trio.fail_after(PATIENCE):
        async with between_bare_sockets("unix", directory, "--delimiter", r"\n") as (tap, place, listener):
            client = await place.open()
            server = await listener.accept()
            async with client, server:
                await client.send_all(b'{"type":"a"}\n{"type":"b","data":1}\n')
                await tap.line('event "a" null$')
                await tap.line('event "b" 1$')


@only_linux
async def test_a_large_message_to_a_slow_reader_in_little_memory(directory: Path) -> None:
    message = b'{"type":"large","data":"' + b"x" * 40_000_000 + b'"}\f'
    with trio.fail_after(PATIENCE):
        async with between_bare_sockets("unix", directory) as (tap, place, listener):
            client = await place.open()
            server = await listener.accept()
            before = peak_memory(tap)
            sent = trio.Event()

            async def send() -> None:
                await client.send_all(message)
                sent.set()
                await client.send_eof()

            async with client, server, trio.open_nursery() as nursery:
                nursery.start_soon(send)
                got = bytearray(await server.receive_some(1_000))
                # Whoever reads nothing holds back whoever writes: it cannot all be on its way.
                await tap.line("#1    connected")
                assert not sent.is_set()
                while chunk := await server.receive_some(50_000):
                    got += chunk
            assert bytes(got) == message
            await tap.line(r"#1 -> 38\.1 MiB large: shown in part: ")
            assert peak_memory(tap) - before < 20 * 1024 * 1024


def peak_memory(program: Program) -> int:
    """The most memory that a process has had, in bytes."""
    with open(f"/proc/{program.process.pid}/status") as file:
        [line] = [line for line in file if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


# --- a display that is slow ---

FRAMES = 20_000
FRAME = b'{"type":"tick","data":"' + b"x" * 100 + b'"}\f'


@pytest.mark.parametrize("lossless", [False, True])
async def test_a_display_that_stands_still(directory: Path, lossless: bool) -> None:
    """It is passed by, and what it missed is counted; or it holds the conversation, if that is wanted."""
    reading, writing = os.pipe()
    options = ["--json", *(["--lossless"] if lossless else [])]
    received = 0

    async def receive(server: trio.SocketStream) -> None:
        nonlocal received
        async for chunk in server:
            received += len(chunk)

    with trio.fail_after(PATIENCE), os.fdopen(reading, "rb", buffering=0) as pipe:
        async with between_bare_sockets("unix", directory, *options, stdout=writing) as (_, place, listener):
            os.close(writing)
            client = await place.open()
            server = await listener.accept()
            async with client, server, trio.open_nursery() as nursery:
                nursery.start_soon(receive, server)

                async def send() -> None:
                    await client.send_all(FRAME * FRAMES)
                    await client.send_eof()

                nursery.start_soon(send)
                if lossless:
                    # Nothing arrives any more, however long that is watched, although not all has.
                    before = -1
                    while received != before:
                        before = received
                        await trio.sleep(0.3)
                    assert received < len(FRAME) * FRAMES
                else:
                    await eventually(lambda: received == len(FRAME) * FRAMES, "the whole conversation")
                shown, skipped = await trio.to_thread.run_sync(read_until_all_is_told_of, pipe)
    if lossless:
        assert (shown, skipped) == (FRAMES, 0)
    else:
        assert 0 < shown < FRAMES
        # The client's end may have been skipped as well, and the connection's.
        assert FRAMES <= shown + skipped <= FRAMES + 3


def read_until_all_is_told_of(pipe: Any) -> tuple[int, int]:
    """Read records until every frame was shown or counted; how many were, each way."""
    rest, shown, skipped = b"", 0, 0
    while shown + skipped < FRAMES:
        *lines, rest = (rest + pipe.read(65_536)).split(b"\n")
        for record in map(json.loads, lines):
            shown += record["kind"] == "event"
            skipped += record.get("count", 0)
    return shown, skipped


async def test_it_can_be_ended_while_its_display_stands_still(directory: Path) -> None:
    reading, writing = os.pipe()
    with trio.fail_after(PATIENCE), os.fdopen(reading, "rb", buffering=0):
        async with between_bare_sockets("unix", directory, "--lossless", stdout=writing) as (tap, place, listener):
            os.close(writing)
            client = await place.open()
            server = await listener.accept()

            async def send() -> None:
                with pytest.raises(trio.BrokenResourceError):
                    await client.send_all(FRAME * 10 * FRAMES)

            async with client, server, trio.open_nursery() as nursery:
                nursery.start_soon(send)
                assert await server.receive_some()
                result = await tap.interrupt()
    assert result.status == 130
    assert not (directory / "t").exists()


# --- those who are not there, or too many ---


async def test_a_target_that_is_not_there_costs_that_client_alone(address: str, spied: str) -> None:
    async with start("tap", spied, address) as tap:
        await tap.listening()
        # Whether it sees a connection that ends at once, or none, is a matter of the moment; each has its own time.
        refused = await run("request", spied, "add", "1", "--connect-timeout", "1", "--timeout", "2")
        assert refused.status != 0
        await tap.line(r"^pyipc: #1 could not be passed on: nobody listens on .*; start the server$", stream="err")
        async with start("serve", address, "--echo") as server:
            await server.listening()
            assert (await run("request", spied, "add", "1")).out == "1\n"


async def test_too_many_are_turned_away_and_told(address: str, spied: str) -> None:
    program = (
        "import sys, pyipc.cli.main, pyipc.cli.commands.tap as tap\n"
        "tap._MAX_CONVERSATIONS = 2\n"
        "sys.exit(pyipc.cli.main.main(sys.argv[1:]))\n"
    )
    path = spied.removeprefix("unix:")
    with trio.fail_after(2 * PATIENCE):
        async with pyipc.Server(address), start("tap", spied, address, command=[sys.executable, "-c", program]) as tap:
            await tap.listening()
            first, second = [await trio.open_unix_socket(path) for _ in range(2)]
            await tap.line("#2    connected")
            async with second:
                async with first, await trio.open_unix_socket(path) as third:
                    assert await third.receive_some() == b""
                await tap.line("#1    closed")
                # Its place is free again.
                async with await trio.open_unix_socket(path):
                    await tap.line("#4    connected")
            result = await tap.interrupt()
    assert "pyipc: turned away #3: 2 connections are passed on already\n" in result.err


async def test_many_at_once(address: str, spied: str) -> None:
    async with pyipc.Server(address) as server, start("tap", spied, address, "--json") as tap:
        server.on("double", lambda message: 2 * message.data)
        await tap.listening()
        answers: dict[int, int] = {}

        async def ask(number: int) -> None:
            async with pyipc.connect(spied, connect_timeout=PATIENCE) as client:
                answers[number] = await client.request("double", number)

        async with trio.open_nursery() as nursery:
            for number in range(60):
                nursery.start_soon(ask, number)
        assert answers == {number: 2 * number for number in range(60)}
        await tap.line('"kind":"closed"', count=60)
        replies = [record for record in records(tap) if record["kind"] == "reply"]
        assert sorted(record["data"] for record in replies) == [2 * number for number in range(60)]


async def test_the_end_of_the_server_is_the_end_for_the_client(address: str, spied: str) -> None:
    async with start("tap", spied, address) as tap, start("serve", address) as server:
        await tap.listening()
        await server.listening()
        async with pyipc.connect(spied, reconnect=False) as client:
            await client.request("hello")
            server.process.kill()
            with trio.fail_after(PATIENCE):
                await eventually(lambda: not client.connected, "the end of the connection")
        await tap.line("#1    closed after")


async def test_an_address_that_is_taken_is_told(address: str) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(address.removeprefix("unix:"))
        other.listen()
        result = await run("tap", address, "nobody")
    assert result.status == 3
    assert result.err.startswith("pyipc: another program listens on ")


async def test_an_address_beyond_this_host_is_refused() -> None:
    result = await run("tap", "tcp://0.0.0.0:0", "world")
    assert result.status == 2
    assert "beyond this host" in result.err


@pytest.mark.parametrize("uid", [None, -5, 65534])
async def test_other_users_are_turned_away(uid: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those whom the kernel cannot name, if we are such a one ourselves."""
    if uid == 65534:
        monkeypatch.setattr(os, "geteuid", lambda: uid)
    link, other = memory_link_pair(left=Peer(address="unix:/s", uid=uid))
    with trio.fail_after(PATIENCE):
        with pytest.raises(pyipc.PeerNotAllowed):
            await check_peer(pyipc.Endpoint("unix:/s"), link)
        assert await other.receive() == b""


async def test_this_user_is_admitted() -> None:
    link, _ = memory_link_pair(left=Peer(address="unix:/s", uid=os.geteuid()))
    await check_peer(pyipc.Endpoint("unix:/s"), link)
    link.send_nowait(b"x")
