"""R16: no job that was accepted is lost, whatever happens to the workers.

Eight producers give jobs to four workers, while one worker after the other is killed, stopped, made to exit, or started
again in a way that fails or is slow. Whoever is restarted too often is given up, as the settings say, until somebody
has all of them reloaded. Every job is in a ledger when it is given, when it was handled, and when its result is there.
At the end every job has its result, all of those were handled, nobody was restarted more often than the limit says, and
no process, zombie, descriptor or task is left.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trio

import pyipc
from pyipc import cluster
from tests.battery.cluster_program import FOLDER, set_mood
from tests.battery.leaks import leak_gate
from tests.battery.ledger import Entry, Ledger, digest_of
from tests.battery.sizes import FACTOR, sized
from tests.cluster.diary import ROOT, Diary, children
from tests.conftest import CANNOT_RUN

if TYPE_CHECKING:
    from pathlib import Path

    from tests.battery.conftest import Tally

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason=f"{CANNOT_RUN} it looks at /proc, and sends signals"),
    pytest.mark.time_limit(280),
]

WORKERS, PRODUCERS = 4, 8
DEEDS = ("kill", "stop", "exit", "unimportable", "slow")
#: Each does a quarter of what CI does.
SEEDS = range(1, 1 + max(1, round(4 * FACTOR)))
#: How many jobs are done from one deed to the next.
STRIDE = 50
SETTINGS: Any = {
    "cwd": str(ROOT),
    "silent": True,
    "heartbeat_interval": 0.2,
    "hang_timeout": 2.0,
    "restart_interval": 0.02,
    "restart_max_interval": 0.2,
    "max_restarts": 6,
    "restart_window": 8.0,
}
#: Seconds by which an event may be told late on a busy machine.
LATE = 2.0


class Scene:
    """The cluster, those who give it work, and who spoils it.

    Args:
        folder: Where ledgers are kept.
        seed: Of the choice of whom to harm.
        deeds: What to do to them.

    Attributes:
        restarts: When which worker was started again; ``None`` for when it was given up.
        reloads: How often all were begun anew.
    """

    def __init__(self, folder: Path, seed: int, deeds: list[str]) -> None:
        self.restarts: dict[str, list[float | None]] = {}
        self.reloads = 0
        self._folder = folder
        self._random = random.Random(seed)
        self._deeds = deeds
        self._jobs = STRIDE * (len(deeds) + 1)
        self._given = 0
        self._done = 0
        self._ledger = Ledger(folder / "primary.ledger")
        self._primary = cluster.Cluster(
            "tests.battery.cluster_program:main", workers=WORKERS, env={FOLDER: str(folder)}, **SETTINGS
        )
        self.diary = Diary(self._primary)
        self._primary.on("restart", self._note_restart)
        self._primary.on("error", self._note_restart)

    def _note_restart(self, event: cluster.WorkerEvent) -> None:
        assert event.worker is not None
        when = trio.current_time() if event.type == "restart" else None
        self.restarts.setdefault(event.worker.id, []).append(when)

    async def play(self) -> None:
        """Give all jobs, and do all deeds meanwhile."""
        async with self._primary, trio.open_nursery() as others:
            others.start_soon(self._revive)
            async with trio.open_nursery() as nursery:
                for number in range(PRODUCERS):
                    nursery.start_soon(self._produce, f"producer{number}")
                for number, deed in enumerate(self._deeds, 1):
                    await self._until_done(number * STRIDE)
                    await self._do(deed)
            others.cancel_scope.cancel()
        self._ledger.close()

    async def _produce(self, name: str) -> None:
        """Give one job after the other, and wait for a few at a time."""
        place = 0
        while self._given < self._jobs:
            async with trio.open_nursery() as nursery:
                for _ in range(self._random.randint(1, 8)):
                    self._given += 1
                    nursery.start_soon(self._give, Entry(name, place))
                    place += 1

    async def _give(self, entry: Entry) -> None:
        text = f"{entry} " * self._random.randint(1, 100)
        self._ledger.note_sent(entry, digest_of(text))
        job = await self._primary.submit("work", [*entry, text], attempts=10_000)
        assert await job.result() == digest_of(text)
        self._ledger.note_confirmed(entry)
        self._done += 1

    async def _until_done(self, jobs: int) -> None:
        while self._done < jobs:  # noqa: ASYNC110 - no event for each of so many
            await trio.sleep(0.005)

    async def _revive(self) -> None:
        """Be the one who looks after workers that have failed."""
        while True:
            if any(each.state == "failed" for each in self._primary.workers.values()):
                self.reloads += 1
                with contextlib.suppress(cluster.ReloadFailed):
                    await self._primary.reload()
            await trio.sleep(0.1)

    async def _do(self, deed: str) -> None:
        while not (ready := [each for each in self._primary.workers.values() if each.is_ready and each.pid]):  # noqa: ASYNC110
            await trio.sleep(0.01)
        worker = self._random.choice(ready)
        assert worker.pid is not None
        if deed in ("unimportable", "slow"):
            set_mood(self._folder, deed)
        try:
            if deed == "stop":
                os.kill(worker.pid, signal.SIGSTOP)
            elif deed in ("kill", "unimportable"):
                os.kill(worker.pid, signal.SIGKILL)
            else:
                with contextlib.suppress(pyipc.ConnectionClosed):
                    await worker.emit("exit")
        except ProcessLookupError:
            await trio.sleep(
                0.01
            )  # it has ended just now by what was done before, of which the primary is about to hear
            await self._do(deed)


@pytest.mark.parametrize("seed", SEEDS)
async def test_no_accepted_job_is_lost_whatever_happens_to_the_workers(seed: int, tmp_path: Path, tally: Tally) -> None:
    count = max(15, sized(200) // len(SEEDS))
    deeds = [DEEDS[number % len(DEEDS)] for number in range(count)]
    random.Random(seed).shuffle(deeds)
    async with leak_gate():
        scene = Scene(tmp_path, seed, deeds)
        await scene.play()
        assert not children()
    balance = Ledger.read(tmp_path.glob("*.ledger")).check(order=False)
    assert balance.confirmed == balance.sent >= count * STRIDE
    told = ", ".join(f"{len(scene.diary.of(type))} {type}" for type in ("exit", "restart", "unhealthy", "error"))
    print(
        f"{balance.confirmed:,} jobs, {balance.again} of them done twice; {count} deeds, {scene.reloads} reloads; "
        f"events: {told}"
    )
    assert len(scene.diary.of("unhealthy")) >= 1
    for times in scene.restarts.values():
        check_limit(times)
    tally.add(messages=balance.confirmed, kills=count, lost=len(balance.lost))


def check_limit(times: list[float | None]) -> None:
    """Nobody is started more often than the limit says, until it was given up and somebody began anew."""
    limit, window = SETTINGS["max_restarts"], SETTINGS["restart_window"]
    segment: list[float] = []
    for when in times:
        if when is None:
            segment.clear()
            continue
        segment.append(when)
        if len(segment) > limit:
            assert segment[-1] - segment[-1 - limit] > window - LATE, "it was restarted too often"
