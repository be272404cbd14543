"""A cluster in the foreground: every step is told, signals are obeyed, and the exit status says how it ended."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from pyipc import cluster
from tests.cli.processes import PATIENCE, eventually, start
from tests.cluster.foreground import PROGRAMS, running, started, step
from tests.conftest import CANNOT_RUN

if TYPE_CHECKING:
    from pathlib import Path

# Under Wine an interpreter takes several seconds to start, and a busy machine many.
pytestmark = pytest.mark.time_limit(180)

needs_signals = pytest.mark.skipif(sys.platform == "win32", reason=f"{CANNOT_RUN} there are no signals to send")

if sys.platform == "win32":
    SIGHUP = SIGTTIN = SIGTTOU = SIGUSR1 = SIGKILL = 0
else:
    from signal import SIGHUP, SIGKILL, SIGTTIN, SIGTTOU, SIGUSR1


@needs_signals
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_every_step_from_the_beginning_to_the_end(number: int) -> None:
    async with started("foreground:steady", workers=2, role="web") as program:
        await running(program)
        result = await program.interrupt(number)
    assert (result.status, result.out) == (0, "")
    lines = result.err.splitlines()
    begin = re.search(step("begin", who="cluster", rest="2 workers of foreground:steady"), lines[0])
    assert begin is not None
    assert begin["pid"] == str(program.process.pid)
    name = signal.Signals(number).name
    assert re.search(step("end", rest=f"all workers have left, after {name}"), lines[-1])
    for worker in ("1", "2"):
        who = rf"worker {worker} \(web\)"
        found = [match for line in lines if (match := re.search(step(r"(?P<kind>[a-z-]+)", who=who), line))]
        assert [match["kind"] for match in found] == ["fork", "online", "ready", "disconnect", "exit"]
        (pid,) = {match["pid"] for match in found}
        assert found[-1]["rest"] == "code 0"
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)
    assert len(lines) == 2 * 5 + 4
    (drain,) = [line for line in lines if re.search(step("drain"), line)]
    assert f"{name}: the workers finish" in drain


@needs_signals
@pytest.mark.parametrize(
    ("first", "second", "status"),
    [
        (signal.SIGINT, signal.SIGINT, 130),
        (signal.SIGTERM, signal.SIGTERM, 143),
        (signal.SIGTERM, signal.SIGINT, 130),
    ],
)
async def test_the_second_signal_means_now(first: int, second: int, status: int) -> None:
    async with started("foreground:stubborn", workers=2) as program:
        await running(program)
        program.process.send_signal(first)
        await program.line(step("drain"), stream="err")
        result = await program.interrupt(second)
    assert result.status == status
    assert len(re.findall(r" exit +SIGKILL$", result.err, re.MULTILINE)) == 2
    assert re.search(r" end +all workers were ended at once, after SIG\w+$", result.err.rstrip())


@needs_signals
async def test_who_does_not_finish_is_ended_after_its_time() -> None:
    async with started("foreground:stubborn", workers=1, drain_timeout=0.2) as program:
        await running(program)
        result = await program.interrupt(signal.SIGTERM)
    assert result.status == 0
    assert re.search(step("exit"), result.err.splitlines()[-2])


@needs_signals
async def test_whoever_has_to_be_killed_is_told() -> None:
    async with started("foreground:deaf", workers=1, drain_timeout=0.2, kill_timeout=0.2) as program:
        await running(program)
        result = await program.interrupt(signal.SIGTERM)
    assert result.status == 0
    told = [line["rest"] for line in re.finditer(step("unhealthy", who="worker 1"), result.err, re.MULTILINE)]
    assert told == [
        "it has not left within 0.2 s, and is sent SIGTERM",
        "it has not ended 0.2 s after SIGTERM, and is sent SIGKILL",
    ]
    end = "all workers have left, after SIGTERM; worker '1': ended by SIGKILL"
    assert result.err.splitlines()[-1].endswith(end)
    assert len(result.err.splitlines()) == 5 + 2 + 4  # nothing of it is told by the log as well


@needs_signals
async def test_a_signal_while_workers_start() -> None:
    async with started("foreground:slow", workers=2, kill_timeout=1, drain_timeout=1) as program:
        await program.line(step("online"), stream="err")
        result = await program.interrupt(signal.SIGTERM)
    assert result.status == 0
    assert " running " not in result.err
    assert result.err.splitlines()[-1].endswith("all workers have left, after SIGTERM")


@needs_signals
async def test_reload_replaces_every_process() -> None:
    async with started("foreground:steady", workers=2) as program:
        await running(program)
        for count in (1, 2):
            program.process.send_signal(SIGHUP)
            await program.line(step("reloaded", rest=r"2 workers after .* s"), stream="err", count=count)
        result = await program.interrupt()
    assert result.status == 0
    pids = {line["pid"] for line in re.finditer(step("ready"), result.err, re.MULTILINE)}
    gone = [line["pid"] for line in re.finditer(step("exit", rest="code 0"), result.err, re.MULTILINE)]
    assert len(pids) == 6
    assert sorted(gone) == sorted(pids)
    assert len(re.findall(step("reload", rest="SIGHUP"), result.err, re.MULTILINE)) == 2


@needs_signals
async def test_a_reload_that_fails_is_told_and_the_old_workers_go_on(tmp_path: Path) -> None:
    source = tmp_path / "changing.py"
    source.write_text("async def main(worker):\n    await worker.run()\n", "utf-8")
    async with started("changing:main", cwd=tmp_path, workers=2) as program:
        await running(program)
        source.write_text("async def main(worker) -> None:\n    await (\n", "utf-8")
        program.process.send_signal(SIGHUP)
        told = await program.line(step("reload-failed"), stream="err")
        assert "the workers from before go on" in told["rest"]
        assert "SyntaxError" in told["rest"]
        old = {line["pid"] for line in re.finditer(step("ready"), program.err.decode(), re.MULTILINE)}
        for pid in old:
            os.kill(int(pid), 0)
        source.write_text("async def main(worker):\n    print('new', flush=True)\n    await worker.run()\n", "utf-8")
        program.process.send_signal(SIGHUP)
        await program.line(step("reloaded"), stream="err")
        await program.line("^new$", count=2)
        assert (await program.interrupt()).status == 0


@needs_signals
async def test_a_wish_that_fails_for_whatever_reason_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    collector = Collector()
    runner = cluster.Runner(str(PROGRAMS / "steady.py"), workers=1, reporter=collector)

    async def fail(*_: object) -> None:
        raise LookupError("nobody has thought of this")

    def kinds() -> set[str]:
        return {each.kind for each in collector.steps}

    async with trio.open_nursery() as nursery:
        nursery.start_soon(runner.run)
        await eventually(lambda: "running" in kinds(), "the start")
        monkeypatch.setattr(runner.cluster, "reload", fail)
        monkeypatch.setattr(runner.cluster, "scale", fail)
        for number, kind in ((SIGHUP, "reload-failed"), (SIGTTIN, "scale-failed")):
            os.kill(os.getpid(), number)
            await eventually(lambda kind=kind: kind in kinds(), kind)  # type: ignore[misc]
        assert runner.cluster.worker("1").is_ready
        nursery.cancel_scope.cancel()


@needs_signals
async def test_more_and_fewer_workers() -> None:
    async with started("foreground:steady", workers=1) as program:
        await running(program)
        program.process.send_signal(SIGTTIN)
        await program.line(step("scale", rest="from 1 to 2 workers"), stream="err")
        await program.line(step("ready", who="worker 2"), stream="err")
        program.process.send_signal(SIGTTOU)
        await program.line(step("scale", rest="from 2 to 1 worker"), stream="err")
        await program.line(step("exit", who="worker 2", rest="code 0"), stream="err")
        program.process.send_signal(SIGTTOU)
        await program.line(step("scale", rest="the last worker stays"), stream="err")
        program.process.send_signal(SIGUSR1)
        await program.line(step("table", who="worker 1", rest="ready, up .*, 0 restarts, 0 in flight.*"), stream="err")
        result = await program.interrupt()
    assert result.status == 0
    assert len(re.findall(step("exit"), result.err, re.MULTILINE)) == 2


@needs_signals
async def test_a_worker_that_dies_is_told_once_and_started_again() -> None:
    async with started("foreground:steady", workers=1) as program:
        await running(program)
        os.kill(int((await program.line(step("ready"), stream="err"))["pid"]), SIGKILL)
        await program.line(step("exit", rest="SIGKILL"), stream="err")
        await program.line(step("restart", rest="in .* s: was ended by SIGKILL"), stream="err")
        await program.line(step("ready"), stream="err", count=2)
        result = await program.interrupt()
    assert result.status == 0
    # The log tells of it too, to those who have no lines.
    assert result.err.count("ended by SIGKILL") == 1


@pytest.mark.parametrize("target", ["foreground:brief", "foreground:ready_and_gone"])
async def test_when_all_workers_have_returned_it_ends_well(target: str) -> None:
    async with started(target, workers=2) as program:
        result = await program.finish()
    assert result.status == 0, result.err
    assert re.search(step("end", rest="all workers have returned"), result.err.splitlines()[-1])


async def test_a_script_that_never_joins_has_not_done_its_work() -> None:
    collector = Collector()
    assert await cluster.Runner(str(PROGRAMS / "never_joining.py"), workers=1, reporter=collector).run() == 1
    assert collector.steps[-1].kind == "end"
    assert "without having joined the cluster; call cluster.run_worker(main)" in collector.steps[-1].text
    [exit] = [each for each in collector.steps if each.kind == "exit"]
    assert (exit.code, exit.is_problem) == (0, True)


async def test_the_first_workers_fail() -> None:
    async with started("foreground:failing", workers=2) as program:
        result = await program.finish()
    assert result.status == 1
    last = result.err.splitlines()[-1]
    assert re.search(step("end", rest=r"no worker is left: .*code 1: ValueError: .*red.*"), last)
    told = [line for line in result.err.splitlines() if re.search(step("(exit|end)"), line)]
    assert r"\x1b[31mred" in told[0]
    assert "\x1b" not in "".join(told)
    # The traceback is that of the program, without what has called it.
    files = set(re.findall(r'File "(.*?)"', result.err))
    assert files == {str(PROGRAMS / "foreground.py")}


async def test_workers_that_fail_too_often() -> None:
    async with started("foreground:failing_later", workers=1, max_restarts=2, restart_interval=0.01) as program:
        result = await program.finish()
    assert result.status == 1
    assert len(re.findall(step("restart"), result.err, re.MULTILINE)) == 2
    assert re.search(step("error", rest=".*started again 2 times before"), result.err, re.MULTILINE)
    assert "as it is written" in result.err.splitlines()[-1]


async def test_a_worker_that_is_not_to_be_started_again() -> None:
    async with started("foreground:failing_later", workers=1, restart="never") as program:
        result = await program.finish()
    assert result.status == 1
    assert " restart " not in result.err
    assert "code 1: ValueError: as it is written" in result.err.splitlines()[-1]


@needs_signals
async def test_a_script_that_is_both() -> None:
    async with start(command=[sys.executable, "-W", "error", PROGRAMS / "both.py"]) as program:
        await program.line(step("ready", who=r"worker \d \(both\)"), stream="err", count=2)
        await running(program)
        assert (await program.interrupt()).status == 0


async def test_a_worker_that_would_start_a_cluster_is_refused() -> None:
    async with started("foreground:starting_a_cluster", workers=1) as program:
        result = await program.finish()
    assert result.status == 1
    assert "ClusterError: this process is a worker of a cluster" in result.err.splitlines()[-1]


@needs_signals
async def test_systemd_is_told(directory: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(directory / "notify"))
        sock.setblocking(False)
        receiver = trio.socket.from_stdlib_socket(sock)

        async def told() -> list[str]:
            with trio.fail_after(PATIENCE):
                return (await receiver.recv(4096)).decode().splitlines()

        env = {"NOTIFY_SOCKET": str(directory / "notify")}
        async with started("foreground:telling", workers=1, env=env) as program:
            assert await told() == ["READY=1", "STATUS=1 worker"]
            await program.line("told: None")
            program.process.send_signal(SIGHUP)
            reloading = await told()
            assert reloading[0] == "RELOADING=1"
            assert re.fullmatch(r"MONOTONIC_USEC=\d+", reloading[1])
            assert (await told())[0] == "READY=1"
            program.process.send_signal(signal.SIGTERM)
            assert (await told())[0] == "STOPPING=1"
            assert (await program.finish()).status == 0


# --- inside this process ---


class Collector:
    """Keeps every step."""

    def __init__(self) -> None:
        self.steps: list[cluster.Step] = []

    async def report(self, step: cluster.Step) -> None:
        await trio.lowlevel.checkpoint()
        self.steps.append(step)


def brief(**options: object) -> cluster.Runner:
    return cluster.Runner(str(PROGRAMS / "brief.py"), workers=1, **options)  # type: ignore[arg-type]


async def test_a_reporter_of_ones_own_gets_the_facts() -> None:
    collector = Collector()
    assert await brief(reporter=collector).run() == 0
    assert collector.steps[0].kind == "begin"
    assert collector.steps[0].pid == os.getpid()
    (exit,) = [each for each in collector.steps if each.kind == "exit"]
    assert exit.pid is not None
    assert exit.facts() == {
        "worker": "1",
        "pid": exit.pid,
        "generation": 1,
        "code": 0,
        "voluntary": True,
    }
    assert {each.kind for each in collector.steps} <= cluster.STEPS.keys()


async def test_a_reporter_that_never_comes_back_holds_up_nothing() -> None:
    class Stuck:
        async def report(self, step: cluster.Step) -> None:
            await trio.sleep_forever()

    with trio.fail_after(PATIENCE):
        assert await brief(reporter=Stuck()).run() == 0


async def test_a_reporter_that_is_behind_is_told_how_much_it_missed(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    from pyipc.cluster.reporting import Story

    collector = Collector()
    story = Story(collector)
    for _ in range(1_005):
        story.tell(cluster.Step(kind="table"))
    nursery.start_soon(story.run)
    await story.drain(1)
    assert [each.kind for each in collector.steps] == ["table"] * 1_000 + ["left-out"]
    assert collector.steps[-1].text == "5 steps were not written here"
    nursery.cancel_scope.cancel()


async def test_lines_that_nobody_can_read_are_no_reason_to_end(tmp_path: Path) -> None:
    with (tmp_path / "lines").open("w") as file:
        reporter = cluster.LineReporter(file)
        await reporter.report(cluster.Step(kind="begin"))
    await reporter.report(cluster.Step(kind="end"))
    assert (tmp_path / "lines").read_text().rstrip().endswith("begin")


def test_a_line_is_one_line_whatever_is_in_it() -> None:
    shown = cluster.step_line(cluster.Step(kind="exit", worker="1", role="a\nb", code=1, text="\x1b[2J\u202e"))
    assert shown.isprintable()
    assert r"\x1b[2J\u202e" in shown


async def test_what_cannot_be_run_is_refused_at_once() -> None:
    with pytest.raises(cluster.ClusterError, match="neither a function"):
        await cluster.Runner("no/such/file.py", workers=1).run()
    for workers in (0, -1, True, "many"):
        with pytest.raises(ValueError, match="workers must be"):
            cluster.Runner("a:b", workers=workers)  # type: ignore[arg-type]


async def test_a_node_program_that_cannot_be_run_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    if sys.platform != "win32":
        with pytest.raises(cluster.ClusterError, match="there is no program 'node' to run"):
            await cluster.Runner("server.js").run()
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(cluster.ClusterError, match="on Windows no Node program can be a worker"):
        await cluster.Runner("server.js").run()


def test_auto_is_as_many_as_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cluster.available_cpus() >= 1
    if hasattr(os, "sched_getaffinity") and sys.version_info < (3, 13):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 3, 4})
        assert cluster.available_cpus() == 3


async def test_that_all_are_ready_is_told_after_each_has_been() -> None:
    collector = Collector()
    runner = cluster.Runner(str(PROGRAMS / "steady.py"), workers=2, reporter=collector)
    runner.cluster.on("ready", lambda event: trio.sleep(0.2))  # before the runner's own handler
    async with trio.open_nursery() as nursery:
        nursery.start_soon(runner.run)
        await eventually(lambda: any(each.kind == "running" for each in collector.steps), "the start")
        kinds = [each.kind for each in collector.steps]
        assert kinds.count("ready") == 2
        assert kinds[-1] == "running"
        nursery.cancel_scope.cancel()


async def test_cancelling_a_runner_lets_its_workers_leave() -> None:
    collector = Collector()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cluster.Runner(str(PROGRAMS / "steady.py"), workers=1, reporter=collector).run)
        await eventually(lambda: any(each.kind == "running" for each in collector.steps), "the start")
        nursery.cancel_scope.cancel()
