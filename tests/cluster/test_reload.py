"""New code under load: nobody notices but by its answers."""

from __future__ import annotations

import collections
import re
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import h11
import pytest
import trio

import pyipc
from pyipc import cluster

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

PROGRAM = Path(__file__).parent / "programs" / "versioned.py"
CLIENTS = 20
posix = pytest.mark.skipif(sys.platform == "win32", reason="cannot run here: two kinds of sockets are handed over")


class Versioned:
    """A program whose source can be edited while workers run it, and the cluster that runs it."""

    def __init__(self, directory: Path) -> None:
        self.source = directory / "versioned.py"
        self.source.write_text(PROGRAM.read_text("utf-8"), "utf-8")
        self.version = 1
        self.pyipc_address = f"unix:{directory}/service.sock"
        self.http_port = 0
        self.listening = trio.Event()
        self.cluster = cluster.Cluster(
            "versioned:main",
            workers=2,
            cwd=str(directory),
            env={
                "PYTHONPATH": str(Path(pyipc.__file__).parent.parent),
                "PYTHONDONTWRITEBYTECODE": "1",
                "PYIPC_ADDRESS": self.pyipc_address,
                "HTTP_ADDRESS": "tcp://127.0.0.1:0",
            },
        )
        self.cluster.on("listening", self._note)

    def _note(self, event: cluster.WorkerEvent) -> None:
        assert event.address is not None
        if event.address.scheme == "tcp":
            self.http_port = event.address.port
            self.listening.set()

    def edit(self, text: str | None = None) -> None:
        """Write the next version, or something that is no program."""
        self.version += 1
        before = self.source.read_text("utf-8")
        self.source.write_text(text or re.sub(r"VERSION = \d+", f"VERSION = {self.version}", before), "utf-8")


@asynccontextmanager
async def versioned(directory: Path) -> AsyncIterator[Versioned]:
    program = Versioned(directory)
    async with program.cluster:
        await program.listening.wait()
        yield program


class Tally:
    """What clients asked and what they were told: (version they may expect at least, version told)."""

    def __init__(self, program: Versioned) -> None:
        self.program = program
        self.asked = 0
        self.answers: collections.Counter[int] = collections.Counter()
        self.errors: list[str] = []
        self.least = 1
        self.stale = 0
        self.stop = False
        self._more = trio.Event()

    async def wait_asked(self, count: int) -> None:
        """Wait until so many more things were asked."""
        goal = self.asked + count
        while self.asked < goal:
            await self._more.wait()

    async def ask(self, ask: Callable[[int], Awaitable[tuple[int, int]]]) -> None:
        """Ask one thing, and see that the answer is to it, and of no version that is gone for good."""
        self.asked += 1
        self._more.set()
        self._more = trio.Event()
        number, least = self.asked, self.least
        try:
            version, echoed = await ask(number)
        except (pyipc.IPCError, OSError, h11.ProtocolError, trio.BrokenResourceError) as error:
            self.errors.append(repr(error))
            return
        if echoed != number:
            self.errors.append(f"{echoed} for {number}")
        self.stale += version < least
        self.answers[version] += 1


async def over_pyipc(tally: Tally, keep: bool) -> None:
    address = tally.program.pyipc_address
    while not tally.stop:
        async with pyipc.connect(address) as client:

            async def ask(number: int, client: pyipc.Client = client) -> tuple[int, int]:
                version, echoed = await client.request("version", number)
                return version, echoed

            await tally.ask(ask)
            while keep and not tally.stop:
                await tally.ask(ask)


async def over_http(tally: Tally, keep: bool) -> None:
    while not tally.stop:
        # A connection that the server has asked to close is not used again; nothing else is tried twice.
        stream = await trio.open_tcp_stream("127.0.0.1", tally.program.http_port)
        connection = h11.Connection(h11.CLIENT)

        async def ask(
            number: int, stream: trio.SocketStream = stream, connection: h11.Connection = connection
        ) -> tuple[int, int]:
            headers = [("Host", "test")] if keep else [("Host", "test"), ("Connection", "close")]
            question = connection.send(h11.Request(method="GET", target=f"/{number}", headers=headers))
            await stream.send_all((question or b"") + (connection.send(h11.EndOfMessage()) or b""))
            body = b""
            while True:
                event = connection.next_event()
                if event is h11.NEED_DATA:
                    connection.receive_data(bytes(await stream.receive_some()))
                elif isinstance(event, h11.Data):
                    body += bytes(event.data)
                elif isinstance(event, h11.EndOfMessage):
                    version, target = body.decode().split()
                    return int(version), int(target.removeprefix("/"))

        async with stream:
            while True:
                await tally.ask(ask)
                if not (keep and connection.our_state is h11.DONE) or tally.stop:
                    break
                connection.start_next_cycle()


@posix
@pytest.mark.slow
@pytest.mark.parametrize("keep", [False, True], ids=["one request per connection", "kept alive"])
@pytest.mark.parametrize("client", [over_pyipc, over_http])
async def test_two_reloads_under_load_lose_nothing_and_every_later_answer_is_new(
    client: Callable[[Tally, bool], Awaitable[None]], keep: bool, tmp_path: Path
) -> None:
    async with versioned(tmp_path) as program:
        tally = Tally(program)
        async with trio.open_nursery() as nursery:
            for _ in range(CLIENTS):
                nursery.start_soon(client, tally, keep)
            for _ in range(2):
                await tally.wait_asked(10 * CLIENTS)
                program.edit()
                await program.cluster.reload()
                tally.least = program.version
            await tally.wait_asked(10 * CLIENTS)
            tally.stop = True
    assert tally.errors == []
    assert sum(tally.answers.values()) == tally.asked
    assert tally.stale == 0
    assert all(tally.answers[version] for version in (1, 2, 3)), tally.answers
    print(f"{tally.asked} asked, {dict(tally.answers)} answered by each version, {len(tally.errors)} errors")


@posix
@pytest.mark.parametrize(
    ("why", "edit"),
    [
        ("does not parse", "this is no Python"),
        ("ends at once", "raise SystemExit(3)"),
        ("is never ready", "import trio\n\n\nasync def main(worker):\n    await trio.sleep_forever()\n"),
    ],
)
async def test_a_reload_whose_workers_do_not_become_ready_is_given_up_and_the_old_ones_go_on(
    why: str, edit: str, tmp_path: Path
) -> None:
    async with versioned(tmp_path) as program, pyipc.connect(program.pyipc_address) as client:
        pids = {worker.pid for worker in program.cluster.workers.values()}
        for worker in program.cluster.workers.values():
            worker.settings = worker.settings.changed({"ready_timeout": 2.0 if "never" in why else 30.0})
        sound = program.source.read_text("utf-8")
        program.edit(edit)
        with pytest.raises(cluster.ReloadFailed) as caught:
            await program.cluster.reload()
        # The first that fails ends the others, unless they have failed as well by then.
        assert caught.value.reasons
        assert set(caught.value.reasons) <= set(program.cluster.workers)
        assert {worker.pid for worker in program.cluster.workers.values()} == pids
        assert await client.request("version", 7) == [1, 7]
        async with pyipc.connect(program.pyipc_address) as another:
            assert await another.request("version", 8) == [1, 8]
        # What is mended can be reloaded.
        for worker in program.cluster.workers.values():
            worker.settings = worker.settings.changed({"ready_timeout": 50.0})
        program.source.write_text(sound, "utf-8")
        program.edit()
        await program.cluster.reload()
        assert (await client.request("version", 9))[0] == program.version
