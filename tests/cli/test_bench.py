"""``pyipc bench``: what it counts, what it shows, and how it ends."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import pyipc
from pyipc.cli.benching.cpu_time import cpu_seconds
from pyipc.cli.benching.server import make_server
from pyipc.cli.benching.workload import ECHO, REQUEST, Measurement, Plan, Work, measure, probe
from pyipc.cli.showing.figures import count, duration, size
from tests.cli.processes import PATIENCE, ROOT, SCRIPT, environment, eventually, needs_script, run, start
from tests.cli.terminal import start_in_terminal, without_rich
from tests.conftest import CANNOT_RUN

if TYPE_CHECKING:
    from pathlib import Path

WORKS: tuple[Work, ...] = ("request", "events", "echo")
only_linux = pytest.mark.skipif(sys.platform != "linux", reason=f"{CANNOT_RUN} needs /proc")


def a_plan(work: Work, *, number: int | None = None, seconds: float | None = None, concurrency: int = 4) -> Plan:
    return Plan(work=work, count=number, seconds=seconds, concurrency=concurrency, size=10)


# --- the engine ---


@pytest.mark.parametrize("work", WORKS)
async def test_everything_that_is_planned_is_done_and_counted(work: Work) -> None:
    plan = a_plan(work, number=500)
    async with make_server("memory:bench", 2**20), pyipc.connect("memory:bench") as client:
        assert await probe(client, plan)
        measurement = Measurement(plan)
        await measure(client, measurement)
    assert measurement.latencies.count == 500
    assert not measurement.errors
    assert measurement.failure is None
    assert measurement.progress == 1.0
    assert measurement.rate == pytest.approx(500 / measurement.seconds)
    assert 0 < measurement.latencies.minimum <= measurement.latencies.maximum


@pytest.mark.parametrize("work", WORKS)
async def test_time_can_be_the_measure(work: Work) -> None:
    async with make_server("memory:bench", 2**20), pyipc.connect("memory:bench") as client:
        measurement = Measurement(a_plan(work, seconds=0.1))
        await measure(client, measurement)
    assert measurement.latencies.count > 0
    assert measurement.seconds >= 0.1


async def test_as_many_are_under_way_as_is_planned_and_never_more() -> None:
    asking: list[trio.Event] = []

    async with pyipc.Server("memory:bench") as server:

        @server.on(REQUEST)
        async def answer(message: pyipc.Message[Any]) -> Any:
            """Wait until all that may come are here; with fewer it would be for ever."""
            here = trio.Event()
            asking.append(here)
            if len(asking) == 7:
                await trio.testing.wait_all_tasks_blocked()
                assert len(asking) == 7
                while asking:
                    asking.pop().set()
            await here.wait()
            return message.data

        async with pyipc.connect("memory:bench") as client:
            measurement = Measurement(a_plan("request", number=70, concurrency=7))
            with trio.fail_after(PATIENCE):
                await measure(client, measurement)
    assert (measurement.latencies.count, measurement.errors) == (70, {})


async def test_what_goes_wrong_is_counted() -> None:
    asked = 0
    async with pyipc.Server("memory:bench") as server:

        @server.on(REQUEST)
        def answer(message: pyipc.Message[Any]) -> Any:
            nonlocal asked
            asked += 1
            if asked % 10 == 0:
                return "something else"
            if asked % 10 == 5:
                raise ValueError("as it happens")
            return message.data

        async with pyipc.connect("memory:bench") as client:
            measurement = Measurement(a_plan("request", number=100))
            await measure(client, measurement)
    assert measurement.errors == {"RemoteError": 10, "WrongAnswer": 10}
    assert measurement.latencies.count == 90


@pytest.mark.parametrize("work", WORKS)
async def test_a_server_that_leaves_ends_it(work: Work) -> None:
    async with (
        make_server("memory:bench", 2**20) as server,
        pyipc.connect("memory:bench", reconnect=False, offline="raise") as client,
        trio.open_nursery() as nursery,
    ):
        measurement = Measurement(a_plan(work, seconds=60.0))
        nursery.start_soon(measure, client, measurement)
        while not measurement.latencies.count:
            await trio.lowlevel.checkpoint()
        await server.aclose()
    assert isinstance(measurement.failure, pyipc.ConnectionClosed)


@pytest.mark.parametrize("work", ["request", "echo"])
async def test_a_server_that_sends_back_something_else_is_found_out(work: Work) -> None:
    async with pyipc.Server("memory:bench") as server:
        server.on(REQUEST, lambda message: "no")

        @server.on(ECHO)
        async def send_back(message: pyipc.Message[Any]) -> None:
            await message.connection.emit(ECHO, "no")

        async with pyipc.connect("memory:bench") as client:
            assert not await probe(client, a_plan(work, number=1))


async def test_a_silent_server_is_found_out(autojump_clock: trio.testing.MockClock) -> None:
    async with pyipc.Server("memory:bench"), pyipc.connect("memory:bench") as client:
        assert not await probe(client, a_plan("request", number=1))
        assert not await probe(client, a_plan("echo", number=1))


def test_the_warm_up_is_a_tenth() -> None:
    assert a_plan("echo", number=500).warm_up().count == 50
    assert a_plan("echo", number=3).warm_up().count == 1
    assert a_plan("echo", seconds=2.0).warm_up().seconds == pytest.approx(0.2)
    assert a_plan("echo", seconds=100.0).warm_up().seconds == 0.5


def test_figures() -> None:
    assert [duration(value) for value in (0, 999, 1_234, 9_999, 123_456, 2_500_000_000)] == [
        "0 ns", "999 ns", "1.23 µs", "10 µs", "123 µs", "2.5 s",
    ]  # fmt: skip
    assert [size(value) for value in (0, 1_023, 1_024, 1_600, 10_000_000)] == [
        "0 B", "1,023 B", "1 KiB", "1.56 KiB", "9.54 MiB",
    ]  # fmt: skip
    assert [count(value) for value in (0, 1_234.6)] == ["0", "1,235"]


@only_linux
def test_the_processor_time_of_another_process() -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass\nprint(time.process_time(), flush=True)\ninput()"
    with subprocess.Popen([sys.executable, "-c", burn], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        own_word = float(process.stdout.readline())
        measured = cpu_seconds(process.pid)
        assert measured is not None
        assert measured == pytest.approx(own_word, abs=0.1)
        process.communicate(b"\n", timeout=PATIENCE)
    assert cpu_seconds(process.pid) is None
    assert cpu_seconds(None) is None


def test_the_processor_time_of_this_process() -> None:
    before = time.process_time()
    own = cpu_seconds(os.getpid())
    assert own is not None
    assert before <= own <= time.process_time()


# --- the command ---


@pytest.mark.parametrize("work", WORKS)
async def test_with_a_server_of_its_own(work: str) -> None:
    result = await run("bench", "--work", work, "--count", "300", "--size", "100")
    assert (result.status, result.err) == (0, "")
    assert result.lines[0].startswith("300 ")
    assert "100 B of data, 1 at a time, with a process of its own" in result.lines[0]
    assert re.fullmatch(r"[\d,]+/s over [\d.]+ [mµ]?s; no errors", result.lines[1])
    for label in ("mean", "50 %", "90 %", "99 %", "99.9 %", "max"):
        assert re.search(rf"^ +{label}  [\d.]+ [mµn]?s$", result.out, re.MULTILINE), label
    rows = re.findall(r"^ +[\d.,]+ \S+ - +[\d.,]+ \S+  (█*) +([\d,]+)  +[\d.]+%$", result.out, re.MULTILINE)
    assert sum(int(number.replace(",", "")) for _, number in rows) == 300
    assert max(len(bar) for bar, _ in rows) == 40
    # Not a terminal, so nobody was shown how far it has come.
    assert "\r" not in result.out


async def test_the_record_has_all_figures() -> None:
    result = await run("bench", "--count", "200", "--concurrency", "10", "--json")
    assert result.status == 0
    [line] = result.lines
    record = json.loads(line)
    assert (record["kind"], record["work"], record["address"]) == ("bench", "request", None)
    assert (record["count"], record["concurrency"], record["size"]) == (200, 10, 64)
    assert (record["errors"], record["interrupted"]) == ({}, False)
    assert record["rate"] == pytest.approx(200 / record["seconds"])
    times = [record["latency"][name] for name in ("min", "p50", "p90", "p99", "p99.9", "max")]
    assert times == sorted(times)
    assert times[0] <= record["latency"]["mean"] <= times[-1]
    assert sum(row["count"] for row in record["histogram"]) == 200
    assert record["cpu_per_message"]["here"] > 0
    if sys.platform == "linux":
        assert record["cpu_per_message"]["there"] is not None
    assert record["versions"]["pyipc"] == pyipc.__version__


@pytest.mark.parametrize("work", WORKS)
async def test_with_a_server_elsewhere(work: str, address: str) -> None:
    async with start("serve", address, "--echo", "-q", stdout=subprocess.DEVNULL):
        result = await run("bench", address, "--work", work, "--count", "100", "--connect-timeout", "20")
    assert result.status == 0, result
    assert f"with {address}" in result.lines[0]


async def test_a_server_that_does_not_send_back(address: str) -> None:
    async with start("serve", address) as server:
        await server.listening()
        result = await run("bench", address, "--count", "10")
    assert (result.status, result.out) == (1, "")
    assert (
        result.err
        == f"pyipc: {address} does not send back what it is sent; start it with: pyipc serve {address} --echo\n"
    )


async def test_nobody_there(address: str) -> None:
    result = await run("bench", address, "--connect-timeout", "0.2")
    assert result.status == 3
    assert result.err.startswith("pyipc: could not connect")


async def test_large_messages() -> None:
    result = await run("bench", "--count", "3", "--size", "3000000")
    assert result.status == 0, result
    assert "2.86 MiB of data" in result.lines[0]


@needs_script
async def test_nothing_in_the_current_directory_is_run(tmp_path: Path) -> None:
    for name in ("trio", "pyipc", "tempfile", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text(f"open('{name}.ran', 'w').close()\n", "utf-8")
    result = await run("bench", "--count", "3", command=[SCRIPT], cwd=tmp_path)
    assert (result.status, result.err) == (0, "")
    assert not list(tmp_path.glob("*.ran"))


async def test_a_checkout_in_the_current_directory_is_measured_itself(tmp_path: Path) -> None:
    """``python -m pyipc`` finds it there, and so does the other process."""
    copy = shutil.copytree(ROOT / "pyipc", tmp_path / "pyipc", ignore=shutil.ignore_patterns("__pycache__"))
    with open(copy / "cli/benching/server.py", "a", encoding="utf-8") as module:  # noqa: ASYNC230
        module.write("\nopen(f'{os.getpid()}.ran', 'w').close()\n")
    result = await run("bench", "--count", "3", env={"PYTHONPATH": ""}, cwd=tmp_path)
    assert (result.status, result.err) == (0, "")
    assert len(list(tmp_path.glob("*.ran"))) == 2


@pytest.mark.skipif(sys.platform == "win32", reason=f"{CANNOT_RUN} there are no Unix sockets")
async def test_temporary_files_in_a_deep_directory(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 110)
    deep.mkdir()
    result = await run("bench", "--count", "3", env={"TMPDIR": str(deep)})
    assert (result.status, result.err) == (0, "")


@only_linux
async def test_ctrl_c_still_tells_what_was_measured(directory: Path) -> None:
    """And leaves nothing behind: the server of its own ends as well."""
    async with start("bench", "--seconds", "600", "--json", env={"TMPDIR": str(directory)}) as bench:
        await eventually(lambda: cpu_is_used(bench.process.pid), "the measurement")
        result = await bench.interrupt()
    assert result.status == 130
    assert result.err == ""
    record = json.loads(result.out)
    assert record["interrupted"]
    assert record["count"] > 0
    assert list(directory.iterdir()) == []


def cpu_is_used(pid: int) -> bool:
    """Whether a process has worked for longer than its start and the warm-up can take."""
    return (cpu_seconds(pid) or 0.0) > 2.0


@only_linux
async def test_a_server_that_is_killed_is_told_with_what_was_measured(address: str) -> None:
    async with (
        start("serve", address, "--echo", "-q", stdout=subprocess.DEVNULL) as server,
        start("bench", address, "--seconds", "600", "--json", "--connect-timeout", "20") as bench,
    ):
        await eventually(lambda: cpu_is_used(bench.process.pid), "the measurement")
        server.process.kill()
        result = await bench.finish()
    assert result.status == 5
    assert result.err.startswith("pyipc: ")
    assert json.loads(result.out)["count"] > 0


async def test_the_server_does_not_outlive_whoever_started_it(address: str) -> None:
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "pyipc.cli.benching.server", address, "100000"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with trio.fail_after(PATIENCE):
        assert (await process.stdout.receive_some()).decode() == f"{address}\n"
        await process.stdin.aclose()
        assert await process.wait() == 0
        await process.stdout.aclose()


# --- the screen ---


@pytest.mark.parametrize("rich", [True, False])
async def test_the_bar_and_the_chart_on_a_terminal(rich: bool, tmp_path: Path) -> None:
    if rich:
        pytest.importorskip("rich", reason="rich is not installed; pip install rich")
    env = {} if rich else without_rich(tmp_path)
    async with start_in_terminal("bench", "--seconds", "2", env=env, rows=45) as terminal:
        await terminal.until(
            lambda: re.search(r"^request .*\d+% +[\d,]+/s$", terminal.text, re.MULTILINE) is not None, "a bar"
        )
        bar = terminal.text
        assert ("━" in bar) is rich
        assert ("request [" in bar) is not rich
        assert await terminal.finish() == 0
        # The bar is gone, and the figures have its place.
        assert "━" not in terminal.text
        assert "request [" not in terminal.text
        assert re.match(r"[\d,]+ requests, until the answer: 64 B of data, 1 at a time", terminal.lines[0])
        assert re.search(r"^ +99.9 %  [\d.]+ [mµ]?s$", terminal.text, re.MULTILINE)
        assert re.search(r"█{40}  +[\d,]+ +[\d.]+%$", terminal.text, re.MULTILINE)
        assert (terminal.style("█" * 40).fg != "default") is rich


async def test_ctrl_c_on_a_terminal() -> None:
    async with start_in_terminal("bench", "--seconds", "600", rows=45) as terminal:
        await terminal.until(lambda: re.search(r"0% +[1-9][\d,]*/s", terminal.text) is not None, "a bar that moves")
        await terminal.type("\x03")
        assert await terminal.finish() == 130
        assert "interrupted; no errors" in terminal.text
