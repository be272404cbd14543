"""R1: nothing that was confirmed is lost, whoever is killed.

Eight producers send to four servers, each in a process of its own, over Unix sockets and over TCP: half of what a
producer sends goes to one server and the next that takes its place, half to whichever answers. While they work, one
process after the other is ended with `kill -9` and started again. Every message is in a file before it is sent, when
it was handled, and when it was confirmed. At the end all that was confirmed was handled, nothing was handled that
nobody sent, no life of a server handled anything twice, what a later one handled again was marked as such, and the
messages of each sender came in order. The same where a server is killed while it drains, with work in hand that would
never be done.

Among them are plain events, requests that may be handled twice, and topics: those may be lost, but nothing else may
happen to them.
"""

from __future__ import annotations

import collections
import random
import re
import shutil
import signal
import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from tests.battery.kill_program import is_plain
from tests.battery.leaks import leak_gate
from tests.battery.ledger import Ledger
from tests.battery.sizes import FACTOR, sized
from tests.cli.processes import ROOT, Program, start
from tests.conftest import CANNOT_RUN

if TYPE_CHECKING:
    from pathlib import Path

    from tests.battery.conftest import Tally

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason=f"{CANNOT_RUN} Windows has no SIGKILL and no SIGTERM"),
    pytest.mark.time_limit(240),
]

#: On an ordinary day it takes longer to start so many than to let them work.
CONSUMERS, PRODUCERS = (4, 8) if FACTOR >= 1 else (2, 4)
#: Seeds that found something once.
REGRESSIONS: tuple[int, ...] = ()
#: Beyond the size of CI there are more rounds, not larger ones.
ROUNDS = max(1, round(FACTOR))
SEEDS = (*REGRESSIONS, *range(1, 1 + ROUNDS))

run = partial(start, command=(sys.executable, "-W", "error", "-m", "tests.battery.kill_program"), cwd=ROOT)


class Life:
    """One life of a process.

    Attributes:
        number: Which, counted from 0.
        program: What it says.
        is_leaving: Whether it was told to end.
        was_killed: Whether it was killed.
    """

    def __init__(self, number: int, program: Program) -> None:
        self.number = number
        self.program = program
        self.is_leaving = False
        self.was_killed = False

    @property
    def is_ready(self) -> bool:
        """Whether it can be ended in peace."""
        return b"ready" in self.program.out and not self.was_killed

    @property
    def is_working(self) -> bool:
        """Whether it has work in hand."""
        return b"working" in self.program.out and not self.is_leaving

    async def hear(self, words: str) -> str:
        """Wait for a line that begins with these words; the rest of it. On a busy machine that takes its time."""
        while not (found := re.search(rf"^{words}(.*)\n", self.program.out.decode(), re.MULTILINE)):
            assert self.program.process.returncode is None, self.program.err.decode()
            await trio.sleep(0.02)
        return found[1]

    def leave(self) -> None:
        """Tell it to end."""
        self.is_leaving = True
        self.program.process.terminate()

    def kill(self) -> None:
        """End it, as with ``kill -9``."""
        self.is_leaving = self.was_killed = True
        self.program.process.kill()


