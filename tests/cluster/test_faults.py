"""Workers that go wrong, in real processes: that is noticed, and told, and nothing of them is left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import pyipc
from pyipc import cluster
from tests.battery.leaks import leak_gate
from tests.cluster.diary import PATIENCE, ROOT, Diary, children, ended, is_running
from tests.conftest import CANNOT_RUN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason=f"{CANNOT_RUN} it looks at /proc, and sends signals")

QUICK: Any = {"cwd": str(ROOT), "restart_interval": 0.01, "kill_timeout": 1.0, "drain_timeout": 5.0}


def program(name: str) -> str:
    return f"tests.cluster.programs.faulty:{name}"


def made(name: str = "main", **settings: Any) -> tuple[cluster.Cluster, Diary]:
    primary = cluster.Cluster(program(name), **{**QUICK, **settings})
    return primary, Diary(primary)


@pytest.fixture(autouse=True)
async def nothing_is_left() -> AsyncIterator[None]:
    """No process, zombie, descriptor or task of any of these tests is there afterwards."""
    async with leak_gate():
        yield


async def told(worker: cluster.WorkerHandle, event: str, data: object = None, timeout: float = PATIENCE) -> None:
    """Ask it for something that it does not survive, or not answer."""
    with contextlib.suppress(pyipc.ConnectionLost, pyipc.RequestError):
        await worker.request(event, data, timeout=timeout)


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
        await diary.seen("ready", count=2)


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


async def test_the_table_tells_lag_and_memory() -> None:
    primary, _ = made(workers=1, heartbeat_interval=0.1)
    async with primary:
        worker = primary.worker("1")
        await worker.request("block", 0.5)
        process = worker.process
        assert process is not None
        heard = process.pulses
        with trio.fail_after(PATIENCE):
            while process.pulses < heard + 2:  # noqa: ASYNC110 - of pulses there is no event
                await trio.sleep(0.02)
        before = worker.info()
        assert before.lag is not None
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
        assert [each.delay for each in diary.of("restart")] == [0.0] * len(diary.of("restart"))
        assert primary.worker("1").pid == pid
        assert primary.worker("1").is_ready


# --- while another process takes the place ---


async def test_the_old_process_dies_while_the_new_one_starts() -> None:
    primary, diary = made("second_is_slow", workers=2)
    async with primary:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(primary.reload)
            await diary.seen("fork", "1", count=1)
            await told(primary.worker("1"), "die", 1)
        assert [(await each.request("who"))[1] for each in primary.workers.values()] == [2, 2]
        assert not diary.of("restart")
        assert primary.worker("1").restarts == 0


async def test_a_new_process_that_dies_aborts_the_reload() -> None:
    primary, diary = made("second_is_slow", workers=2)
    async with primary:
        pids = [each.pid for each in primary.workers.values()]
        with pytest.raises(cluster.ReloadFailed, match="SIGKILL") as caught:
            async with trio.open_nursery() as nursery:

                @primary.once("online")
                def kill(event: cluster.WorkerEvent) -> None:
                    new = next(pid for pid in children() if pid not in pids and event.worker is not None)
                    os.kill(new, signal.SIGKILL)

                try:
                    await primary.reload()
                except cluster.ReloadFailed as error:
                    nursery.cancel_scope.cancel()
                    failed = error
            raise failed
        assert len(caught.value.reasons) == 1
        assert [each.pid for each in primary.workers.values()] == pids
        assert [(await each.request("who"))[1] for each in primary.workers.values()] == [1, 1]
        await diary.seen("exit", count=2)  # of the new ones
        assert not diary.of("restart")
        await primary.reload()


async def test_a_reload_with_new_code_that_fails_keeps_the_old() -> None:
    primary, diary = made("second_fails", workers=3)
    async with primary:
        with pytest.raises(cluster.ReloadFailed, match="once was enough"):
            await primary.reload()
        assert [(await each.request("who"))[1] for each in primary.workers.values()] == [1, 1, 1]
        assert not diary.of("restart")


async def test_a_cancelled_reload_leaves_no_process() -> None:
    primary, diary = made("second_is_slow", workers=2)
    async with primary:
        before = children()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(primary.reload)
            await trio.testing.wait_all_tasks_blocked()  # not even started yet, some of them
            nursery.cancel_scope.cancel()
        await diary.seen("exit", count=2)
        assert children() == before


async def test_a_worker_leaves_while_it_is_reloaded() -> None:
    primary, diary = made("second_is_slow", workers=2)
    async with primary:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(primary.reload)
            await diary.seen("online", count=2)
            await primary.worker("1").disconnect()
        assert list(primary.workers) == ["2"]
        assert (await primary.worker("2").request("who"))[1] == 2


# --- leaving ---


async def test_disconnect_before_the_start_is_over() -> None:
    primary, diary = made()
    async with primary:
        worker = await primary.fork("a", wait=False)
        await worker.disconnect()
        await primary.fork("a")
        again = await primary.fork("b", exec=program("never_ready"), wait=False)
        await diary.seen("online", "b")
        await again.disconnect()
        assert list(primary.workers) == ["a"]
    assert not diary.of("restart")


async def test_disconnect_during_the_pause_before_a_restart() -> None:
    primary, diary = made(workers=1, restart_interval=1_000.0, restart_max_interval=1_000.0)
    async with primary:
        await told(primary.worker("1"), "die", 1)
        await diary.seen("restart")
        assert primary.worker("1").state == "waiting"
        await primary.worker("1").disconnect()
        assert not primary.workers


async def test_a_reload_ends_the_pause_before_a_restart() -> None:
    primary, diary = made(workers=1, restart_interval=1_000.0, restart_max_interval=1_000.0)
    async with primary:
        await told(primary.worker("1"), "die", 1)
        await diary.seen("restart")
        await primary.reload()
        assert primary.worker("1").is_ready
    assert len(diary.of("fork")) == 2


async def test_disconnect_twice_and_from_handlers() -> None:
    primary, diary = made(workers=3)
    async with primary:
        worker = primary.worker("1")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.disconnect)
            nursery.start_soon(worker.disconnect)
        await worker.disconnect()
        assert worker.exited_after_disconnect

        @primary.on("exit")
        async def leave(event: cluster.WorkerEvent) -> None:
            await primary.disconnect()

        await primary.worker("2").disconnect()
        await diary.seen("exit", "3")
    assert not diary.of("restart")


async def test_all_are_sent_away_by_the_handler_of_a_message() -> None:
    primary, _ = made(workers=1)
    over = trio.Event()

    @primary.router.on("enough")
    async def enough(message: pyipc.Message[None]) -> None:
        await primary.worker_of(message).disconnect()
        over.set()

    async with primary:
        await primary.fork("b", exec="tests.cluster.programs.faulty:saying_enough")
        with trio.fail_after(PATIENCE):
            await over.wait()
        assert list(primary.workers) == ["1"]


async def test_an_end_while_it_drains() -> None:
    primary, diary = made(workers=1)
    async with primary:
        worker = primary.worker("1")
        pid, _ = await worker.request("who")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(told, worker, "wait", 20.0)
            nursery.start_soon(worker.disconnect)
            await diary.until(lambda: True, "")
            while worker.state != "draining":
                await worker.wait_changed()
            os.kill(pid, signal.SIGKILL)
        assert diary.of("exit")[0].voluntary
        assert not primary.workers
    assert not diary.of("restart")


async def test_one_that_will_not_leave_is_killed() -> None:
    primary, diary = made("stubborn", workers=1, drain_timeout=0.2, kill_timeout=0.2)
    async with primary:
        await primary.worker("1").disconnect()
        assert diary.of("exit")[0].signal == signal.SIGKILL
        assert diary.of("exit")[0].voluntary


async def test_one_that_stands_still_is_killed_when_it_is_to_leave() -> None:
    primary, diary = made(workers=1, drain_timeout=0.2, kill_timeout=0.2)
    async with primary:
        await told(primary.worker("1"), "stop", timeout=1.0)
    assert diary.of("exit")[0].signal == signal.SIGKILL


async def test_kill_is_an_end_that_was_meant() -> None:
    primary, diary = made(workers=2)
    async with primary:
        primary.worker("1").kill(signal.SIGKILL)
        primary.worker("2").kill()
        await diary.seen("exit", count=2)
        assert [each.voluntary for each in diary.of("exit")] == [True, True]
        assert [(each.code, each.signal) for each in diary.of("exit", "1") + diary.of("exit", "2")] == [
            (None, 9),
            (0, None),
        ]
    assert not diary.of("restart")


async def test_a_grandchild_that_holds_the_connections_keeps_nobody_waiting() -> None:
    primary, diary = made(workers=1)
    async with primary:
        begotten = await primary.worker("1").request("beget")
        try:
            began = trio.current_time()
            await told(primary.worker("1"), "die", 1)
            await diary.seen("ready", count=2)
            print(f"noticed and started again after {trio.current_time() - began:.2f} s")
            assert is_running(begotten)
        finally:
            os.kill(begotten, signal.SIGKILL)
        await ended(begotten)


# --- the end of the cluster ---


@pytest.mark.parametrize("moment", range(12))
async def test_a_cancelled_block_leaves_no_process(moment: int) -> None:
    """At any moment: while they start, while they serve, while they are reloaded, while they leave."""
    primary, _ = made("second_is_slow")
    with trio.move_on_after(0.1 * moment) as scope:
        async with primary:
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(primary.fork)
            await primary.reload()
            await primary.fork(exec=program("stubborn"))
    assert scope.cancelled_caught or moment > 3
    assert not children()
    assert not primary.workers
    assert primary.is_over or not moment  # it was not even entered


async def test_an_error_of_the_block_arrives_as_itself() -> None:
    primary, diary = made(workers=1)
    with pytest.raises(ZeroDivisionError):
        async with primary:
            raise ZeroDivisionError
    assert diary.of("exit")[0].code == 0
    assert not children()


async def test_kill_ends_all_at_once() -> None:
    primary, diary = made("stubborn", workers=2)
    async with primary, trio.open_nursery() as nursery:
        nursery.start_soon(_reload_in_vain, primary)
        await diary.seen("fork", count=2)
        primary.kill()
    assert {each.signal for each in diary.of("exit")} == {signal.SIGKILL}


async def _reload_in_vain(primary: cluster.Cluster) -> None:
    with contextlib.suppress(cluster.ReloadFailed):
        await primary.reload()


async def test_handlers_that_raise_harm_nobody() -> None:
    primary, diary = made(workers=1)
    for type in cluster.EVENTS:

        @primary.on(type)
        def fail(event: cluster.WorkerEvent) -> None:
            raise RuntimeError("a handler")

        @primary.on(type)
        async def fail_later(event: cluster.WorkerEvent) -> None:
            async with trio.open_nursery() as nursery:
                nursery.cancel_scope.cancel()
                raise RuntimeError("a handler, in pieces")

    async with primary:
        await told(primary.worker("1"), "die", 1)
        await diary.seen("ready", count=2)
    assert diary.types("1").count("exit") == 2


@pytest.mark.time_limit(180)
async def test_thirty_workers_on_however_few_processors() -> None:
    primary, diary = made(workers=30, ready_timeout=120.0)
    async with primary:
        assert len({(await each.request("who"))[0] for each in primary.workers.values()}) == 30
        assert len(diary.of("ready")) == 30
    assert not children()


@pytest.mark.time_limit(180)
async def test_a_hundred_restarts_leak_nothing() -> None:
    script = ROOT / "tests" / "cluster" / "programs" / "ends_at_once.py"
    primary, diary = made(max_restarts=1_000, restart_interval=0.0)
    async with primary, leak_gate():
        worker = await primary.fork("a", exec=str(script), exec_args=["-I", "-S"], wait=False)
        await diary.seen("restart", count=100)
        await worker.disconnect()
    assert {each.code for each in diary.of("exit")} <= {3, None}
