"""Processes that take the place of others, workers that leave, and clusters that end, at the worst of moments."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

import pyipc
from pyipc import cluster
from tests.battery.leaks import leak_gate
from tests.cluster.diary import PATIENCE, ROOT, children, ended, is_running, made, program, told
from tests.conftest import CANNOT_RUN

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason=f"{CANNOT_RUN} it looks at /proc, and sends signals"),
    pytest.mark.usefixtures("nothing_is_left"),
]


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


async def test_a_reload_overtakes_a_fork() -> None:
    """Whoever waits for the first process has a worker all the same."""
    primary, diary = made("first_is_never_ready")
    async with primary:
        async with trio.open_nursery() as nursery:

            async def fork() -> None:
                worker = await primary.fork("a")
                assert worker.generation == 2

            nursery.start_soon(fork)
            await diary.seen("online")
            await primary.reload()
        assert (await primary.worker("a").request("who"))[1] == 2


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


async def test_nobody_is_replaced_before_all_can_be() -> None:
    primary, diary = made(workers=1)
    async with primary:
        await primary.fork("late", exec=program("second_fails_late"))
        with pytest.raises(cluster.ReloadFailed, match="late"):
            await primary.reload()
        assert [(await each.request("who"))[1] for each in primary.workers.values()] == [1, 1]
        await diary.seen("exit", "1")  # of the new one, which was ready
        assert (await primary.worker("1").request("who"))[1] == 1


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


async def test_a_new_process_that_dies_while_others_start_ends_the_reload_at_once() -> None:
    """Its worker would else have nobody to start it again."""
    primary, diary = made(workers=1)
    async with primary:
        await primary.fork("late", exec=program("second_is_never_ready"))

        @primary.on("ready")
        def kill(event: cluster.WorkerEvent) -> None:
            if event.generation == 2 and event.pid is not None:
                os.kill(event.pid, signal.SIGKILL)

        with pytest.raises(cluster.ReloadFailed, match="ended soon after it was ready"):
            await primary.reload()
        assert [(await each.request("who"))[1] for each in primary.workers.values()] == [1, 1]
        assert not diary.of("restart")


async def test_a_worker_that_is_ready_for_a_reload_may_leave_before_it_is_over() -> None:
    primary, diary = made(workers=1)
    async with primary:
        await primary.fork("late", exec=program("second_is_never_ready"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(primary.reload)
            await diary.seen("ready", "1", count=2)
            await primary.worker("1").disconnect()
            assert list(primary.workers) == ["late"]
            nursery.cancel_scope.cancel()


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


async def test_killed_before_the_system_has_started_it() -> None:
    primary, diary = made()
    async with primary:
        worker = await primary.fork("a", wait=False)
        while worker.process is None:
            await trio.lowlevel.checkpoint()
        worker.kill(signal.SIGKILL)
        await worker.gone.wait()
        await diary.seen("exit")
    assert diary.of("exit")[0].signal == signal.SIGKILL


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


async def test_all_are_sent_away_by_several_at_once(tmp_path: Path) -> None:
    """While a connection waits that nobody takes, which keeps the first of them busy."""
    primary, _ = made("stubborn_listener", env={"ADDRESS": f"unix:{tmp_path}/a"}, drain_timeout=0.2, kill_timeout=0.2)
    async with primary:
        await primary.fork("a")
        await told(primary.worker("a"), "stop", timeout=1.0)
        async with await trio.open_unix_socket(str(tmp_path / "a")), trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(primary.disconnect)
        assert not primary.workers


async def test_all_leave_though_whoever_sends_them_away_has_no_time() -> None:
    primary, diary = made(workers=2)
    async with primary:
        await primary.submit("wait", 0.5)
        with trio.CancelScope() as scope:
            scope.cancel()
            await primary.disconnect()
        await diary.seen("exit", count=2)
    assert [each.code for each in diary.of("exit")] == [0, 0]


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


async def test_after_a_disconnect_others_can_be_forked() -> None:
    primary, _ = made(workers=1)
    async with primary:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(primary.disconnect)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(cluster.ClusterError, match="all workers are leaving"):
                await primary.fork()
        worker = await primary.fork()
        assert await worker.request("who")
        assert list(primary.workers) == [worker.id]
        assert not primary.is_over
    assert primary.is_over


async def test_one_whose_exit_is_told_can_be_forked_again() -> None:
    primary, diary = made(workers=1, restart="never")
    forked = trio.Event()

    @primary.on("exit")
    async def fork(event: cluster.WorkerEvent) -> None:
        assert event.worker is not None
        if not forked.is_set():
            await primary.fork(event.worker.id, wait=False)
            forked.set()

    async with primary:
        await told(primary.worker("1"), "die", 1)
        await forked.wait()
        await diary.seen("ready", count=2)
        assert await primary.worker("1").request("who")


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
async def test_ctrl_c_lets_workers_finish(error: type[BaseException]) -> None:
    primary, diary = made(workers=1)
    with pytest.raises(error):
        async with primary:
            job = await primary.submit("wait", 0.5)
            raise error
    assert await job.result() is None
    assert [(each.code, each.signal) for each in diary.of("exit")] == [(0, None)]


async def test_a_cancelled_block_gives_workers_the_time_that_one_has_after_sigterm(tmp_path: Path) -> None:
    tidied = tmp_path / "tidied"
    primary, _ = made("tidy", workers=1, kill_timeout=PATIENCE, env={"TIDIED": str(tidied)})
    with trio.CancelScope() as scope:
        async with primary:
            scope.cancel()
            await trio.sleep_forever()
    assert tidied.exists()


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
