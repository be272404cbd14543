"""What all commands share: help, usage, exit statuses, broken output, descriptors that are missing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pyipc.cli.exits import ExitCode
from pyipc.cli.main import COMMANDS
from tests.cli.processes import PATIENCE, PYIPC, ROOT, SCRIPT, environment, needs_script, run, start
from tests.conftest import CANNOT_RUN

if TYPE_CHECKING:
    from collections.abc import Sequence

POSIX = pytest.mark.skipif(sys.platform == "win32", reason=f"{CANNOT_RUN} it needs a POSIX shell")


def shell(line: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a line of shell in which ``pyipc`` is the real one."""
    return subprocess.run(
        ["bash", "-c", line],
        env={**environment(env), "PATH": f"{SCRIPT.parent}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@needs_script
def test_the_installed_script() -> None:
    result = subprocess.run([SCRIPT, "--version"], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert re.fullmatch(r"pyipc \d+\.\d+\.\d+ \(Python 3\.\d+\.\d+\)\n", result.stdout)


async def test_help_lists_the_commands_and_the_exit_statuses() -> None:
    result = await run("--help")
    assert (result.status, result.err) == (0, "")
    for command in COMMANDS:
        assert re.search(rf"^    {command}\s", result.out, re.MULTILINE)
    for code in ExitCode:
        assert re.search(rf"^  {code:d} +{re.escape(code.meaning)}$", result.out, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
async def test_each_command_teaches_with_examples(command: str) -> None:
    result = await run(command, "--help")
    assert (result.status, result.err) == (0, "")
    examples = result.out.partition("\nexamples:\n")[2].splitlines()
    assert 2 <= len([line for line in examples if f"pyipc {command}" in line]) <= 4


def test_the_reference_has_every_exit_status() -> None:
    page = (ROOT / "docs/reference/command-line.md").read_text("utf-8")
    documented = re.findall(r"^\| (\d+) \| (.+?) \|$", page, re.MULTILINE)
    assert documented == [(str(int(code)), code.meaning) for code in ExitCode]


def test_help_is_quick_and_loads_nothing_it_does_not_use() -> None:
    result = subprocess.run(
        [sys.executable, "-X", "importtime", *PYIPC[1:], "--help"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in result.stderr.splitlines()}
    assert "trio" in loaded
    unwanted = {"rich", "pyte", "cryptography", "asyncio", "multiprocessing"}
    if sys.platform == "win32":
        unwanted.remove("asyncio")  # trio itself needs it there
    assert not loaded & unwanted


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "'pyipc COMMAND --help' has examples."),
        (["dance"], "invalid choice: 'dance'"),
        (["serve"], "the following arguments are required: ADDRESS"),
        (["serve", "a b"], "is not an address"),
        (["serve", "tcp://localhost"], "the port is missing"),
        (["serve", "world", "--count", "0"], "'0' is not a whole number above zero"),
        (["serve", "world", "--reply", "{"], "argument --reply: it is not JSON: {"),
        (["listen", "world", "--timeout", "nan"], "'nan' is not a number of seconds above zero"),
        (["listen", "world", "--timeout", "soon"], "'soon' is not a number of seconds above zero"),
        (["listen", "world", "--delimiter", "x"], "can occur inside JSON text"),
        (["listen", "world", "--delimiter", "ä"], "'ä' is not a delimiter"),
        (["listen", "world", "--raw", "--delimiter", r"\n"], "not allowed with argument"),
        (["emit", "world"], "the following arguments are required: EVENT"),
        (["request", "world", "x", "--raw"], "unrecognized arguments: --raw"),
    ],
)
async def test_wrong_usage_is_a_sentence(arguments: list[str], sentence: str) -> None:
    result = await run(*arguments)
    assert (result.status, result.out) == (ExitCode.USAGE, "")
    assert sentence in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["emit", "tcp://10.0.0.1:1", "x", "1"], ExitCode.USAGE, "say allow=pyipc.ANYONE"),
        (["emit", "amqp://127.0.0.1/x", "x", "1"], ExitCode.USAGE, "amqp"),
        (["serve", "tls://127.0.0.1:0"], ExitCode.USAGE, "tls"),
        (["emit", "unix:/nowhere/s", "x", "1", "--connect-timeout", ".1"], ExitCode.UNREACHABLE, "/nowhere/s"),
        (["serve", "unix:/nowhere/s"], ExitCode.UNREACHABLE, "/nowhere"),
    ],
)
async def test_the_librarys_errors_are_sentences(arguments: list[str], status: ExitCode, sentence: str) -> None:
    result = await run(*arguments)
    assert (result.status, result.out) == (status, "")
    assert result.err.startswith("pyipc: ")
    assert sentence in result.err
    assert "Traceback" not in result.err
    assert len(result.err.splitlines()) == 1


@POSIX
@pytest.mark.parametrize("arguments", ["--help", "serve --help", "--version"])
def test_help_that_nobody_reads_is_quiet(arguments: str) -> None:
    result = shell(f"pyipc {arguments} | true; echo ${{PIPESTATUS[0]}}")
    # Whether anything was written before the reader had gone is a matter of luck.
    assert result.stdout in ("0\n", "141\n")
    assert result.stderr == ""


