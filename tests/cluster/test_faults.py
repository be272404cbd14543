"""Workers that go wrong, in real processes: that is noticed, and told, and nothing of them is left behind."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trio

import pyipc
from pyipc import cluster
from pyipc.cluster.pulse import Watch
from pyipc.cluster.supervising import RestartPolicy
from tests.cluster.diary import PATIENCE, QUICK, ROOT, made, program, told
from tests.conftest import CANNOT_RUN

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason=f"{CANNOT_RUN} it looks at /proc, and sends signals"),
    pytest.mark.usefixtures("nothing_is_left"),
]


# --- at the start ---


async def test_an_error_at_the_start_is_told_and_leaves_nothing() -> None:
    primary, diary = made()
    async with primary:
        with pytest.raises(cluster.WorkerFailed, match="LookupError: the sea is empty") as caught:
            await primary.fork("a", exec=program("failing"))
        assert (caught.value.worker, caught.value.code, caught.value.signal) == ("a", 1, None)
        assert not primary.workers
        with pytest.raises(cluster.WorkerFailed, match="ended with code 7"):
            await primary.fork("a", exec=program("exiting"), env={"CODE": "7"})
        with pytest.raises(
            cluster.WorkerFailed, match="ModuleNotFoundError: No module named 'no_such_module_anywhere'"
        ):
            await primary.fork("a", exec="tests.cluster.programs.unimportable:main")
        with pytest.raises(cluster.WorkerFailed, match="has no attribute 'nothing'"):
            await primary.fork("a", exec=program("nothing"))
        with pytest.raises(cluster.WorkerFailed, match=r"could not be started: workers cannot run 'none\.py'"):
            await primary.fork("a", exec="none.py")
        with pytest.raises(cluster.WorkerFailed, match=r"could not be started: .*No such file"):
            await primary.fork("a", cwd="/no/such/place")
        assert not primary.workers
        await primary.fork("a")
    assert not diary.of("restart")
    assert diary.of("exit", "a")[0].reason == "LookupError: the sea is empty"


async def test_entering_fails_with_the_first_that_fails() -> None:
    primary = cluster.Cluster(program("failing"), workers=3, **QUICK)
    with pytest.raises(cluster.WorkerFailed, match="the sea is empty"):
        async with primary:
            raise AssertionError("it was entered")
    assert primary.is_over
    assert not primary.workers


async def test_entering_fails_as_soon_as_one_has_failed() -> None:
    """The others may take their time, and it is not waited for it."""
    primary, _ = made("not_ready_but_the_second_fails", workers=2, ready_timeout=None)
    with pytest.raises(cluster.WorkerFailed, match=r"'2' .*the sea is empty"):
        async with primary:
            pytest.fail("it was entered")


async def test_scaling_fails_as_soon_as_one_has_failed_and_those_that_are_ready_stay() -> None:
    primary, _ = made("the_second_fails_later", ready_timeout=None)
    async with primary:
        with pytest.raises(cluster.WorkerFailed, match=r"'2' .*the sea is empty"):
            await primary.scale("", 2)
        assert list(primary.workers) == ["1"]
        assert primary.worker("1").is_listened_to


async def test_scaling_starts_more_of_the_same() -> None:
    primary, _ = made()
    async with primary:
        await primary.fork("a", role="queue", env={"QUEUE": "1"}, drain_timeout=3.0)
        await primary.scale("queue", 2)
        _, new = primary.workers.values()
        assert (new.env, new.settings.drain_timeout) == ({"QUEUE": "1"}, 3.0)
        assert await new.request("environment", "QUEUE") == "1"


async def test_what_cannot_be_started_harms_nobody_else() -> None:
    primary, diary = made(workers=1)
    async with primary:
        for wrong in ({"uid": "no such user"}, {"cwd": "/no/such/directory"}, {"exec_args": ["\0"]}):
            with pytest.raises(cluster.WorkerFailed, match="could not be started"):
                await primary.fork("a", **wrong)
        with pytest.raises(ValueError, match="no environment can have"):
            await primary.fork("a", env={"A=B": "1"})
        assert await primary.worker("1").request("who")
        assert list(primary.workers) == ["1"]
        assert {each.worker and each.worker.id for each in diary.of("error")} == {"a"}


async def test_what_nobody_has_thought_of_ends_one_worker_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it is what keeps the worker that fails, or what accompanies its process."""
    primary, diary = made(workers=1)
    async with primary:
        await primary.fork("kept")

        def fail(*_: object, **__: object) -> None:
            raise LookupError("nobody has thought of this")

        with monkeypatch.context() as patches:
            patches.setattr(RestartPolicy, "wants", fail)
            await told(primary.worker("kept"), "die", 1)
            await diary.seen("error", "kept")
        with monkeypatch.context() as patches:
            patches.setattr(Watch, "run", fail)
            await primary.fork("accompanied")
            await diary.seen("error", "accompanied")
        await diary.until(lambda: "kept" not in primary.workers, "the end of the one")
        await diary.seen("ready", "accompanied", count=2)
        assert await primary.worker("1").request("who")
        assert sorted(primary.workers) == ["1", "accompanied"]


