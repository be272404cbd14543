"""Node programs as workers: who they are, what happens to them, and how they are started, replaced and ended."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from pyipc import cluster
from tests.cluster.diary import PATIENCE, QUICK, ROOT, Diary, ended
from tests.cluster.node_workers import ANSWERING, NEEDS_NODE, OBEDIENT, heard, made, obedient, run, script
from tests.cluster.test_events import OWN, SCRIPT, events_of_node

pytestmark = NEEDS_NODE


# --- who it is ---


async def test_it_knows_who_it_is_and_gets_the_environment_that_it_is_to_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAKEN_AWAY", "x")
    code = """
        const {PYIPC_WORKER_ID, PYIPC_WORKER_ROLE, PYIPC_WORKER_GENERATION, OWN, CLUSTERS, TAKEN_AWAY} = process.env;
        process.send([PYIPC_WORKER_ID, PYIPC_WORKER_ROLE, PYIPC_WORKER_GENERATION, OWN, CLUSTERS, TAKEN_AWAY ?? null]);
        process.send([cluster.isWorker, cluster.isPrimary, cluster.worker.id, process.env.NODE_UNIQUE_ID ?? null]);
        process.send([process.argv.slice(2), process.execArgv]);
        process.send(Object.keys(process.env).filter((name) => /PYIPC|NODE_C/.test(name)).sort());
    """
    settings: Any = {
        "env": {"CLUSTERS": "of all", "TAKEN_AWAY": None},
        "args": ["a", "b c"],
        "exec_args": ["--no-warnings"],
    }
    primary, diary = made(**settings)
    async with primary:
        worker = await primary.fork(role="mail", env={"OWN": 7})  # type: ignore[dict-item]
        await run(worker, code)
        first = await heard(diary, 4)
        assert first[0] == ["1", "mail", "1", "7", "of all", None]
        assert first[1] == [True, False, 1, None]
        assert first[2][0] == ["a", "b c"]
        assert "--no-warnings" in first[2][1]
        # What it starts itself is no worker, and finds nothing that would make it think so.
        assert first[3] == ["PYIPC_WORKER_GENERATION", "PYIPC_WORKER_ID", "PYIPC_WORKER_ROLE"]
        await primary.reload()
        await run(worker, code)
        assert (await heard(diary, 8))[4] == ["1", "mail", "2", "7", "of all", None]


async def test_an_id_that_is_no_number_is_a_number_for_node_and_no_two_are_the_same() -> None:
    numbers: dict[str, int] = {}
    primary, diary = made()
    async with primary:
        for id in ("mailer", "007", "7", "mailer-2"):
            await run(await primary.fork(id), "process.send(cluster.worker.id)")
            numbers[id] = (await diary.seen("message", id)).data
    assert numbers["7"] == 7
    assert len(set(numbers.values())) == 4
    assert all(number > 0 for number in numbers.values())


async def test_what_it_starts_with_fork_is_no_worker(tmp_path: Path) -> None:
    """The preloaded file is among its options, and does nothing there."""
    child = script(
        tmp_path,
        """
        process.once('message', (message) => {
            process.send([require('cluster').isWorker, process.execArgv.length, message]);
            process.disconnect();
        });
        """,
    )
    code = """
        const child = require('child_process').fork(message.child);
        child.on('message', (told) => process.send(told));
        child.send('hello');
    """
    async with obedient() as (_, worker, diary):
        await run(worker, code, child=child)
        assert await heard(diary) == [[False, 2, "hello"]]


async def test_threads_that_it_starts_do_not_notice_what_was_loaded_before_it() -> None:
    code = """
        const {Worker} = require('worker_threads');
        const thread = new Worker("require('worker_threads').parentPort.postMessage('hello')", {eval: true});
        thread.on('message', (told) => process.send(told));
        thread.on('error', (error) => process.send(String(error)));
    """
    async with obedient() as (_, worker, diary):
        await run(worker, code)
        assert await heard(diary) == ["hello"]


# --- what happens to it ---


@pytest.mark.parametrize(
    "end", ["disconnect", "own disconnect", "own kill", "kill", "SIGKILL", "code 7", "channel closed", "exception"]
)
async def test_events_their_order_and_what_they_tell_are_those_of_nodes_own_primary(end: str) -> None:
    theirs = events_of_node(end)
    primary, diary = made(str(SCRIPT), args=[end], restart="never", silent=True)
    primary.on("listening", lambda event: event.worker.send({"text": "hello"}))

    @primary.on("message")
    def spoil(event: cluster.WorkerEvent) -> None:
        assert event.worker is not None
        if end == "disconnect":
            event.worker.leave()
        if end == "kill":
            event.worker.kill()
        if end == "SIGKILL":
            assert event.worker.pid is not None
            os.kill(event.worker.pid, signal.SIGKILL)

    async with primary:
        worker = await primary.fork()
        with trio.fail_after(PATIENCE):
            await worker.gone.wait()
    ours = [each for each in diary.events if each.type not in OWN]
    assert [each.type for each in ours] == [each["event"] for each in theirs]
    for own, other in zip(ours, theirs, strict=True):
        match own.type:
            case "setup":
                assert own.worker is None
                continue
            case "listening":
                assert own.address is not None
                assert own.address.host == other["address"]
                assert bool(own.address.port) is other["hasPort"]
            case "message":
                assert own.data == other["data"]
            case "exit":
                number = None if own.signal is None else signal.Signals(own.signal).name
                voluntary = other["voluntary"] or end == "kill"  # the fault F3 of Node, as elsewhere
                assert (own.code, number, own.voluntary) == (other["code"], other["signal"], voluntary)
        assert own.worker is not None
        assert own.worker.id == str(other["id"])


# --- how it starts ---


EARLY = """
    setTimeout(() => process.on('message', (message) => process.send({heard: message})), 300);
