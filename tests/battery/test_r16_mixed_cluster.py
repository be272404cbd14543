"""R16: a mixed cluster, of two Python and two Node workers, of which fifty are killed, or leave, under load.

All four serve one port, and are given jobs and asked by their primary. Meanwhile one after the other is killed, told to
terminate, stopped, exits, or leaves, and now and then all are reloaded. Whoever asks has an answer, or is told that the
connection was lost. In the end every job has its result and was handled, every process ended in the way that it was
meant to and was started again as often, and the four that are there serve clients and primary; nothing is left behind.
"""

from __future__ import annotations

import collections
import itertools
import json
import math
import os
import random
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import trio

import pyipc
from pyipc import cluster
from pyipc.cluster.signals import SIGKILL
from tests.battery.cluster_program import FOLDER
from tests.battery.leaks import leak_gate
from tests.battery.ledger import Entry, Ledger, digest_of
from tests.battery.sizes import sized
from tests.cluster.diary import PATIENCE, ROOT, Diary, children
from tests.conftest import CANNOT_RUN, needs_node_channel

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.battery.conftest import Tally

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason=f"{CANNOT_RUN} it looks at /proc, and sends signals"),
    needs_node_channel,
    pytest.mark.time_limit(240),
]

KINDS: Final[dict[str, Any]] = {
    "python": {"exec": "tests.battery.mixed_program:main"},
    "node": {"node": str(Path(__file__).with_name("mixed_program.js"))},
}
WORKERS: Final = {"python1": "python", "python2": "python", "node1": "node", "node2": "node"}
#: More than wait for one worker that is stopped.
PRODUCERS, CLIENTS = 12, 8
#: How many jobs are done from one deed to the next; how many deeds from one reload to the next. One is at the end too.
STRIDE, RELOAD = 20, 20
#: What is done to a worker, and how its process then ends: its code, the signal, and whether that was meant for good.
DEEDS: Final[dict[str, dict[str, tuple[int | None, int | None, bool]]]] = {
    "kill": dict.fromkeys(KINDS, (None, SIGKILL, False)),
    "terminate": {"python": (0, None, False), "node": (None, signal.SIGTERM, False)},
    "stop": dict.fromkeys(KINDS, (None, SIGKILL, False)),
    "exit": dict.fromkeys(KINDS, (1, None, False)),
    "leave": dict.fromkeys(KINDS, (0, None, True)),
}
SETTINGS: Any = {
    "cwd": str(ROOT),
    "silent": True,
    "heartbeat_interval": 0.2,
    "hang_timeout": 2.0,
    "restart_interval": 0.02,
    "restart_max_interval": 0.2,
    "max_restarts": 1_000,
}


