"""The rules in conftest.py: that they bite, seen from outside by running pytest on a test made for it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import CANNOT_RUN

if TYPE_CHECKING:
    from collections.abc import Callable

    RunPytest = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run_pytest(tmp_path: Path) -> RunPytest:
    """Runs one test file under a copy of our conftest.py and gives back the finished process."""

    def run(source: str, *, ci: bool = True) -> subprocess.CompletedProcess[str]:
        shutil.copy(Path(__file__).with_name("conftest.py"), tmp_path)
        (tmp_path / "test_it.py").write_text(f"import pytest, time, trio\n{source}")
        (tmp_path / "pytest.ini").write_text("[pytest]\ntrio_mode = true\nmarkers =\n    time_limit(seconds): bound\n")
        environment = {**os.environ, "CI": "true" if ci else "", "PYTEST_ADDOPTS": "", "PYIPC_TEST_SCALE": "1"}
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:anyio", "-q"]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=50)

    return run


SKIPS = f"""
def test_call(): pytest.skip("no beer")

@pytest.mark.skipif(True, reason="no wine")
def test_mark(): pass

def test_excused(): pytest.skip("{CANNOT_RUN} needs Windows")

@pytest.mark.xfail
def test_expected_failure(): assert False

def test_passes(): pass
"""


def test_a_skip_fails_ci_and_nothing_else(run_pytest: RunPytest) -> None:
    in_ci = run_pytest(SKIPS)
    assert in_ci.returncode == 1
    assert "1 failed, 1 passed, 1 skipped, 1 xfailed, 1 error" in in_ci.stdout
    assert "skipped in CI, which could have made it run: no beer" in in_ci.stdout
    assert "skipped in CI, which could have made it run: no wine" in in_ci.stdout
    elsewhere = run_pytest(SKIPS, ci=False)
    assert elsewhere.returncode == 0
    assert "1 passed, 3 skipped, 1 xfailed" in elsewhere.stdout


def test_a_module_that_skips_itself_fails_ci(run_pytest: RunPytest) -> None:
    result = run_pytest("pytest.skip('no beer', allow_module_level=True)")
    assert result.returncode != 0
    assert "skipped in CI, which could have made it run: no beer" in result.stdout


ENDLESS = """
pytestmark = pytest.mark.time_limit(0.2)

def test_loop():
    while True: pass

async def test_waits(): await trio.sleep_forever()

async def test_trio_loop():
    while True: await trio.lowlevel.checkpoint()

@pytest.fixture
def slow():
    yield
    time.sleep(60)

def test_teardown(slow): pass

async def test_the_next_one_runs(): await trio.lowlevel.checkpoint()
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason=f"{CANNOT_RUN} signals wake nobody who sleeps")
def test_no_test_runs_for_ever(run_pytest: RunPytest) -> None:
    result = run_pytest(ENDLESS)
    assert result.returncode == 1, result.stdout
    assert "3 failed, 2 passed, 1 error" in result.stdout, result.stdout
    assert result.stdout.count("Failed: the test took longer than 0.2 s") >= 4, result.stdout