"""
EARLY_MODULE = """
    await new Promise((resolve) => setTimeout(resolve, 300));
    const {default: cluster} = await import('cluster');
    cluster.worker.on('message', (message) => process.send({heard: message}));
"""


@pytest.mark.parametrize(("name", "code"), [("worker.js", EARLY), ("worker.mjs", EARLY_MODULE), ("worker.cjs", EARLY)])
async def test_what_is_sent_before_it_listens_waits_for_that(name: str, code: str, tmp_path: Path) -> None:
    primary, diary = made(script(tmp_path, code, name))
    async with primary:
        worker = await primary.fork(wait=False)
        for number in range(3):
            await worker.send(number)
        assert await heard(diary, 3) == [{"heard": number} for number in range(3)]


@pytest.mark.parametrize(
    ("code", "how"),
    [
        ("process.on('message', () => {})", "hearing"),
        ("require('net').createServer().listen(0, '127.0.0.1')", "listening"),
        ("process.send({type: 'pyipc.ready'})", "saying so"),
    ],
)
async def test_it_is_ready_by(code: str, how: str, tmp_path: Path) -> None:
    primary, diary = made(script(tmp_path, code))
    async with primary:
        with trio.fail_after(PATIENCE):
            await primary.fork()
        await diary.seen("ready")
        assert diary.types("1") == [*["fork", "online"], *(["listening"] if how == "listening" else []), "ready"]


async def test_with_wait_ready_only_when_it_says_so(tmp_path: Path) -> None:
    code = """
        require('net').createServer().listen(0, '127.0.0.1', () => process.send('listens'));
        process.on('message', () => process.send({type: 'pyipc.ready'}));
    """
    primary, diary = made(script(tmp_path, code), wait_ready=True)
    async with primary:
        worker = await primary.fork(wait=False)
        await heard(diary)
        assert not worker.is_ready
        await worker.send("go")
        await diary.seen("ready")
        assert worker.is_ready
        assert [each.data for each in diary.of("message")] == ["listens"]


async def test_one_that_is_never_ready_is_ended_and_the_error_says_what_to_do(tmp_path: Path) -> None:
    primary, _ = made(script(tmp_path, "// lives as long as its channel"), ready_timeout=1.0)
    async with primary:
        with pytest.raises(
            cluster.WorkerFailed, match=r"not ready within 1 s; let its program open a server, listen for"
        ):
            await primary.fork()


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("process.exit()", "code 0"),
        ("process.exit(3)", "code 3"),
        ("this is no JavaScript", "code 1"),
        ("throw new Error('x')", "code 1"),
    ],
)
async def test_one_that_ends_at_once_has_failed(code: str, told: str, tmp_path: Path) -> None:
    primary, diary = made(script(tmp_path, code), silent=True)
    async with primary:
        with trio.fail_after(PATIENCE), pytest.raises(cluster.WorkerFailed, match=told):
            await primary.fork()
        assert not primary.workers
    assert diary.types("1")[-1] == "exit"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"node": "no such file.js"}, "there is no such file for Node"),
        ({"node": OBEDIENT, "node_executable": "no-such-node"}, "there is no program 'no-such-node'"),
        ({"node": OBEDIENT, "node_executable": "true"}, "see whether node_executable is Node"),
    ],
)
async def test_what_is_not_there_is_said(settings: dict[str, Any], told: str) -> None:
    primary = cluster.Cluster("tests.cluster.programs.basic:main", **QUICK)
    async with primary:
        with pytest.raises(cluster.WorkerFailed, match=told):
            await primary.fork(**settings)
        assert not primary.workers


async def test_node_is_found_beside_the_present_directory_and_started_in_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("bin", "app"):
        (tmp_path / name).mkdir()
    executable = shutil.which("node")
    assert executable is not None
    (tmp_path / "bin" / "node").symlink_to(executable)
    shutil.copy(OBEDIENT, tmp_path / "app")
    monkeypatch.chdir(tmp_path)
    primary, _ = made("obedient.js", cwd="app", node_executable="bin/node")
    async with primary:
        assert (await primary.fork()).is_ready


async def test_a_worker_runs_python_or_node_and_not_both() -> None:
    async with cluster.Cluster("tests.cluster.programs.basic:main", **QUICK) as primary:
        with pytest.raises(ValueError, match="either exec"):
            await primary.fork(node=OBEDIENT, exec="tests.cluster.programs.basic:main")
    with pytest.raises(ValueError, match="either exec"):
        cluster.Cluster(OBEDIENT, exec="tests.cluster.programs.basic:main")
    with pytest.raises(ValueError, match=r"say node='x\.js'"):
        cluster.Cluster(exec="x.js")


@pytest.mark.parametrize("first", ["python", "node"])
async def test_node_and_python_workers_are_in_one_cluster_and_take_no_arguments_of_each_other(first: str) -> None:
    python = "tests.cluster.programs.basic:main"
    settings: Any = {"args": ["for", first], "exec_args": ["-O"] if first == "python" else ["--no-warnings"]}
    primary = cluster.Cluster(python if first == "python" else OBEDIENT, **{**QUICK, **settings})
    diary = Diary(primary)
    async with primary:
        await primary.fork("own")
        node, exec = (OBEDIENT, None) if first == "python" else (None, python)
        other = await primary.fork("other", node=node, exec=exec)
        assert (other.settings.args, other.settings.exec_args) == (None, None)
        await primary.reload()
        await run(primary.worker("other" if first == "python" else "own"), "process.send(process.argv.slice(2))")
        assert await heard(diary) == [[] if first == "python" else ["for", "node"]]
        assert {worker.state for worker in primary.workers.values()} == {"ready"}


# --- handlers that wait ---


@pytest.mark.parametrize("what", ["disconnect", "reload", "kill"])
async def test_a_handler_of_a_message_may_wait_for_the_end_of_the_process_that_sent_it(what: str) -> None:
    primary, diary = made(workers=1, drain_timeout=None, kill_timeout=PATIENCE)
    done = trio.Event()

    @primary.on("message")
    async def end(event: cluster.WorkerEvent) -> None:
        if done.is_set() or event.data != "first":
            return
        assert event.worker is not None
        process = event.worker.current
        assert process is not None
        match what:
            case "disconnect":
                await event.worker.disconnect()
            case "reload":
                await primary.reload()
            case "kill":
                event.worker.kill()
                await process.gone.wait()
        done.set()

    async with primary:
        await run(primary.worker("1"), "process.send('first'); for (let i = 0; i < 20; i++) process.send(i);")
        with trio.fail_after(PATIENCE):
            await done.wait()
        await primary.wait_told()
    if what != "kill":
        assert diary.of("exit")[0].code == 0
        assert [each.data for each in diary.of("message")] == ["first", *range(20)]


# --- how it is looked after ---


async def test_one_that_ends_is_started_again_after_a_pause_and_given_up_after_too_many(tmp_path: Path) -> None:
    code = "process.on('message', () => {}); setTimeout(() => process.exit(4), 50)"
    primary, diary = made(script(tmp_path, code), max_restarts=3, restart_jitter=False)
    async with primary:
        await primary.fork()
        await diary.seen("error")
        assert primary.worker("1").state == "failed"
    assert [each.delay for each in diary.of("restart")] == [0.01, 0.02, 0.04]
    assert [each.code for each in diary.of("exit")] == [4] * 4


async def test_codes_after_which_it_is_not_started_again() -> None:
    primary, diary = made(stop_exit_codes=[3])
    async with primary:
        worker = await primary.fork()
        await run(worker, "process.exit(2)")
        await diary.seen("ready", count=2)
        await run(worker, "process.exit(3)")
        with trio.fail_after(PATIENCE):
            await worker.gone.wait()
    assert [each.code for each in diary.of("exit")] == [2, 3]


async def test_one_whose_loop_is_blocked_is_killed_and_replaced() -> None:
    primary, diary = made(heartbeat_interval=0.1, hang_timeout=0.5)
    async with primary:
        worker = await primary.fork()
        await trio.sleep(1.0)  # one that only has nothing to do is left alone
        assert not diary.of("unhealthy")
        await run(worker, "while (true);")
        assert "hangs" in (await diary.seen("unhealthy")).reason
        await diary.seen("ready", count=2)
        assert worker.is_ready
    assert diary.of("exit")[0].signal == signal.SIGKILL


async def test_its_lag_is_known() -> None:
    async with obedient(heartbeat_interval=0.1, hang_timeout=None) as (_, worker, diary):
        await run(worker, "const end = Date.now() + 1000; while (Date.now() < end); process.send('done')")
        await heard(diary)
        lags: list[float] = []
        with trio.fail_after(PATIENCE):
            while not lags or max(lags) < 0.5:
                lags.append(worker.info().lag or 0.0)
                await trio.sleep(0.02)


async def test_one_that_is_too_large_is_replaced_and_the_new_one_is_ready_first() -> None:
    pytest.importorskip("psutil")
    primary, diary = made(heartbeat_interval=0.1, max_memory_size=400_000_000)
    async with primary:
        worker = await primary.fork()
        await run(worker, "globalThis.kept = Buffer.alloc(500e6, 1)")
        assert "of memory" in (await diary.seen("unhealthy")).reason
        await diary.seen("exit")
        assert worker.generation == 2
        assert worker.is_ready
    kinds = [each.type for each in diary.events]
    assert [position for position, kind in enumerate(kinds) if kind == "ready"][1] < kinds.index("exit")
    assert diary.of("exit")[0].code == 0


async def test_one_that_is_too_old_is_replaced() -> None:
    primary, diary = made(heartbeat_interval=0.1, max_age_timeout=0.5)
    async with primary:
        worker = await primary.fork()
        await diary.seen("exit")
        assert worker.generation == 2
    assert diary.of("exit")[0].code == 0


async def test_one_that_disconnects_just_before_a_ping_comes_is_not_ended_by_it() -> None:
    async with obedient(heartbeat_interval=10.0) as (_, worker, diary):
        # It reads the next two messages and the ping of `disconnect` in one go.
        await run(worker, "process.send('on'); Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 500)")
        await heard(diary)
        await run(worker, "process.disconnect()")
        with trio.fail_after(PATIENCE):
            await worker.disconnect()
    assert (diary.of("exit")[0].code, diary.of("exit")[0].signal) == (0, None)


async def test_one_that_does_not_leave_gets_sigterm_and_then_sigkill() -> None:
    async with obedient(drain_timeout=0.2, kill_timeout=0.2) as (_, worker, diary):
        await run(worker, "process.on('SIGTERM', () => {}); setInterval(() => {}, 1000); process.send('on')")
        await heard(diary)
        with trio.fail_after(PATIENCE):
            await worker.disconnect()
    assert [each.reason[:45] for each in diary.of("unhealthy")] == [
        "it has not left within 0.2 s, and is sent SIG",
        "it has not ended 0.2 s after SIGTERM, and is ",
    ]
    assert diary.of("exit")[0].signal == signal.SIGKILL


# --- reload ---


async def test_after_a_reload_the_code_on_the_disk_runs(tmp_path: Path) -> None:
    code = "process.on('message', () => process.send(VERSION))"
    path = script(tmp_path, f"const VERSION = 1; {code}")
    primary, diary = made(path, workers=2)
    async with primary:
        await primary.broadcast("message", "?")
        assert await heard(diary, 2) == [1, 1]
        script(tmp_path, f"const VERSION = 2; {code}")
        with trio.fail_after(PATIENCE):
            await primary.reload()
        await primary.broadcast("message", "?")
        assert (await heard(diary, 4))[2:] == [2, 2]
    assert [each.code for each in diary.of("exit")] == [0] * 4


@pytest.mark.parametrize("code", ["this is no JavaScript", "process.exit(3)", "setInterval(() => {}, 1e6)"])
async def test_a_reload_whose_program_does_not_become_ready_leaves_the_old_one(code: str, tmp_path: Path) -> None:
    path = script(tmp_path, Path(OBEDIENT).read_text("utf-8"))
    primary, diary = made(path, workers=1, silent=True)
    async with primary:
        worker = primary.worker("1")
        pid = worker.pid
        script(tmp_path, code)
        worker.settings = worker.settings.changed({"ready_timeout": 1.5 if "setInterval" in code else 30.0})
        with pytest.raises(cluster.ReloadFailed), trio.fail_after(PATIENCE):
            await primary.reload()
        assert worker.pid == pid
        await worker.send("on")
        assert await heard(diary) == ["on"]


# --- the end of the other side ---


async def test_workers_end_when_their_primary_is_killed(tmp_path: Path) -> None:
    program = f"""