async def test_a_program_that_forgets_that_its_workers_run_it_starts_no_chain(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "forgetful.py"
    script.write_text(
        "import trio\nfrom pyipc import cluster\n"
        "async def main():\n    async with cluster.Cluster(workers=1):\n        pass\n"
        "trio.run(main)\n",
        "utf-8",
    )
    primary, _ = made()
    async with primary:
        with pytest.raises(cluster.WorkerFailed, match="ended with code 1"):
            await primary.fork("a", exec=str(script), args=[], exec_args=[], env={"PYTHONPATH": str(ROOT)})
    assert "is a worker of a cluster, and would start workers that do the same" in capfd.readouterr().err


async def test_one_that_is_not_ready_in_time_is_ended() -> None:
    primary, diary = made()
    async with primary:
        with pytest.raises(cluster.WorkerFailed, match=r"not ready within 1 s; let its program"):
            await primary.fork("a", exec=program("never_ready"), ready_timeout=1.0)
    assert diary.of("exit")[0].signal == signal.SIGKILL


async def test_one_that_nobody_waits_for_is_tried_until_the_limit() -> None:
    primary, diary = made(max_restarts=2)
    async with primary:
        worker = await primary.fork("a", exec=program("failing"), wait=False)
        await diary.seen("error")
        attempt = ["fork", "online", "disconnect", "exit"]
        assert diary.types("a") == [*attempt, "restart", *attempt, "restart", *attempt, "error"]
        [error] = diary.of("error")
        assert isinstance(error.error, cluster.WorkerFailed)
        assert "started again 2 times before" in error.reason
        assert worker.state == primary.workers["a"].info().state == "failed"
        assert worker.pid is None
        with pytest.raises(pyipc.ConnectionLost, match="it is failed"):
            await worker.request("who")
        # It may be forked again.
        again = await primary.fork("a")
        assert primary.workers["a"] is again
        assert (await again.request("who"))[1] == 1
        await worker.gone.wait()
        with pytest.raises(ValueError, match="already"):
            await primary.fork("a")


async def test_all_have_failed_and_a_reload_revives_them() -> None:
    primary, diary = made(max_restarts=0, workers=2)
    async with primary:
        for worker in primary.workers.values():
            await told(worker, "die", 1)
        await diary.seen("error", count=2)
        assert {each.state for each in primary.workers.values()} == {"failed"}
        await primary.reload()
        assert {each.state for each in primary.workers.values()} == {"ready"}
        assert [(await each.request("who"))[1] for each in primary.workers.values()] == [2, 2]


async def test_scaling_does_not_count_those_that_have_failed() -> None:
    primary, diary = made(max_restarts=0, workers=2)
    async with primary:
        await told(primary.worker("1"), "die", 1)
        await diary.seen("error")
        await primary.scale("", 2)
        assert {each.state for each in primary.workers.values()} == {"ready"}
        assert sorted(primary.workers) == ["2", "3"]


# --- ends of all kinds ---


@pytest.mark.parametrize(
    ("event", "data", "code", "number"),
    [
        ("die", 1, 1, None),
        ("die", 0, 0, None),
        ("die", 200, 200, None),
        ("exit", 3, 3, None),
        ("crash", None, None, signal.SIGSEGV),
    ],
)
async def test_an_end_is_told_as_it_was_and_followed_by_a_restart(
    event: str, data: object, code: int | None, number: int | None
) -> None:
    primary, diary = made(workers=1)
    async with primary:
        await told(primary.worker("1"), event, data)
        await diary.seen("ready", count=2)
        [end] = diary.of("exit")
        assert (end.code, end.signal, end.voluntary) == (code, number, False)
        assert diary.types("1")[3:] == ["disconnect", "exit", "restart", "fork", "online", "ready"]
        assert primary.worker("1").restarts == 1
        assert (await primary.worker("1").request("who"))[1] == 2


async def test_killed_from_outside() -> None:
    primary, diary = made(workers=1)
    async with primary:
        pid, _ = await primary.worker("1").request("who")
        assert pid == primary.worker("1").pid
        os.kill(pid, signal.SIGKILL)
        assert (await diary.seen("exit")).signal == signal.SIGKILL
        await diary.seen("ready", count=2)


async def test_sigterm_from_outside_drains_and_is_followed_by_a_restart() -> None:
    primary, diary = made(workers=1)
    async with primary:
        worker = primary.worker("1")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.request, "wait", 0.5)
            pid, _ = await worker.request("who")
            os.kill(pid, signal.SIGTERM)
        end = await diary.seen("exit")
        assert (end.code, end.voluntary) == (0, False)
        assert worker.process is not None
        if worker.process.generation == 1:
            assert (worker.process.state, worker.process.code, worker.process.voluntary) == ("gone", 0, False)
        await diary.seen("ready", count=2)
        assert worker.process is not None
        assert (worker.process.state, worker.process.generation, worker.process.pid) == ("ready", 2, worker.pid)


