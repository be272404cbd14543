"""A primary that is killed leaves no worker behind, whatever that is at."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from functools import partial

import pytest
import trio

from tests.cli.processes import start
from tests.cluster.diary import ROOT, ended, is_running
from tests.conftest import CANNOT_RUN

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason=f"{CANNOT_RUN} it looks at /proc, and sends signals")

run = partial(start, command=(sys.executable, "-m", "tests.cluster.programs.orphaning"), cwd=ROOT)


@pytest.mark.time_limit(120)
@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV", "SIGTERM"])
async def test_no_worker_outlives_its_primary(name: str) -> None:
    """Busy ones, one that sleeps in a call of the system, one that ignores SIGTERM, one that is not ready yet."""
    number = signal.Signals[name]  # Windows has none of them but the last
    async with run() as primary:
        line = await primary.line(r"^\{.*\}$")
        pids: dict[str, int] = json.loads(line[0])
        assert all(map(is_running, pids.values()))
        began = trio.current_time()
        primary.process.send_signal(number)
        assert await primary.process.wait() == -number
        try:
            await ended(*pids.values())
        finally:
            for pid in filter(is_running, pids.values()):
                os.kill(pid, signal.SIGKILL)
        print(f"{len(pids)} workers had ended {trio.current_time() - began:.2f} s after their primary")


async def test_one_that_stands_still_ends_when_it_goes_on() -> None:
    """Nothing runs in a process that was stopped, so it is the exception, until it is continued."""
    async with run() as primary:
        line = await primary.line(r"^\{.*\}$")
        pids: dict[str, int] = json.loads(line[0])
        stopped = pids["idle"]
        os.kill(stopped, signal.SIGSTOP)
        primary.process.kill()
        await primary.process.wait()
        try:
            await ended(*(pid for pid in pids.values() if pid != stopped))
            assert is_running(stopped)
            os.kill(stopped, signal.SIGCONT)
            await ended(stopped)
        finally:
            for pid in filter(is_running, pids.values()):
                os.kill(pid, signal.SIGKILL)


def test_who_starts_a_program_for_workers_by_hand_is_told() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pyipc.cluster", "app:main"], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 1
    assert "pyipc run" in done.stderr
