"""Servers that take each other's place under load: every request is answered, and handled once."""

from __future__ import annotations

import collections
import dataclasses
import sys
from typing import TYPE_CHECKING

import pytest
import trio

import pyipc
from tests.conformance.sides import until

if TYPE_CHECKING:
    from pathlib import Path

CLIENTS = 4
AT_ONCE = 8
ROUNDS = 6
PATIENCE = 60

SCHEMES = [
    pytest.param(
        "unix", marks=pytest.mark.skipif(sys.platform == "win32", reason="cannot run here: needs Unix sockets")
    ),
    "tcp",
    "memory",
]


@dataclasses.dataclass
class Ledger:
    """What was asked, answered, emitted and handled, by numbers that are used once."""

    asked: int = 0
    answered: collections.Counter[int] = dataclasses.field(default_factory=collections.Counter)
    handled: collections.Counter[int] = dataclasses.field(default_factory=collections.Counter)
    emitted: int = 0
    #: The events of each client, in the order in which each connection of it brought them.
    received: dict[tuple[str, pyipc.Connection], list[int]] = dataclasses.field(
        default_factory=lambda: collections.defaultdict(list)
    )
    reports: list[pyipc.DrainReport] = dataclasses.field(default_factory=list)

    def check(self) -> None:
        assert set(self.answered.values()) == {1}
        assert set(self.handled.values()) == {1}
        assert len(self.answered) == len(self.handled) == self.asked
        got = [number for numbers in self.received.values() for number in numbers]
        assert len(got) == len(set(got)) == self.emitted
        for numbers in self.received.values():
            assert numbers == sorted(numbers)
        assert all(report.cut_off == 0 and report.undelivered == 0 for report in self.reports)


def serve(address: str | pyipc.Address, ledger: Ledger) -> pyipc.Server:
    server = pyipc.Server(address)

    @server.on("work")
    async def work(message: pyipc.Message[int]) -> int:
        ledger.handled[message.data] += 1
        for _ in range(message.data % 7):
            await trio.sleep(0.0005)
        return -message.data

    @server.on("seen")
    def seen(message: pyipc.Message[tuple[str, int]]) -> None:
        name, number = message.data
        ledger.received[name, message.connection].append(number)

    return server


async def load(addresses: list[str], ledger: Ledger, name: str, over: trio.Event) -> None:
    """One client that asks and emits without a pause until it is told to stop."""
    async with pyipc.connect(*addresses, reconnect_interval=0.005, reconnect_max_interval=0.02) as client:

        async def ask() -> None:
            while not over.is_set():
                ledger.asked += 1
                number = ledger.asked
                assert await client.request("work", number, timeout=PATIENCE) == -number
                ledger.answered[number] += 1

        async def tell() -> None:
            while not over.is_set():
                ledger.emitted += 1
                await client.emit("seen", (name, ledger.emitted))
                await trio.sleep(0.0005)

        async with trio.open_nursery() as nursery:
            for _ in range(AT_ONCE):
                nursery.start_soon(ask)
            nursery.start_soon(tell)
        await client.request("work", -1)  # behind all events
        assert client.statistics().moves >= 1


def addresses_of(scheme: str, folder: Path, count: int) -> list[str]:
    match scheme:
        case "unix":
            return [f"unix:{folder}/{number}" for number in range(count)]
        case "tcp":
            return ["tcp://127.0.0.1:0"] * count
        case _:
            return [f"memory:{folder.name}-{number}" for number in range(count)]


async def replace(old: pyipc.Server, address: str, ledger: Ledger, nursery: trio.Nursery) -> pyipc.Server:
    """Let a server take over the address of another while that is drained."""
    new = serve(address, ledger)
    so_far = len(ledger.reports)

    async def drain() -> None:
        ledger.reports.append(await old.drain(PATIENCE))

    async with trio.open_nursery() as drains:
        drains.start_soon(drain)
        await until(lambda: old.draining or len(ledger.reports) > so_far)
        await nursery.start(new.run)
    return new


@pytest.mark.time_limit(180)
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("count", [1, 2], ids=["one-address", "two-addresses"])
async def test_servers_that_drain_into_each_other_lose_nothing(scheme: str, count: int, tmp_path: Path) -> None:
    ledger, over = Ledger(), trio.Event()
    async with trio.open_nursery() as running:
        servers = [serve(address, ledger) for address in addresses_of(scheme, tmp_path, count)]
        addresses = [str((await running.start(server.run))[0]) for server in servers]
        async with trio.open_nursery() as nursery:
            for number in range(CLIENTS):
                nursery.start_soon(load, addresses, ledger, f"client {number}", over)
            for turn in range(ROUNDS):
                await trio.sleep(0.05)
                place = turn % count
                servers[place] = await replace(servers[place], addresses[place], ledger, running)
            over.set()
        for server in servers:
            await server.aclose()
    ledger.handled.pop(-1)
    ledger.check()
    print(f"{ledger.asked} requests, {ledger.emitted} events, {ledger.reports}")
