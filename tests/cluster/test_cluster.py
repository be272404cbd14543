"""Forking, talking, supervising, reloading and ending, as far as it is the same on every system; on Windows as well."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

import pyipc
from pyipc import cluster
from tests.cluster.processes import Watched
from tests.conftest import CANNOT_RUN

if TYPE_CHECKING:
    from pyipc.cluster import WorkerEvent

PROGRAM = "tests.cluster.programs.basic:"
ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).parent / "programs" / "basic.py"
SIGKILL = 9  # Windows has no name for it
#: Seconds for what takes a moment, on a busy machine.
LONG = 40.0

pytestmark = pytest.mark.time_limit(110)


def make(program: str = "main", **settings: Any) -> cluster.Cluster:
    """A cluster of workers that run a function of `tests.cluster.programs.basic`."""
    patient: dict[str, Any] = {"restart_interval": 0.01, "ready_timeout": 2 * LONG, **settings}
    return cluster.Cluster(PROGRAM + program, cwd=str(ROOT), **patient)


class Told:
    """What a cluster told of its workers: ``(type, id)``, and what came with it."""

    def __init__(self, primary: cluster.Cluster) -> None:
        self.events: list[WorkerEvent] = []
        self._more = trio.Event()
        for type in cluster.EVENTS:
            primary.on(type, self._note)

    def _note(self, event: WorkerEvent) -> None:
        self.events.append(event)
        self._more.set()

    def of(self, id: str, *types: str) -> list[WorkerEvent]:
        return [
            event
            for event in self.events
            if event.worker is not None and event.worker.id == id and (not types or event.type in types)
        ]

    def types(self, id: str) -> list[str]:
        return [event.type for event in self.of(id)]

    async def wait(self, id: str, type: str, count: int = 1) -> WorkerEvent:
        """Wait for an event of a worker, the first or a later one of its type."""
        with trio.fail_after(LONG):
            while len(self.of(id, type)) < count:
                self._more = trio.Event()
                await self._more.wait()
        return self.of(id, type)[count - 1]


# --- forking ---


async def test_workers_have_ids_roles_and_an_environment_of_their_own() -> None:
    async with make(env={"BASIC": "all"}, args=["--loud"], workers=1) as primary:
        mailer = await primary.fork(id="mailer-1", role="mail", env={"BASIC": "its own"})
        with pytest.raises(ValueError, match="ids are unique"):
            await primary.fork(id="mailer-1")
        assert list(primary.workers) == ["1", "mailer-1"]
        first, second = await primary.workers["1"].request("who"), await mailer.request("who")
        assert (first["id"], first["role"], first["env"], first["arguments"]) == ("1", "", "all", ["--loud"])
        assert (second["id"], second["role"], second["env"]) == ("mailer-1", "mail", "its own")
        assert [first["pid"], second["pid"]] == [each.pid for each in primary.workers.values()]
        assert await mailer.request("child") == "False", "a child of a worker is none"
        row = mailer.info()
        assert (row.state, row.role, row.generation, row.restarts) == ("ready", "mail", 1, 0)
    assert not primary.workers


async def test_why_a_worker_did_not_start() -> None:
    primary = make()
    told = Told(primary)
    async with primary:
        with pytest.raises(cluster.WorkerFailed, match="does not like it here") as failed:
            await primary.fork(id="unhappy", exec=f"{PROGRAM}failing")
        assert (failed.value.worker, failed.value.code) == ("unhappy", 1)
        with pytest.raises(cluster.WorkerFailed, match=r"(?i)no module named .*nowhere"):
            await primary.fork(exec="nowhere:main")
        assert told.types("unhappy")[:2] == ["fork", "online"]
        assert told.of("unhappy", "exit")[0].code == 1
        assert not primary.workers


async def test_a_process_that_ends_before_it_has_come(tmp_path: Path) -> None:
    script = tmp_path / "stranger.py"
    script.write_text("raise SystemExit(4)")
    primary = make()
    told = Told(primary)
    async with primary:
        with pytest.raises(cluster.WorkerFailed) as failed:
            await primary.fork(id="stranger", exec=str(script))
        assert failed.value.code == 4
    assert "online" not in told.types("stranger")
    assert told.of("stranger", "exit")[0].code == 4


async def test_a_process_that_never_comes_is_ended(tmp_path: Path) -> None:
    script = tmp_path / "sleeper.py"
    script.write_text("import time\ntime.sleep(1000)")
    primary = make(ready_timeout=1.0)
    told = Told(primary)
    async with primary:
        with pytest.raises(cluster.WorkerFailed, match="not ready within 1 s") as failed:
            await primary.fork(id="sleeper", exec=str(script))
        assert failed.value.signal == SIGKILL
    assert told.of("sleeper", "exit")[0].signal == SIGKILL


# --- talking ---


async def test_messages_both_ways_and_the_order_of_events() -> None:
    primary = make()
    told = Told(primary)
    primary.router.on("add", lambda message: sum(message.data))
    async with primary:
        worker = await primary.fork(id="one", wait=False)
        for number in range(3):
            await worker.emit("keep", number)  # it has no process yet, or none that would listen
        assert await worker.request("kept") == [0, 1, 2]
        assert await worker.request("sum", [1, 2, 3]) == 6
        await worker.send("hello")
        assert (await told.wait("one", "message")).data == ["echo", "hello"]
        assert await worker.request("kept", timeout=LONG) == [0, 1, 2]
    assert told.types("one") == ["fork", "online", "ready", "message", "disconnect", "exit"]
    [exit] = told.of("one", "exit")
    assert (exit.code, exit.signal, exit.voluntary) == (0, None, True)


async def test_the_last_words_of_a_worker_are_heard() -> None:
    primary = make("last_words")
    told = Told(primary)
    async with primary:
        await primary.fork(id="one", wait=False)
        await told.wait("one", "exit")
    assert [event.data[0] for event in told.of("one", "message")] == list(range(100))
    assert told.types("one")[-2:] == ["disconnect", "exit"]


async def test_to_all_and_by_topics() -> None:
    async with make(workers=2) as primary:
        report = await primary.broadcast("keep", "news")
        assert (report.sent, report.dropped) == (2, 0)
        for worker in primary.workers.values():
            assert await worker.request("kept") == ["news"]


# --- supervision ---


async def test_one_that_ends_is_started_again() -> None:
    primary = make()
    told = Told(primary)
    async with primary:
        worker = await primary.fork(id="one")
        first = await worker.request("who")
        assert worker.current is not None
        worker.current.kill()
        await told.wait("one", "ready", 2)
        second = await worker.request("who")
        assert second["pid"] != first["pid"]
        assert (second["generation"], worker.restarts) == (2, 1)
        await worker.emit("end", 5)
        await told.wait("one", "ready", 3)
        assert (await worker.request("who"))["generation"] == 3
    exits = [(event.code, event.signal, event.voluntary) for event in told.of("one", "exit")]
    assert exits == [(None, SIGKILL, False), (5, None, False), (0, None, True)]
    assert [event.type for event in told.of("one", "restart")] == ["restart", "restart"]


async def test_a_request_to_one_that_ends_is_an_error_of_the_caller() -> None:
    async with make(workers=1, restart="never") as primary:
        worker = primary.workers["1"]
        with pytest.raises(pyipc.ConnectionLost):
            await worker.request("end", 3)
        with trio.fail_after(LONG):
            await worker.gone.wait()
        with pytest.raises(pyipc.ConnectionLost):
            await worker.send("anybody there?")


# --- ending ---


async def test_leaving_and_being_sent_away() -> None:
    primary = make(workers=2)
    told = Told(primary)
    async with primary:
        left, killed = primary.workers["1"], primary.workers["2"]
        await left.disconnect()
        assert (left.is_dead, left.exited_after_disconnect) == (True, True)
        killed.kill()
        with trio.fail_after(LONG):
            await killed.gone.wait()
        assert not primary.workers
        by_itself = await primary.fork(id="three")
        await by_itself.emit("return")
        with trio.fail_after(LONG):
            await by_itself.gone.wait()
    assert [told.of(id, "exit")[0].voluntary for id in ("1", "2", "three")] == [True, True, True]
    assert told.of("1", "exit")[0].code == told.of("three", "exit")[0].code == 0
    if sys.platform == "win32":  # there a signal is an end
        assert told.of("2", "exit")[0].signal == signal.SIGTERM
    assert not [event for event in told.events if event.type == "restart"]


async def test_a_reload_replaces_every_process() -> None:
    async with make(workers=2) as primary:
        before = {id: await worker.request("who") for id, worker in primary.workers.items()}
        await primary.reload()
        after = {id: await worker.request("who") for id, worker in primary.workers.items()}
        assert before.keys() == after.keys()
        assert not {row["pid"] for row in before.values()} & {row["pid"] for row in after.values()}
        assert [row["generation"] for row in after.values()] == [2, 2]
        primary.setup_primary(exec=f"{PROGRAM}failing")
    assert not primary.workers


async def test_one_that_hangs_does_not_keep_the_cluster_from_ending() -> None:
    primary = make(workers=1, drain_timeout=0.2, kill_timeout=0.2)
    told = Told(primary)
    async with primary:
        worker = primary.workers["1"]
        assert worker.pid is not None
        watched = Watched(worker.pid)
        await worker.emit("hang")
    assert told.of("1", "exit")[0].signal is not None
    assert watched.has_ended()


@pytest.mark.skipif(sys.platform != "win32", reason=f"{CANNOT_RUN} test_orphans.py kills it in all the ways of POSIX")
async def test_no_worker_outlives_its_primary() -> None:
    """One of them is in its event loop, the other will never be there again."""
    primary = await trio.lowlevel.open_process(
        [sys.executable, str(SCRIPT), "lead"], cwd=ROOT, stdout=subprocess.PIPE, env=environment()
    )
    output = primary.stdout
    assert output is not None
    try:
        told = b""
        while not told.endswith(b"\n"):
            told += bytes(await output.receive_some())
        workers = [Watched(int(pid)) for pid in told.split()]
        assert len(workers) == 2
        assert not any(worker.has_ended() for worker in workers)
    finally:
        primary.kill()
        await primary.wait()
        await output.aclose()
    for worker in workers:
        assert await worker.wait(LONG), "it goes on without its primary"


async def test_the_same_script_as_primary_and_worker() -> None:
    process = await trio.run_process([sys.executable, str(SCRIPT)], cwd=ROOT, env=environment(), capture_stdout=True)
    assert process.stdout.decode().split() == ["forked", "True"]


def environment() -> dict[str, str]:
    """The environment of a script, which is to find pyipc and the tests."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


