"""Slow loris: hundreds of connections keep a server waiting. All are thrown out in time, and nobody else is hurt.

A hundred of them say nothing, a hundred say a byte a second, of their introduction or of an event, and forty begin a
TLS handshake and do not go on. None of them closes, also when the server has. Meanwhile fifty honest clients, and
others that come and go, in the clear and over TLS, get every answer; their slowest hundredth waits no more than three
times as long as without an attack. The hostile ones are thrown out: those that have not introduced themselves after
``handshake_timeout``, those whose event does not arrive after ``frame_timeout``. Their sockets are closed after another
``close_timeout`` at the latest. Where they come from another address than the honest ones, no more than
``max_handshakes`` of them are let in before it is known who they are.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trio

import pyipc
from tests.battery.leaks import leak_gate
from tests.battery.program import needs_processes, running
from tests.battery.sizes import sized
from tests.battery.slow_loris import CLOSE, FRAME, HANDSHAKE
from tests.certificates import authority_file, leaf, leaf_file

if TYPE_CHECKING:
    from pathlib import Path

    from tests.battery.conftest import Tally

#: How many say nothing, how many a byte a second, how many begin a TLS handshake.
SILENT, DRIBBLING, STUCK = (min(sized(ci, least=ci // 5), 5 * ci) for ci in (100, 100, 40))
HOSTILE = SILENT + DRIBBLING + STUCK
#: How many honest clients ask for something, and how often each.
HONEST, TIMES = 50, sized(40, least=10)
#: Where the hostile ones come from, where it matters that it is not where the honest ones are.
ELSEWHERE = "127.0.0.2"
#: By how much the slowest hundredth may become slower, and how often as much a busy machine may take.
PROMISED, GENEROSITY = 3, 10
#: Below this, in seconds, the time of a request is the system's, which has other things to do as well.
SHORTEST = 0.01


@dataclasses.dataclass
class Siege:
    """What a server did that was attacked, wave after wave, as long as honest clients had something to ask.

    Attributes:
        waves: How often it was attacked.
        longest: Seconds until all of one wave were gone.
        calm: What the honest clients measured before.
        storm: What they measured meanwhile.
        told: What the server counted in the end.
    """

    waves: int
    longest: float
    calm: dict[str, Any]
    storm: dict[str, Any]
    told: dict[str, Any]


async def lay_siege(address: str, tmp_path: Path, *limits: int) -> Siege:
    waves, longest = 0, 0.0
    besieged, done = trio.Event(), trio.Event()
    certificate = leaf_file(tmp_path / "certificate.pem", leaf("127.0.0.1"))
    authority = authority_file(tmp_path)
    async with leak_gate(tmp_path), contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        victim = await enter(running("slow_loris", "serve", address, certificate, *limits))
        found, secure = await victim.next()
        honest = await enter(running("slow_loris", "ask", found, secure, authority, HONEST))
        source = "127.0.0.1" if limits else ELSEWHERE
        attack = await enter(running("slow_loris", "attack", found, secure, source, SILENT, DRIBBLING, STUCK))
        assert await honest.next() == "ready"
        await honest.tell(TIMES)
        calm = await honest.next()

        async def attack_in_waves() -> None:
            nonlocal waves, longest
            while not done.is_set():
                await attack.tell("connect")
                connected = await attack.next()
                waves += 1
                besieged.set()
                await victim.tell(waves * HOSTILE)
                gone = await victim.next()
                longest = max(longest, gone["at"] - connected["at"])
                await attack.tell("let go")
                assert await attack.next() == "let go"

        async with trio.open_nursery() as nursery:
            nursery.start_soon(attack_in_waves)
            await besieged.wait()
            await honest.tell(TIMES)
            storm = await honest.next()
            done.set()
        await victim.tell(0)
        told = await victim.next()
        for program in (honest, attack, victim):
            await program.end()
    return Siege(waves, longest, calm, storm, told)


def check(siege: Siege, tally: Tally) -> None:
    """See that the hostile ones were gone in time, and that no honest one was hurt."""
    calm, storm = siege.calm, siege.storm
    print(
        f"{siege.waves} waves of {HOSTILE}, gone after {siege.longest:.2f} s at most; of honest requests half took "
        f"{calm['median'] * 1e3:.1f} ms before and {storm['median'] * 1e3:.1f} ms under attack, "
        f"99 % {calm['p99'] * 1e3:.1f} and {storm['p99'] * 1e3:.1f}"
    )
    assert calm["answered"] == storm["answered"] == (HONEST + 1) * TIMES
    assert storm["p99"] < PROMISED * GENEROSITY * max(calm["p99"], SHORTEST)
    assert siege.longest < GENEROSITY * (max(HANDSHAKE, FRAME) + CLOSE)
    assert siege.told["ends"]["goodbye"] == 2 * TIMES
    assert siege.told["ends"].keys() == {"handshake", "slow", "goodbye"}
    tally.add(messages=calm["answered"] + storm["answered"], hostile=siege.waves * HOSTILE, lost=0)


@needs_processes
@pytest.mark.time_limit(120)
@pytest.mark.parametrize("scheme", ["unix", "tcp"])
async def test_who_keeps_a_server_waiting_is_thrown_out_and_hurts_nobody(
    scheme: str, tmp_path: Path, tally: Tally
) -> None:
    address = "tcp://127.0.0.1:0" if scheme == "tcp" else f"unix:{tmp_path}/server"
    siege = await lay_siege(address, tmp_path, 4 * (HOSTILE + HONEST))
    check(siege, tally)
    # Each of them was let in, and thrown out for what it did.
    told, waves = siege.told, siege.waves
    assert told["refused"] == 0
    assert told["handshake_errors"] == waves * STUCK
    assert told["ends"]["handshake"] == waves * (SILENT + DRIBBLING // 2)
    assert told["ends"]["slow"] == waves * (DRIBBLING - DRIBBLING // 2)


@pytest.mark.skipif(sys.platform != "linux", reason="cannot run here: this host has one address")
@pytest.mark.time_limit(120)
async def test_no_more_of_them_are_let_in_than_may_be_unknown(tmp_path: Path, tally: Tally) -> None:
    siege = await lay_siege("tcp://127.0.0.1:0", tmp_path)
    check(siege, tally)
    told, waves = siege.told, siege.waves
    strangers = SILENT + DRIBBLING // 2 + STUCK
    assert told["refused"] >= waves * (strangers - pyipc.Options().max_handshakes)
    thrown_out = told["handshake_errors"] + told["ends"]["handshake"] + told["ends"]["slow"]
    assert told["refused"] + thrown_out == waves * HOSTILE