class Scene:
    """The processes, and who of them is alive.

    Args:
        folder: Where they keep their ledgers.
        seed: Of the choice of whom to kill.

    Attributes:
        lives: The present life of each process, by name.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.lives: dict[str, Life] = {}
        self._random = random.Random(seed)
        self._addresses: dict[str, str] = {}
        self._read: collections.Counter[Path] = collections.Counter()
        self._confirmed = 0

    def confirmed(self) -> int:
        """How many messages were confirmed so far, as the producers' files have it."""
        for path in self.folder.glob("producer*"):
            with path.open("rb") as file:
                file.seek(self._read[path])
                piece = file.read()
            self._read[path] += len(piece)
            self._confirmed += piece.count(b"confirmed ")
        return self._confirmed

    async def consumer(
        self, name: str, number: int, address: str, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """One life of a server, to its end."""
        async with run("consumer", f"{name}.{number}", self.folder, address) as program:
            life = self.lives[name] = Life(number, program)
            self._addresses[name] = await life.hear("ready ")
            task_status.started()
            await self._until_it_ends(life)

    async def producer(self, name: str, number: int) -> None:
        """One life of a producer, to its end."""
        first = int(name.removeprefix("producer")) % CONSUMERS
        addresses = [self._addresses[name] for name in sorted(self._addresses)]
        addresses = addresses[first:] + addresses[:first]
        async with run("producer", f"{name}.{number}", self.folder, *addresses) as program:
            life = self.lives[name] = Life(number, program)
            await self._until_it_ends(life)

    async def _until_it_ends(self, life: Life) -> None:
        await life.program.process.wait()
        result = await life.program.finish()
        assert result.status == (-signal.SIGKILL if life.was_killed else 0), result.err

    async def choose(self, kind: str) -> str:
        """The name of a process that has work in hand."""
        while True:
            if working := sorted(
                name for name, life in self.lives.items() if name.startswith(kind) and life.is_working
            ):
                return self._random.choice(working)
            await trio.sleep(0.01)

    async def kill_somebody(self, kind: str, nursery: trio.Nursery) -> None:
        """Kill a process of this kind, and start it again."""
        name = await self.choose(kind)
        life = self.lives[name]
        life.kill()
        if kind == "producer":
            nursery.start_soon(self.producer, name, life.number + 1)
        else:
            nursery.start_soon(self.consumer, name, life.number + 1, self._addresses[name])

    async def kill_while_it_drains(self, nursery: trio.Nursery, *, late: bool) -> None:
        """Let a server drain and another take its place; kill it before that, or afterwards."""
        name = await self.choose("consumer")
        life = self.lives[name]
        life.leave()
        await life.hear("draining")
        if not late:
            life.kill()
        await nursery.start(self.consumer, name, life.number + 1, self._addresses[name])
        if late:
            life.kill()

    async def play(self, addresses: list[str], messages: int, deeds: list[str]) -> None:
        """Let them work until so much is confirmed, and do these deeds meanwhile, each when some more was."""
        self._random.shuffle(deeds)
        async with trio.open_nursery() as consumers:
            async with trio.open_nursery() as starting:
                for number, address in enumerate(addresses):
                    starting.start_soon(consumers.start, self.consumer, f"consumer{number}", 0, address)
            async with trio.open_nursery() as producers:
                for number in range(PRODUCERS):
                    producers.start_soon(self.producer, f"producer{number}", 0)
                for number, deed in enumerate(deeds, 1):
                    await self._until_confirmed(messages * number // (len(deeds) + 1))
                    if deed in ("draining", "succeeded"):
                        await self.kill_while_it_drains(consumers, late=deed == "succeeded")
                    else:
                        await self.kill_somebody(deed, producers if deed == "producer" else consumers)
                await self._until_confirmed(messages)
                await self._end("producer", PRODUCERS)
            await self._end("consumer", CONSUMERS)

    async def _until_confirmed(self, messages: int) -> None:
        while self.confirmed() < messages:  # noqa: ASYNC110 - other processes do it
            await trio.sleep(0.02)

    async def _end(self, kind: str, count: int) -> None:
        """End all processes of this kind in peace, those that are starting included."""
        for name in [f"{kind}{number}" for number in range(count)]:
            while name not in self.lives or not self.lives[name].is_ready:  # noqa: ASYNC110 - another process says so
                await trio.sleep(0.02)
            self.lives[name].leave()


def addresses_in(folder: Path, kind: str) -> list[str]:
    """Where the servers are to listen."""
    return [f"unix:{folder}/{number}" if kind == "unix" else "tcp://127.0.0.1:0" for number in range(CONSUMERS)]


async def check(folder: Path, kind: str, seed: int, messages: int, deeds: list[str], tally: Tally) -> None:
    """Play a scene, and see that everything adds up."""
    ledgers, sockets = folder / f"ledgers{seed}", folder / f"sockets{seed}"
    ledgers.mkdir()
    sockets.mkdir(mode=0o700)
    scene = Scene(ledgers, seed)
    async with leak_gate(sockets):
        await scene.play(addresses_in(sockets, kind), messages, deeds)
    ledger = Ledger.read(ledgers.iterdir())
    balance = ledger.check()
    assert balance.confirmed >= messages
    in_hand = [
        entry
        for entry in ledger.sent
        if entry.sender.startswith("producer") and entry not in ledger.confirmed and not is_plain(entry.place)
    ]
    redelivered = sum(handling.redelivered for life in ledger.handled.values() for handling in life)
    print(
        f"{kind}, seed {seed}: {balance.confirmed:,} confirmed, {len(deeds)} kills, {len(in_hand)} in hand of "
        f"producers, {redelivered} redelivered, {balance.again} handled again by a later life"
    )
    assert in_hand or "producer" not in deeds, "no producer was killed in the middle of its work"
    assert redelivered, "no server was killed in the middle of its work"
    shutil.rmtree(ledgers)  # of a long run they would fill the disk; those of a failure stay
    tally.add(messages=balance.confirmed, kills=len(deeds), lost=len(balance.lost))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", ["unix", "tcp"])
async def test_what_was_confirmed_was_handled_whoever_is_killed(
    kind: str, seed: int, tmp_path: Path, tally: Tally
) -> None:
    deeds = ["producer", "consumer"] * (sized(20, least=2 * ROUNDS) // (2 * ROUNDS))
    await check(tmp_path, kind, seed, sized(50_000) // ROUNDS, deeds, tally)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", ["unix", "tcp"])
async def test_what_was_confirmed_was_handled_when_servers_are_killed_while_they_drain(
    kind: str, seed: int, tmp_path: Path, tally: Tally
) -> None:
    deeds = ["draining", "succeeded"] * (sized(4, least=2 * ROUNDS) // (2 * ROUNDS))
    await check(tmp_path, kind, seed, sized(10_000) // ROUNDS, deeds, tally)