class Scene:
    """The cluster, those who give it work, and who spoils it.

    Args:
        folder: Where ledgers are kept.
        seed: Of the choice of whom to harm.
        deeds: What to do, and to which kind.

    Attributes:
        harmed: Processes that were harmed, and what they were to end like.
        lost: How often a client, or the primary, was told that its connection is lost.
    """

    def __init__(self, folder: Path, seed: int, deeds: list[tuple[str, str]]) -> None:
        self.harmed: dict[int, tuple[int | None, int | None, bool]] = {}
        self.lost: collections.Counter[str] = collections.Counter()
        self._random = random.Random(seed)
        self._deeds = deeds
        self._done = 0
        self._is_over = False
        self._port = 0
        self._ledger = Ledger(folder / "primary.ledger")
        self._primary = cluster.Cluster(workers=0, env={FOLDER: str(folder)}, **SETTINGS)
        self.diary = Diary(self._primary)

    async def play(self) -> None:
        """Have all of them at work, and do all deeds meanwhile; then see that all are well."""
        async with self._primary:
            async with trio.open_nursery() as nursery:
                for id in WORKERS:
                    nursery.start_soon(self._fork, id)
            ports = {event.address.port for event in self.diary.of("listening") if event.address is not None}
            [self._port] = ports
            async with trio.open_nursery() as nursery:
                for number in range(PRODUCERS):
                    nursery.start_soon(self._produce, f"producer{number}")
                for id in WORKERS:
                    nursery.start_soon(self._ask, id)
                for number in range(CLIENTS):
                    nursery.start_soon(self._be_client, f"client{number}")
                for number, (deed, kind) in enumerate(self._deeds, 1):
                    done = self._done + STRIDE
                    await self._until(lambda done=done: self._done >= done, "jobs")  # type: ignore[misc]
                    await self._do(deed, kind, nursery)
                    if number % RELOAD == 0 or number == len(self._deeds):
                        await self._until(lambda: len(self._well()) == len(WORKERS), "all workers")
                        await self._primary.reload()
                self._is_over = True
            await self._see_that_all_are_well()
            self.check()
        self._ledger.close()

    async def _fork(self, id: str) -> None:
        await self._primary.fork(id, **KINDS[WORKERS[id]])

    # --- those who want something ---

    async def _produce(self, name: str) -> None:
        """Give one job after the other."""
        for place in itertools.count():
            if self._is_over:
                return
            entry = Entry(name, place)
            text = self._write(entry)
            with trio.fail_after(PATIENCE):
                job = await self._primary.submit("work", [*entry, text], attempts=1_000)
                assert await job.result() == digest_of(text)
            self._ledger.note_confirmed(entry)
            self._done += 1

    async def _ask(self, id: str) -> None:
        """Ask one worker for one thing after the other, while it is there."""
        for place in itertools.count():
            if self._is_over:
                return
            await self._until(lambda: id in self._primary.workers, id)
            entry = Entry(f"asker-{id}-", place)
            text = self._write(entry)
            try:
                with trio.fail_after(PATIENCE):
                    assert await self._primary.workers[id].request("work", [*entry, text]) == digest_of(text)
            except pyipc.ConnectionLost as error:
                self.lost["asked"] += 1
                self._ledger.note_failed(entry, maybe_handled=error.maybe_handled)
                await trio.sleep(0.05)  # or it would be asked again and again while it is on its way out
            else:
                self._ledger.note_confirmed(entry)

    async def _be_client(self, name: str) -> None:
        place = 0
        while not self._is_over:
            async with await trio.open_tcp_stream("127.0.0.1", self._port) as stream:
                for _ in range(self._random.randint(1, 4)):
                    place += 1
                    if not await self._visit(stream, Entry(name, place)):
                        break

    async def _visit(self, stream: trio.SocketStream, entry: Entry) -> str:
        """Ask whoever serves a connection; say who that was, if it has answered."""
        text = self._write(entry)
        answer = b""
        try:
            with trio.fail_after(PATIENCE):
                await stream.send_all(json.dumps([*entry, text]).encode() + b"\n")
                while not answer.endswith(b"\n") and (chunk := await stream.receive_some()):
                    answer += chunk
        except trio.BrokenResourceError:
            answer = b""
        if not answer.endswith(b"\n"):
            self.lost["clients"] += 1
            return ""
        digest, life = answer.decode().split()
        assert int(digest) == digest_of(text)
        self._ledger.note_confirmed(entry)
        return life

    def _write(self, entry: Entry) -> str:
        text = f"{entry} é€😀 " * self._random.randint(1, 50)
        self._ledger.note_sent(entry, digest_of(text))
        return text

    # --- who spoils it ---

    def _well(self) -> list[cluster.WorkerHandle]:
        """Workers that are ready, and whose process nobody has harmed."""
        return [each for each in self._primary.workers.values() if each.is_ready and each.pid not in self.harmed]

    async def _do(self, deed: str, kind: str, nursery: trio.Nursery) -> None:
        def candidates() -> list[cluster.WorkerHandle]:
            return [each for each in self._well() if WORKERS[each.id] == kind]

        await self._until(lambda: bool(candidates()), f"a {kind} worker")
        worker = self._random.choice(candidates())
        assert worker.pid is not None
        self.harmed[worker.pid] = DEEDS[deed][kind]
        if deed == "kill":
            os.kill(worker.pid, SIGKILL)
        elif deed == "terminate":
            os.kill(worker.pid, signal.SIGTERM)
        elif deed == "stop":
            os.kill(worker.pid, signal.SIGSTOP)
        else:
            await worker.emit(deed)
        if deed == "leave":
            nursery.start_soon(self._replace, worker)

    async def _replace(self, worker: cluster.WorkerHandle) -> None:
        """Fork one anew that has left for good."""
        with trio.fail_after(PATIENCE):
            await worker.gone.wait()
        await self._fork(worker.id)

    async def _until(self, condition: Callable[[], bool], what: str) -> None:
        with trio.move_on_after(PATIENCE):
            while not condition():  # noqa: ASYNC110 - no event for each of so many
                await trio.sleep(0.005)
        assert condition(), f"{what} did not come; {self._primary.workers}"

    # --- what became of it ---

    async def _see_that_all_are_well(self) -> None:
        lives = {f"{worker.id}.{worker.pid}" for worker in self._primary.workers.values()}
        place = 0
        with trio.fail_after(PATIENCE):
            while lives:
                async with await trio.open_tcp_stream("127.0.0.1", self._port) as stream:
                    lives.discard(await self._visit(stream, Entry("last", place)))
                place += 1
            for worker in self._primary.workers.values():
                entry = Entry("last", place)
                text = self._write(entry)
                assert await worker.request("work", [*entry, text]) == digest_of(text)
                self._ledger.note_confirmed(entry)
                place += 1

    def check(self) -> None:
        """Every process has ended as it was meant to, and another has taken its place."""
        assert children() == {worker.pid for worker in self._primary.workers.values()}
        assert set(self._primary.workers) == set(WORKERS)
        ends = {event.pid: (event.code, event.signal, event.voluntary) for event in self.diary.of("exit")}
        assert {pid: ends.pop(pid, None) for pid in self.harmed} == self.harmed
        # Those that a reload has replaced.
        assert len(ends) == math.ceil(len(self._deeds) / RELOAD) * len(WORKERS)
        assert all(voluntary for _, _, voluntary in ends.values()), ends
        assert len(self.diary.of("restart")) == sum(not voluntary for _, _, voluntary in self.harmed.values())
        assert len(self.diary.of("unhealthy")) == sum(deed == "stop" for deed, _ in self._deeds)
        assert not self.diary.of("error")


async def test_a_mixed_cluster_survives_whatever_happens_to_its_workers(tmp_path: Path, tally: Tally) -> None:
    seed, every = 16, [(deed, kind) for deed in DEEDS for kind in KINDS]
    count = sized(50, least=len(every))
    deeds = [every[number % len(every)] for number in range(count)]
    random.Random(seed).shuffle(deeds)
    async with leak_gate():
        scene = Scene(tmp_path, seed, deeds)
        await scene.play()
        assert not children()
    ledger = Ledger.read(tmp_path.glob("*.ledger"))
    balance = ledger.check(order=False)
    shares = collections.Counter(
        (WORKERS[life.partition(".")[0]], each.entry.sender.rstrip("0123456789-"))
        for life, handled in ledger.handled.items()
        for each in handled
    )
    print(
        f"{balance.confirmed:,} of {balance.sent:,} answered, {balance.again} of them done twice; {count} deeds; "
        f"lost: {dict(scene.lost)}; shares: {dict(shares)}"
    )
    assert all(shares[kind, what] for kind in KINDS for what in ("producer", "client"))
    assert balance.sent == balance.confirmed + scene.lost.total()
    tally.add(messages=balance.confirmed, kills=count, lost=len(balance.lost))