@POSIX
def test_help_to_a_closed_pipe(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(tmp_path / "err", "wb") as errors:
        ended = subprocess.run([*PYIPC, "--help"], stdout=writing, stderr=errors, env=environment(), timeout=PATIENCE)
    os.close(writing)
    assert ended.returncode == ExitCode.BROKEN_PIPE
    assert (tmp_path / "err").read_bytes() == b""


@pytest.mark.skipif(
    sys.platform == "win32" or not Path("/dev/full").exists(), reason=f"{CANNOT_RUN} there is no /dev/full"
)
def test_a_full_disk_is_told(directory: Path) -> None:
    result = shell(f"pyipc serve unix:{directory}/s --json > /dev/full")
    assert result.returncode == ExitCode.IO
    assert result.stderr.splitlines()[-1] == "pyipc: the output cannot be written: No space left on device"
    assert list(directory.iterdir()) == []


@pytest.mark.skipif(
    sys.platform == "win32" or not Path("/dev/full").exists(), reason=f"{CANNOT_RUN} there is no /dev/full"
)
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", ["--help", "serve --help", "--version"])
def test_help_on_a_full_disk_is_told(arguments: str, unbuffered: str) -> None:
    result = shell(f"pyipc {arguments} > /dev/full", PYTHONUNBUFFERED=unbuffered)
    assert result.returncode == ExitCode.IO
    assert result.stderr == "pyipc: the output cannot be written: No space left on device\n"


@pytest.mark.parametrize(
    ("command", "module"),
    [
        # While the library itself is imported, nothing of ours has been run yet.
        pytest.param([SCRIPT], "pyipc.cli.main", marks=needs_script),
        pytest.param([SCRIPT], "pyipc.cli.commands.tap", marks=needs_script),
        (PYIPC, "pyipc.cli.main"),
        (PYIPC, "pyipc.cli.commands.tap"),
    ],
)
async def test_ctrl_c_while_it_starts(command: Sequence[str | Path], module: str, tmp_path: Path) -> None:
    """It comes while this module is imported."""
    (tmp_path / "interruption.py").write_text(
        "import signal, sys\n"
        "class Interruption:\n"
        "    def find_spec(self, name, path, target=None):\n"
        f"        if name == {module!r}:\n"
        "            signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interruption())\n",
        "utf-8",
    )
    (tmp_path / "sitecustomize.py").write_text("import interruption\n", "utf-8")
    result = await run("serve", "world", command=command, env={"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"})
    assert (result.status, result.out, result.err) == (ExitCode.INTERRUPTED, "", "")


@POSIX
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_missing_standard_descriptors(address: str, closed: str) -> None:
    """A socket that got the number of stdout would receive the output."""
    answer = '"an answer"'
    result = shell(
        f"pyipc serve {address} --count 1 --reply '{answer}' --timeout 20 {closed} & "
        f"pyipc request {address} ask 1 --connect-timeout 20; s=$?; wait $!; echo $s $?"
    )
    assert answer in result.stdout.splitlines()
    assert result.stdout.splitlines()[-1] == "0 0"
    assert "Traceback" not in result.stderr


async def test_a_bug_is_a_traceback(directory: Path) -> None:
    program = (
        "import sys, pyipc.cli.main, pyipc.cli.commands.emit\n"
        "async def broken(arguments, console): raise ZeroDivisionError('a bug')\n"
        "pyipc.cli.commands.emit.run = broken\n"
        "sys.exit(pyipc.cli.main.main(['emit', 'world', 'x', '1']))\n"
    )
    result = await run(command=[sys.executable, "-c", program])
    assert result.status == 1
    assert "ZeroDivisionError: a bug" in result.err


async def test_several_errors_at_once_are_one_sentence() -> None:
    program = (
        "import sys, trio, pyipc, pyipc.cli.main, pyipc.cli.commands.emit\n"
        "async def fail(): raise pyipc.ConnectionLost('it broke')\n"
        "async def broken(arguments, console):\n"
        "    async with trio.open_nursery() as nursery:\n"
        "        nursery.start_soon(fail)\n"
        "        nursery.start_soon(fail)\n"
        "pyipc.cli.commands.emit.run = broken\n"
        "sys.exit(pyipc.cli.main.main(['emit', 'world', 'x', '1']))\n"
    )
    result = await run(command=[sys.executable, "-c", program])
    assert (result.status, result.err) == (ExitCode.LOST, "pyipc: it broke\n")


async def test_verbose_logs_and_quiet_does_not(address: str) -> None:
    async with start("serve", address, "-v") as server:
        await server.listening()
        await run("emit", address, "x", "1")
        await server.line(r"INFO +pyipc.server: .* connected$", stream="err")
    async with start("serve", address, "--quiet") as server:
        await run("emit", address, "x", "1", "--connect-timeout", "20")
        await server.line("event +x +1")
        assert (await server.interrupt()).err == ""


async def test_an_interruption_that_nobody_waits_for_is_no_traceback() -> None:
    program = (
        "import sys, trio, pyipc.cli.main, pyipc.cli.commands.emit\n"
        "async def interrupted(arguments, console):\n"
        "    async with trio.open_nursery() as nursery:\n"
        "        nursery.start_soon(trio.sleep_forever)\n"
        "        raise KeyboardInterrupt\n"
        "pyipc.cli.commands.emit.run = interrupted\n"
        "sys.exit(pyipc.cli.main.main(['emit', 'world', 'x', '1']))\n"
    )
    result = await run(command=[sys.executable, "-c", program])
    assert (result.status, result.err) == (ExitCode.INTERRUPTED, "")
