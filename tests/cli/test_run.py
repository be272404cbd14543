"""``pyipc run``: workers in the foreground, with lines for people and records for programs."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import re
import signal
import sys
from typing import TYPE_CHECKING

import pytest
import trio

from pyipc import cluster
from pyipc.cli.commands.run import _size
from pyipc.cli.exits import ExitCode
from tests.cli.processes import ROOT, SCRIPT, needs_script, run, start
from tests.cli.terminal import start_in_terminal
from tests.cli.test_docs import parsers
from tests.cluster.foreground import PROGRAMS, WORKERS_PATIENCE
from tests.conftest import CANNOT_RUN, needs_node_channel

if TYPE_CHECKING:
    from pathlib import Path

needs_signals = pytest.mark.skipif(sys.platform == "win32", reason=f"{CANNOT_RUN} there are no signals to send")
#: Says something to whoever connects, after a while.
SERVER_JS = """
const net = require('node:net');
const text = `${process.env.GREETING} ${process.argv[2]} from ${process.env.PYIPC_WORKER_ID}`;
net.createServer((socket) => {
    console.log(`taken by ${process.env.PYIPC_WORKER_ID}`);
    setTimeout(() => socket.end(text), 100);
}).listen(0, '127.0.0.1');
"""


@needs_signals
async def test_lines_for_people_are_beside_what_workers_print() -> None:
    arguments = ["foreground:telling", "--workers", "1", "--role", "web", "--env", "COLOR=a=b", "--cwd"]
    async with start("run", *arguments, PROGRAMS, "--", "--fast", "x") as program:
        await program.line("^told: None in: programs$")
        await program.line(" cluster .* running ", stream="err")
        result = await program.interrupt(signal.SIGTERM)
    assert result.status == ExitCode.OK
    assert result.lines[0] == "arguments: ['--fast', 'x'] role: web color: a=b"
    kinds = re.findall(r"^[\d:.]{12}  (?:cluster|worker 1 \(web\)) +\d+  (\S+)", result.err, re.MULTILINE)
    assert kinds == ["begin", "fork", "online", "ready", "running", "drain", "disconnect", "exit", "end"]
    assert len(result.err.splitlines()) == len(kinds)


@needs_signals
async def test_records_for_programs() -> None:
    async with start("run", "foreground:telling", "--workers", "2", "--json", cwd=PROGRAMS) as program:
        await program.line('"step":"running"')
        # What workers print does not come between the records.
        await program.line("^told: ", stream="err", count=2)
        result = await program.interrupt(signal.SIGTERM)
    assert result.status == ExitCode.OK
    assert "cluster" not in result.err
    records = [json.loads(line) for line in result.lines]
    assert {record["kind"] for record in records} == {"step"}
    assert {record["step"] for record in records} <= cluster.STEPS.keys()
    assert all(datetime.datetime.fromisoformat(record["time"]).tzinfo for record in records)
    exits = [record for record in records if record["step"] == "exit"]
    assert {record["worker"] for record in exits} == {"1", "2"}
    assert all((record["code"], record["voluntary"], record["generation"]) == (0, True, 1) for record in exits)
    assert not any(record["problem"] for record in records)


@needs_signals
async def test_quiet_means_problems_alone() -> None:
    async with start("run", "foreground:steady", "--workers", "1", "-q", "--json", cwd=PROGRAMS) as program:
        pid = json.loads((await program.line('"step":"ready"')).string)["pid"]
        os.kill(pid, signal.SIGKILL)
        await program.line('"step":"ready"', count=2)
        result = await program.interrupt()
    assert (result.status, result.err) == (ExitCode.OK, "")
    (crash,) = [record for line in result.lines if (record := json.loads(line))["problem"]]
    assert (crash["step"], crash["signal"], crash["pid"]) == ("exit", signal.SIGKILL, pid)
    result = await run("run", "foreground:failing", "--workers", "1", "-q", cwd=PROGRAMS)
    assert result.status == ExitCode.REFUSED
    told = [line for line in result.err.splitlines() if line[:2].isdigit()]
    assert [re.split(" +", line)[3 if "cluster" in line else 4] for line in told] == ["exit", "end"]


@pytest.mark.time_limit(180)
async def test_when_workers_have_returned_it_is_done() -> None:
    arguments = ["foreground:brief", "--workers", "2", "--ready-timeout", str(WORKERS_PATIENCE)]
    async with start("run", *arguments, cwd=PROGRAMS, patience=WORKERS_PATIENCE) as program:
        result = await program.finish()
    assert (result.status, result.out) == (ExitCode.OK, "")
    assert result.err.splitlines()[-1].endswith("all workers have returned")


@needs_script
async def test_as_it_is_installed_it_finds_what_is_in_the_present_directory() -> None:
    for target in ("foreground:ready_and_gone", "brief.py"):
        result = await run("run", target, "--workers", "1", command=[SCRIPT], cwd=PROGRAMS)
        assert result.status == ExitCode.OK, result.err


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["no/such.py"], "neither a function"),
        (["a:b", "--workers", "0"], "'0' is not a whole number above zero"),
        (["a:b", "--max-memory", "large"], "'large' is not a size such as 200M"),
        (["a:b", "--max-memory", "0"], "'0' is not a size"),
        (["a:b", "--env", "COLOR"], "'COLOR' is not NAME=VALUE"),
        (["a:b", "--restart", "maybe"], "--restart"),
        (["a:b", "--drain-timeout", "0"], "seconds above zero"),
        (["a:b", "--reload-dir", "."], "need --reload as well"),
        (["a:b", "--reload", "--reload-dir", "no/such"], "'no/such' is no directory"),
        (["a:b", "--max-restarts", "-1"], "--max-restarts"),
        (["worker.py", "--fast"], "unrecognized arguments: --fast; options of the target come after --"),
        ([], "the following arguments are required: TARGET\n"),
    ],
)
async def test_what_is_wrong_is_said(arguments: list[str], what: str) -> None:
    result = await run("run", *arguments)
    assert result.status == ExitCode.USAGE
    assert what in result.err
    assert "Traceback" not in result.err


async def test_no_restarts_may_be_wanted() -> None:
    result = await run("run", "foreground:failing_later", "--workers", "1", "--max-restarts", "0", cwd=PROGRAMS)
    assert result.status == 1
    assert " restart " not in result.err
    assert "and was never started again before" in result.err.splitlines()[-1]


async def test_what_is_missing_for_reload_is_said(tmp_path: Path) -> None:
    (tmp_path / "watchfiles.py").write_text("raise ImportError\n", "utf-8")
    path = os.pathsep.join((str(tmp_path), str(ROOT)))
    result = await run("run", "a:b", "--reload", env={"PYTHONPATH": path})
    assert result.status == ExitCode.USAGE
    assert "pip install 'pyipc-sockets[watch]'" in result.err


@needs_signals
async def test_a_policy_decides_who_gets_a_connection() -> None:
    """Whoever comes from one host has one worker, where round robin would give it to one after the other."""
    target = "tests.cluster.programs.sharing:main"
    async with start("run", target, "--workers", "3", "--policy", "sticky", "--cwd", str(ROOT), "--json") as program:
        port = int((await program.line(r"tcp://127\.0\.0\.1:(\d+)"))[1])
        await program.line('"running"')
        owners = set()
        for _ in range(6):
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            owners.add(await stream.receive_some())
            await stream.aclose()
        assert len(owners) == 1
        assert (await program.interrupt(signal.SIGINT)).status == ExitCode.OK


@needs_signals
@needs_node_channel
async def test_node_programs_share_a_port_and_finish_what_they_have(tmp_path: Path) -> None:
    (tmp_path / "server.js").write_text(SERVER_JS, "utf-8")
    arguments = ["server.js", "--workers", "2", "--env", "GREETING=hello", "--json", "--", "there"]
    async with start("run", *arguments, cwd=tmp_path) as program:
        await program.line('"2 workers of server.js"')
        port = int((await program.line(r"tcp://127\.0\.0\.1:(\d+)"))[1])
        await program.line('"running"')
        said = set()
        for _ in range(2):
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                said.add(b"".join([part async for part in stream]))
        assert said == {b"hello there from 1", b"hello there from 2"}
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await program.line("taken by", stream="err", count=3)
            program.process.send_signal(signal.SIGTERM)
            await program.line('"step":"drain"')
            assert b"".join([part async for part in stream]) in said
        result = await program.finish()
    assert result.status == ExitCode.OK
    exits = [record for line in result.lines if (record := json.loads(line))["step"] == "exit"]
    assert [(record["code"], record["voluntary"]) for record in exits] == [(0, True)] * 2


@needs_signals
async def test_the_second_signal_means_now() -> None:
    async with start("run", "foreground:stubborn", "--workers", "1", cwd=PROGRAMS) as program:
        await program.line(" running ", stream="err")
        program.process.send_signal(signal.SIGINT)
        await program.line(" drain ", stream="err")
        assert (await program.interrupt(signal.SIGINT)).status == ExitCode.INTERRUPTED


@needs_signals
async def test_the_terminal_is_closed() -> None:
    """SIGHUP means a reload, unless it comes because the terminal has gone."""
    async with start_in_terminal("run", "foreground:steady", "--workers", "1", "--cwd", PROGRAMS) as terminal:
        await terminal.shows("all are ready")
        if sys.platform != "win32":
            terminal.process.send_signal(signal.SIGHUP)
        await terminal.shows("1 worker after")
        await terminal.type("\x1a\x1a")  # nothing: there is no shell that would go on
        await terminal.hang_up()
        assert await terminal.process.wait() == ExitCode.HANGUP


@needs_signals
async def test_a_whole_job_is_interrupted_from_the_keyboard() -> None:
    """The terminal sends SIGINT to the workers as well, and they leave it to their primary."""
    async with start_in_terminal("run", "foreground:steady", "--workers", "2", "--cwd", PROGRAMS) as terminal:
        await terminal.shows("all are ready")
        await terminal.type("\x03")
        assert await terminal.finish() == ExitCode.OK
        assert terminal.text.count("code 0") == 2
        assert "Traceback" not in terminal.text


# --- options against settings ---


def test_what_the_help_says_of_defaults_is_so() -> None:
    help = {
        action.option_strings[0]: action.help or "" for action in parsers()["run"]._actions if action.option_strings
    }
    settings = {field.name: field.default for field in dataclasses.fields(cluster.Settings)}
    for option, name in {
        "--ready-timeout": "ready_timeout",
        "--drain-timeout": "drain_timeout",
        "--kill-timeout": "kill_timeout",
        "--hang-timeout": "hang_timeout",
        "--restart": "restart",
        "--max-restarts": "max_restarts",
    }.items():
        default = settings[name]
        shown = f"{default:g}" if isinstance(default, float) else str(default)
        assert f"(default: {shown})" in help[option]
    assert settings["restart_window"] == 60  # "within a minute"


def test_sizes() -> None:
    assert [_size(text) for text in ("1", "2K", "200M", "1.5g", "3KiB", "1MB")] == [
        1,
        2_000,
        200_000_000,
        1_500_000_000,
        3 * 1024,
        1_000_000,
    ]


def test_the_reference_has_every_step() -> None:
    page = (ROOT / "docs/reference/command-line.md").read_text("utf-8").split("### The records of `run`\n")[1]
    rows = re.findall(r"^\| `([a-z-]+)` \|", page.split("\n#")[0], re.MULTILINE)
    assert rows == ["step", *cluster.STEPS]  # the first is the head of the table
