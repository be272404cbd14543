"""The same with real processes: a signal drains one server, another takes its place, and the ledgers agree."""

from __future__ import annotations

import collections
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

import pyipc

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="cannot run here: needs signals and Unix sockets")

ROOT = Path(__file__).resolve().parent.parent
CLIENTS = 3
AT_ONCE = 6
ROUNDS = 4

# Writes down every request that it handles before it answers; drains when it is told to end.
SERVER = """
import dataclasses, json, signal, sys
import pyipc, trio

signal.alarm(240)  # longer than any test may take: it ends also where the test was killed before it could end this
address, ledger = sys.argv[1], open(sys.argv[2], "a", buffering=1)
server = pyipc.Server(address)

@server.on("work")
async def work(message):
    ledger.write(f"{message.data}\\n")
    await trio.sleep(message.data % 5 / 1000)
    return -message.data

@server.on("seen")
def seen(message):
    ledger.write(f"e{message.data}\\n")

async def main():
    async with trio.open_nursery() as nursery:
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            addresses = await nursery.start(server.run)
            print(addresses[0], flush=True)
            async for _ in signals:
                nursery.start_soon(drain)
                while not server.draining and not reports:
                    await trio.sleep(0)
                print("released", flush=True)
                released.set()
                return

reports, released = [], trio.Event()

async def drain():
    reports.append(await server.drain(60))
    await released.wait()
    print(json.dumps(dataclasses.asdict(reports[0])), flush=True)

trio.run(main)
"""


class Child:
    """A server in a process of its own."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self._rest = b""

    @classmethod
    async def start(cls, address: str, ledger: Path) -> tuple[Child, str]:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-c", SERVER, address, str(ledger)], stdout=subprocess.PIPE, cwd=ROOT
        )
        child = cls(process)
        try:
            return child, await child.line()
        except BaseException:
            process.kill()  # nobody else knows it yet
            with trio.CancelScope(shield=True):
                await process.wait()
            raise

    async def line(self) -> str:
        assert self.process.stdout is not None
        while b"\n" not in self._rest:
            chunk = await self.process.stdout.receive_some()
            assert chunk, "the server ended"
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()


class Load:
    """Clients that ask and emit without a pause, and what came of it."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self.addresses = addresses
        self.asked = 0
        self.emitted = 0
        self.answered: collections.Counter[int] = collections.Counter()
        self.moves = 0
        self.over = trio.Event()

    async def run(self) -> None:
        first, *others = self.addresses
        async with pyipc.connect(first, *others, reconnect_interval=0.005, reconnect_max_interval=0.05) as client:
            async with trio.open_nursery() as nursery:
                for _ in range(AT_ONCE):
                    nursery.start_soon(self._ask, client)
                nursery.start_soon(self._tell, client)
            await client.request("work", 0)
            self.moves += client.statistics().moves

    async def _ask(self, client: pyipc.Client) -> None:
        while not self.over.is_set():
            self.asked += 1
            number = self.asked
            assert await client.request("work", number, timeout=60) == -number
            self.answered[number] += 1

    async def _tell(self, client: pyipc.Client) -> None:
        while not self.over.is_set():
            self.emitted += 1
            await client.emit("seen", self.emitted)
            await trio.sleep(0.001)


@pytest.mark.time_limit(180)
@pytest.mark.parametrize("scheme", ["unix", "tcp"])
@pytest.mark.parametrize("count", [1, 2], ids=["one-address", "two-addresses"])
async def test_processes_that_take_each_others_place_lose_nothing(scheme: str, count: int, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    wanted = [f"unix:{tmp_path}/{number}" if scheme == "unix" else "tcp://127.0.0.1:0" for number in range(count)]
    children: list[Child] = []
    addresses: list[str] = []
    reports: list[dict[str, int]] = []
    started: list[trio.Process] = []
    try:
        for address in wanted:
            child, at = await Child.start(address, ledger)
            children.append(child)
            started.append(child.process)
            addresses.append(at)
        load = Load(addresses)
        async with trio.open_nursery() as nursery:
            for _ in range(CLIENTS):
                nursery.start_soon(load.run)
            for turn in range(ROUNDS):
                await trio.sleep(0.1)
                old = children[turn % count]
                old.process.send_signal(signal.SIGTERM)
                assert await old.line() == "released"
                children[turn % count], _ = await Child.start(addresses[turn % count], ledger)
                started.append(children[turn % count].process)
                reports.append(json.loads(await old.line()))
                assert await old.process.wait() == 0
            load.over.set()
        for child in children:
            child.process.send_signal(signal.SIGTERM)
            await child.process.wait()
    finally:
        for process in started:
            if process.returncode is None:
                process.kill()
                with trio.CancelScope(shield=True):
                    await process.wait()
    lines = collections.Counter(line for line in ledger.read_text("ascii").split() if line != "0")
    assert set(lines.values()) == {1}
    assert set(load.answered.values()) == {1}
    assert {int(line) for line in lines if line[0] != "e"} == set(load.answered) == set(range(1, load.asked + 1))
    assert {int(line[1:]) for line in lines if line[0] == "e"} == set(range(1, load.emitted + 1))
    assert [report["cut_off"] for report in reports] == [0] * ROUNDS
    assert load.moves >= CLIENTS
    print(f"{load.asked} requests, {load.emitted} events, {load.moves} moves")