async def test_a_worker_may_be_the_primary_of_another_cluster() -> None:
    primary = make("nesting", workers=1)
    heard = Told(primary)
    async with primary:
        # It was not ready because the other cluster was about to start, nor was that drained with its servers.
        assert await primary.worker("1").request("inner", timeout=LONG) == []
    [message] = heard.of("1", "message")
    assert message.data == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"workers": "4"},
        {"workers": 2.5},
        {"workers": True},
        {"workers": -1},
        {"target": test_a_worker_may_be_the_primary_of_another_cluster},
        {"role": None},
        {"env": ["A"]},
        {"uid": 1.5},
        {"cwd": 5},
    ],
    ids=str,
)
def test_a_cluster_cannot_be_made_of_what_no_worker_could_be_started_with(wrong: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match=r"must be|is text|is named by"):
        cluster.Cluster(**wrong)


async def test_what_is_wrong_in_a_call_changes_nothing() -> None:
    primary = make(workers=1)
    async with primary:
        worker = primary.worker("1")
        with pytest.raises(ValueError, match="the id of a worker is text"):
            await primary.fork(5)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="env must be"):
            await primary.fork(env=5)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="a role is text"):
            await primary.fork(role=None)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="count must be"):
            await primary.scale("", "2")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="there is no signal 'TERM'"):
            worker.kill("TERM")  # type: ignore[arg-type]
        assert list(primary.workers) == ["1"]
        assert not worker.is_leaving