async def test_exit_codes_and_modes_of_restart() -> None:
    primary, diary = made(restart="on-failure", stop_exit_codes=[9])
    async with primary:
        for code in (0, 9):
            worker = await primary.fork("a", exec=program("ready_then_exit"), env={"CODE": str(code)})
            await worker.gone.wait()
            assert not primary.workers
        assert not diary.of("restart")
        await primary.fork("a", exec=program("ready_then_exit"), env={"CODE": "8"}, max_restarts=1)
        await diary.seen("error")
        assert [each.code for each in diary.of("exit")] == [0, 9, 8, 8]
        worker = await primary.fork("b", restart="never")
        await told(worker, "die", 8)
        await worker.gone.wait()
        worker = await primary.fork("c", exec=program("returning"))
        await worker.gone.wait()
        await diary.seen("exit", "c")
        assert diary.of("exit", "c")[0].voluntary
        assert len(diary.of("restart")) == 1


# --- hanging ---


@pytest.mark.parametrize(("event", "data"), [("stop", None), ("block", 100.0), ("spin", None)])
async def test_one_that_hangs_is_killed_and_replaced(event: str, data: object) -> None:
    primary, diary = made(workers=1, heartbeat_interval=0.1, hang_timeout=1.0)
    async with primary:
        await told(primary.worker("1"), event, data)
        assert "hangs" in (await diary.seen("unhealthy")).reason
        await diary.seen("ready", count=2)
        [end] = diary.of("exit")
        assert end.signal == signal.SIGKILL
        assert end.reason == diary.of("unhealthy")[0].reason
        assert "hangs" in diary.of("restart")[0].reason


async def test_one_that_is_told_to_leave_is_there_until_it_is_gone() -> None:
    primary, diary = made("stubborn", workers=1, drain_timeout=0.2, kill_timeout=PATIENCE)
    async with primary:
        worker = primary.worker("1")
        worker.leave()
        assert "it has not left within 0.2 s" in (await diary.seen("unhealthy")).reason
        assert primary.workers["1"] is worker
        worker.kill(signal.SIGKILL)
        await worker.gone.wait()
        assert not primary.workers


async def test_who_is_ready_has_told_so_whatever_comes_next() -> None:
    primary, diary = made("ready_and_dead", restart="never")
    async with primary:
        await primary.fork("a")
    assert diary.types("a") == ["fork", "online", "ready", "disconnect", "exit"]


async def test_the_table_tells_lag_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    primary, _ = made(workers=1, heartbeat_interval=0.1)
    async with primary:
        worker = primary.worker("1")
        process = worker.current
        assert process is not None
        lags: list[float] = []
        note = process.on_pulse

        def on_pulse(pulse: dict[str, Any]) -> None:
            note(pulse)
            lags.append(worker.info().lag or 0.0)

        monkeypatch.setattr(process, "on_pulse", on_pulse)
        # A pulse is due every 0.1 s, so one that is due while it blocks is late by more than 0.4 s.
        await worker.request("block", 0.6)
        with trio.fail_after(PATIENCE):
            while max(lags, default=0.0) < 0.4:  # noqa: ASYNC110 - of pulses there is no event
                await trio.sleep(0.02)
        before = worker.info()
        assert before.memory is not None
        assert before.memory > 5_000_000


# --- too large, too old ---


async def test_one_that_is_too_large_is_replaced_the_new_one_first() -> None:
    primary, diary = made(workers=1, heartbeat_interval=0.1, hang_timeout=10.0, max_memory_size=250_000_000)
    async with primary:
        await primary.worker("1").request("grow", 400_000_000)
        assert "max_memory_size is 250,000,000" in (await diary.seen("unhealthy")).reason
        await diary.seen("exit")
        assert diary.types("1") == [
            *["fork", "online", "ready", "unhealthy", "restart", "fork", "online", "ready"],
            *["disconnect", "exit"],
        ]
        assert diary.of("exit")[0].voluntary
        assert primary.worker("1").restarts == 0  # no process of it has ended by itself
        assert (await primary.worker("1").request("who"))[1] == 2


async def test_one_that_is_too_old_is_replaced() -> None:
    primary, diary = made(workers=2, heartbeat_interval=0.1, max_age_timeout=1.0)
    async with primary:
        await diary.seen("exit", count=2)
        assert all(each.voluntary for each in diary.of("exit"))
        assert "max_age_timeout is 1 s" in diary.of("restart")[0].reason


async def test_a_renewal_that_fails_is_told_and_tried_again_in_good_time() -> None:
    primary, diary = made(
        "second_fails",
        workers=1,
        heartbeat_interval=0.05,
        max_age_timeout=0.5,
        restart_interval=0.2,
        restart_jitter=False,
    )
    async with primary:
        pid = primary.worker("1").pid
        third = await diary.seen("error", count=3)
        assert "once was enough" in third.reason
        assert diary.of("restart")
        assert [each.delay for each in diary.of("restart")] == [0.0] * len(diary.of("restart"))
        assert primary.worker("1").pid == pid
        assert primary.worker("1").is_ready
