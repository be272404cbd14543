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
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q"]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=50)

    return run


@pytest.mark.parametrize(
    "skip",
    [
        "def test_it():\n    pytest.skip('no beer')",
        "@pytest.mark.skipif(True, reason='no beer')\ndef test_it(): pass",
        "pytest.skip('no beer', allow_module_level=True)",
    ],
    ids=["call", "mark", "module"],
)
def test_a_skip_fails_ci_and_nothing_else(run_pytest: RunPytest, skip: str) -> None:
    in_ci = run_pytest(skip)
    assert in_ci.returncode != 0, in_ci.stdout
    assert "skipped in CI" in in_ci.stdout
    assert "no beer" in in_ci.stdout
    assert "1 skipped" in run_pytest(skip, ci=False).stdout
    excused = run_pytest(skip.replace("no beer", f"{CANNOT_RUN} needs Windows"))
    assert "1 skipped" in excused.stdout, excused.stdout


def test_an_expected_failure_is_no_skip(run_pytest: RunPytest) -> None:
    result = run_pytest("@pytest.mark.xfail\ndef test_it(): assert False")
    assert result.returncode == 0, result.stdout


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason=f"{CANNOT_RUN} needs interval timers of POSIX")
@pytest.mark.parametrize(
    "test",
    [
        "def test_it():\n    while True: pass",
        "async def test_it():\n    await trio.sleep_forever()",
        "async def test_it():\n    while True: await trio.lowlevel.checkpoint()",
        "@pytest.fixture\ndef slow():\n    yield\n    time.sleep(60)\ndef test_it(slow): pass",
    ],
    ids=["loop", "trio", "trio-loop", "teardown"],
)
def test_no_test_runs_for_ever(run_pytest: RunPytest, test: str) -> None:
    source = f"pytestmark = pytest.mark.time_limit(0.2)\n{test}\ndef test_the_next_one_runs(): pass"
    result = run_pytest(source)
    assert result.returncode == 1, result.stdout
    assert "the test took longer than 0.2 s" in result.stdout
    assert "1 passed" in result.stdout or "2 passed" in result.stdout, result.stdout