import trio
from pyipc import cluster

async def main():
    async with cluster.Cluster({OBEDIENT!r}, workers=2) as primary:
        await primary.worker("2").send({{"run": "while (Date.now() < {10**15});"}})
        print(*[worker.pid for worker in primary.workers.values()], flush=True)
        await trio.sleep_forever()

trio.run(main)
"""
    process = await trio.lowlevel.open_process([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None
    async with process.stdout:
        with trio.fail_after(PATIENCE):
            said = b""
            while not said.endswith(b"\n"):
                said += await process.stdout.receive_some()
        idle, busy = map(int, said.split())
        process.kill()
        await process.wait()
        await ended(idle)
        # Nothing interrupts Node in a loop; it would see it afterwards. One that never turns again is ended here.
        os.kill(busy, signal.SIGKILL)
        await ended(busy)


async def test_a_worker_that_is_killed_again_and_again_comes_back_each_time() -> None:
    primary, diary = made(ANSWERING, workers=2, max_restarts=1000)
    async with primary:
        for number in range(10):
            worker = primary.worker(str(1 + number % 2))
            assert worker.current is not None
            worker.current.kill()
            await diary.seen("ready", worker.id, count=2 + number // 2)
            with trio.fail_after(PATIENCE):
                assert await worker.request("add", [number, 1]) == number + 1
    assert not diary.of("error")
