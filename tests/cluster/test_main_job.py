"""The main job, `./run demo`: a worker is killed on the way, nothing is lost, and a wrong count is noticed."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING

import pytest
import trio

from tests.cli.terminal import start_in_terminal
from tests.conftest import CANNOT_RUN, ROOT

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

PROGRAM = ROOT / "examples" / "wordcount"
IS_WINDOWS = sys.platform == "win32"
PATIENCE = 150

pytestmark = pytest.mark.time_limit(PATIENCE + 10)


async def main_job(directory: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    with trio.fail_after(PATIENCE):
        return await trio.run_process(
            [sys.executable, "-W", "error", str(directory / "main.py"), *arguments],
            check=False,
            capture_stdout=True,
            capture_stderr=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"},
        )


async def test_it_loses_nothing_with_a_worker() -> None:
    """A third is done when a worker is killed: it is started again, and what it had is done by others."""
    result = await main_job(PROGRAM, "--limit", "60" if IS_WINDOWS else "600")
    assert (result.returncode, result.stderr.decode()) == (0, "")
    lines = result.stdout.decode().splitlines()
    (killed,) = [line for line in lines if line.startswith("killed: worker ")]
    assert lines.index(killed) < next(place for place, line in enumerate(lines) if line.startswith(" 50 %"))
    servers = {line.split()[0]: line.split() for line in lines if " server " in line}
    number, process = killed.split()[2].rstrip(","), killed.split()[4]
    assert servers.pop(number)[-1] == "1", lines
    assert process not in result.stdout.decode().partition("worker   role")[2]
    assert [row[-1] for row in servers.values()] == ["0", "0", "0"]
    assert "Nothing was lost, and nothing counted twice." in lines


@pytest.mark.parametrize("wrong", ['count(message.data + " more")', "count(message.data[:-9])"], ids=["more", "less"])
async def test_it_notices_a_wrong_count(tmp_path: Path, wrong: str) -> None:
    shutil.copytree(PROGRAM, tmp_path, dirs_exist_ok=True)
    server = tmp_path / "server.py"
    honest = server.read_text("utf-8")
    server.write_text(honest.replace("count(message.data)", wrong), "utf-8")
    assert server.read_text("utf-8") != honest
    result = await main_job(tmp_path, "--limit", "20")
    assert (result.returncode, result.stderr.decode()) == (1, "")
    assert "THE COUNTS DIFFER" in result.stdout.decode()


@pytest.mark.skipif(IS_WINDOWS, reason=f"{CANNOT_RUN} there are no pseudo-terminals")
async def test_a_terminal_shows_one_table_that_changes() -> None:
    program = (str(PROGRAM / "main.py"), "--limit", "300")
    async with start_in_terminal(*program, command=(sys.executable,), columns=80) as terminal:
        await terminal.shows("killed: worker ")
        assert terminal.text.count("worker   role") == 1, terminal.text
        assert await terminal.finish() == 0
    assert terminal.text.count("worker   role") == 1, terminal.text
    assert "Nothing was lost, and nothing counted twice." in terminal.text
