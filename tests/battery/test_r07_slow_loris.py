"""Slow loris: hundreds of connections keep a server waiting. All are thrown out in time, and nobody else is hurt.

A hundred of them say nothing, a hundred say a byte a second, of their introduction or of an event, and forty begin a
TLS handshake and do not go on. None of them closes, also when the server has. Meanwhile fifty honest clients, and
others that come and go, in the clear and over TLS, get every answer; their slowest hundredth waits no more than three
times as long as without an attack. The hostile ones are thrown out: those that have not introduced themselves after
``handshake_timeout``, those whose event does not arrive after ``frame_timeout``. Their sockets are closed after another
``close_timeout`` at the latest.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
import trio

from tests.battery.leaks import leak_gate
from tests.battery.program import needs_processes, running
from tests.battery.sizes import sized
from tests.battery.slow_loris import CLOSE, FRAME, HANDSHAKE
from tests.certificates import authority_file, leaf, leaf_file

if TYPE_CHECKING:
    from pathlib import Path

    from tests.battery.conftest import Tally

HONEST = 50
#: By how much the slowest hundredth may become slower, and how often as much a busy machine may take.
PROMISED, GENEROSITY = 3, 10
#: Below this the time of a request is the system's, which has other things to do as well.
SHORTEST = 0.01


@needs_processes
@pytest.mark.time_limit(120)
@pytest.mark.parametrize("scheme", ["unix", "tcp"])
async def test_who_keeps_a_server_waiting_is_thrown_out_and_hurts_nobody(
    scheme: str, tmp_path: Path, tally: Tally
) -> None:
    many, few = min(sized(100, least=20), 500), min(sized(40, least=8), 200)
    hostile = many + many + few
    rounds = sized(40, least=10)
    waves, longest = 0, 0.0
    besieged, done = trio.Event(), trio.Event()
    certificate = leaf_file(tmp_path / "certificate.pem", leaf("127.0.0.1"))
    authority = authority_file(tmp_path)
    address = "tcp://127.0.0.1:0" if scheme == "tcp" else f"unix:{tmp_path}/server"
    async with leak_gate(tmp_path), contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        victim = await enter(running("slow_loris", "serve", address, certificate))
        found, secure = await victim.next()
        honest = await enter(running("slow_loris", "ask", found, secure, authority, HONEST))
        attack = await enter(running("slow_loris", "attack", found, secure, many, many, few))
        assert await honest.next() == "ready"
        await honest.tell(rounds)
        calm = await honest.next()

        async def besiege() -> None:
            nonlocal waves, longest
            while not done.is_set():
                await attack.tell("connect")
                connected = await attack.next()
                waves += 1
                besieged.set()
                await victim.tell(waves * hostile)
                gone = await victim.next()
                longest = max(longest, gone["at"] - connected["at"])
                await attack.tell("let go")
                assert await attack.next() == "let go"

        async with trio.open_nursery() as nursery:
            nursery.start_soon(besiege)
            await besieged.wait()
            await honest.tell(rounds)
            storm = await honest.next()
            done.set()
        await victim.tell(0)
        told = await victim.next()
        for program in (honest, attack, victim):
            await program.end()
    print(
        f"{waves} waves of {hostile}, gone after {longest:.2f} s at most; of honest requests half took "
        f"{calm['median'] * 1e3:.1f} ms before and {storm['median'] * 1e3:.1f} ms under attack, "
        f"99 % {calm['p99'] * 1e3:.1f} and {storm['p99'] * 1e3:.1f}"
    )
    assert calm["answered"] == storm["answered"] == (HONEST + 1) * rounds
    assert storm["p99"] < PROMISED * GENEROSITY * max(calm["p99"], SHORTEST)
    # Each of the hostile ones was thrown out, for what it did, and nobody else was.
    assert told["handshake_errors"] == waves * few
    assert told["ends"]["handshake"] == waves * (many + many // 2)
    assert told["ends"]["slow"] == waves * (many - many // 2)
    assert told["ends"].keys() == {"handshake", "slow", "goodbye"}
    assert told["ends"]["goodbye"] == 2 * rounds
    assert longest < GENEROSITY * (max(HANDSHAKE, FRAME) + CLOSE)
    tally.add(messages=calm["answered"] + storm["answered"], hostile=waves * hostile, lost=0)
