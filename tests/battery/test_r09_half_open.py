"""Half-open connections: the other side is gone, and nothing says so. Both notice in time, and nothing is lost.

A client emits confirmed events without a pause, and then every byte between the two sides vanishes; or the process of
one of them is stopped; or the network is unplugged. Both sides notice within ``heartbeat_interval`` times
``heartbeat_misses`` and a second. The client comes back as soon as it can, and every event that was confirmed has been
handled once. A process that was stopped and goes on does not take its own absence for that of its peer.
"""

from __future__ import annotations

import functools
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
import trio

import pyipc
from tests.battery.cable import Cable
from tests.battery.half_open import AT_ONCE, Emitter, Receiver, silences
from tests.battery.leaks import leak_gate
from tests.battery.ledger import Ledger
from tests.battery.program import needs_processes, running
from tests.battery.sizes import sized
from tests.conformance.sides import until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.battery.conftest import Tally
    from tests.battery.program import Program

pytestmark = pytest.mark.time_limit(60)

HEARTBEAT = 0.2
#: Within which both sides are to notice; ten times as much is what a busy machine may take.
PROMISED = HEARTBEAT * pyipc.Options().heartbeat_misses + 1
PATIENT = 60.0


def report(who: str, seconds: float) -> None:
    print(f"the {who} noticed after {seconds:.2f} s, of {PROMISED:g} s")
    assert seconds < 10 * PROMISED


async def test_both_sides_notice_a_black_hole_and_nothing_is_lost(tally: Tally) -> None:
    rounds = sized(2)
    ledger = Ledger()
    events: dict[str, list[dict[str, Any]]] = {"server": [], "client": []}
    receiver = Receiver("tcp://127.0.0.1:0", ledger, HEARTBEAT, events["server"].append)
    async with leak_gate(), receiver.server, trio.open_nursery() as nursery:
        cable = Cable(receiver.server.addresses[0].port)
        await nursery.start(cable.run)
        emitter = Emitter(f"tcp://127.0.0.1:{cable.port}", ledger, HEARTBEAT, events["client"].append)
        async with trio.open_nursery() as emitting:
            emitting.start_soon(emitter.run)
            for _ in range(rounds):
                await go_on(emitter)
                for each in events.values():
                    each.clear()
                began = time.monotonic()
                cable.cut()
                for who, seconds in (await silences(events)).items():
                    report(who, seconds - began)
                cable.mend()
            await go_on(emitter)
            emitter.stopped = True
        nursery.cancel_scope.cancel()
    balance = ledger.check(duplicates="never")
    tally.add(messages=balance.confirmed, partitions=rounds, lost=len(balance.lost))


async def go_on(emitter: Emitter) -> None:
    """Wait until some more events have been confirmed."""
    before = emitter.confirmed
    await until(lambda: emitter.confirmed >= before + 5 * AT_ONCE)


async def heard(program: Program, what: str) -> float:
    """When something happened to a connection of a program; what happened before is passed over."""
    while (event := await program.next())["what"] != what:
        pass
    return float(event.get("at", 0))


@needs_processes
@pytest.mark.parametrize("scheme", ["unix", "tcp"])
@pytest.mark.parametrize("stopped", ["server", "client"])
async def test_a_process_that_is_stopped_is_noticed(scheme: str, stopped: str, tmp_path: Path, tally: Tally) -> None:
    rounds = sized(2)
    address = "tcp://127.0.0.1:0" if scheme == "tcp" else f"unix:{tmp_path}/server"
    async with leak_gate(), running("half_open", "serve", address, tmp_path / "handled", HEARTBEAT) as server:
        found = await server.next()
        async with running("half_open", "emit", found, tmp_path / "sent", HEARTBEAT) as client:
            victim, other = (server, client) if stopped == "server" else (client, server)
            for _ in range(rounds):
                await client.tell("confirm some")
                await heard(client, "confirmed")
                began = time.monotonic()
                victim.process.send_signal(signal.SIGSTOP)
                noticed = await heard(other, "silent")
                report("client" if other is client else "server", noticed - began)
                victim.process.send_signal(signal.SIGCONT)
            await client.tell("confirm some")
            await heard(client, "confirmed")
            await client.end()
        await server.end()
    balance = Ledger.read([tmp_path / "sent", tmp_path / "handled"]).check(duplicates="never")
    tally.add(messages=balance.confirmed, stops=rounds, lost=len(balance.lost))


@needs_processes
@pytest.mark.parametrize("stopped", ["server", "client"])
async def test_who_was_stopped_does_not_blame_its_peer(stopped: str, tmp_path: Path, tally: Tally) -> None:
    rounds, heartbeat = sized(1), 0.5
    patience = {"server": PATIENT, "client": PATIENT, stopped: heartbeat}  # the other side waits for it
    address = f"unix:{tmp_path}/server"
    async with leak_gate(), running("half_open", "serve", address, tmp_path / "handled", patience["server"]) as server:
        found = await server.next()
        async with running("half_open", "emit", found, tmp_path / "sent", patience["client"]) as client:
            victim = server if stopped == "server" else client
            for turn in range(rounds + 1):
                await client.tell("confirm some")
                assert await client.next() == {"what": "confirmed"}
                if turn < rounds:
                    victim.process.send_signal(signal.SIGSTOP)
                    await trio.sleep(6 * heartbeat)  # longer than it would wait for its peer
                    victim.process.send_signal(signal.SIGCONT)
            await client.end()
        await server.end()
    balance = Ledger.read([tmp_path / "sent", tmp_path / "handled"]).check(duplicates="never")
    tally.add(messages=balance.confirmed, stops=rounds, lost=len(balance.lost))


NETWORK_OF_ITS_OWN = ["unshare", "--user", "--map-root-user", "--net"]


@functools.cache
def has_namespaces() -> bool:
    """Whether a program may have a network of its own here."""
    if sys.platform != "linux" or shutil.which("unshare") is None or shutil.which("ip") is None:
        return False
    tried = subprocess.run([*NETWORK_OF_ITS_OWN, "ip", "link", "set", "lo", "up"], check=False, capture_output=True)
    return tried.returncode == 0


@pytest.mark.skipif(not has_namespaces(), reason="cannot run here: the system lets nobody have a network of his own")
async def test_both_sides_notice_that_the_network_is_unplugged(tally: Tally) -> None:
    rounds = sized(2)
    async with leak_gate(), running("half_open", "unplug", HEARTBEAT, rounds, inside=NETWORK_OF_ITS_OWN) as program:
        for _ in range(rounds):
            for who, seconds in (await program.next()).items():
                report(who, seconds)
        confirmed = await program.next()
        await program.end()
    tally.add(messages=confirmed, partitions=rounds, lost=0)
