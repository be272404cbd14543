"""The rules that every test lives under, and what tests of more than one file need.

* Each test has a hard time bound of 60 seconds; ``@pytest.mark.time_limit(seconds)`` sets another, and
  ``PYIPC_TEST_TIME_LIMIT`` another for those without that mark.
* In CI a skip is a failure, unless its reason starts with ``cannot run here:`` - a promise that no
  installation step could have made it run, such as another operating system.
* ``PYIPC_TEST_SCALE`` multiplies the work of tests that use `scale` and of hypothesis: 1 for every day,
  100 for a night.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    NodeModules = Callable[[str], Path]

ROOT = Path(__file__).resolve().parent.parent
NODE_IPC_VERSIONS = ("9.2.1", "10.1.0")
CANNOT_RUN = "cannot run here:"
DEFAULT_TIME_LIMIT = float(os.environ.get("PYIPC_TEST_TIME_LIMIT", "60"))
SCALE = int(os.environ.get("PYIPC_TEST_SCALE", "1"))

# Deadlines of hypothesis measure the machine, not the code. CI must fail for the same reason twice.
hypothesis.settings.register_profile("dev", deadline=None, max_examples=100 * SCALE)
hypothesis.settings.register_profile("ci", deadline=None, max_examples=100 * SCALE, derandomize=True, print_blob=True)


#: For tests with Node programs on Node's own channel.
needs_node_channel = (
    pytest.mark.skip(reason=f"{CANNOT_RUN} only Node can make its channel on Windows")
    if sys.platform == "win32"
    else pytest.mark.skipif(
        shutil.which("node") is None, reason="node is not installed; on Debian: apt-get install nodejs npm"
    )
)


def is_wine() -> bool:
    """Whether this is Wine rather than Windows; see `./run wine`."""
    return sys.platform == "win32" and hasattr(ctypes.WinDLL("ntdll"), "wine_get_version")


def in_ci() -> bool:
    return os.environ.get("CI", "").lower() in {"1", "true"}


def pytest_configure(config: pytest.Config) -> None:
    hypothesis.settings.load_profile("ci" if in_ci() else "dev")
    # Programs started here inherit what is ignored, as under nohup or in the background of a script; tests of what a
    # program does when it is interrupted or hung up need it as on a terminal.
    for name, handler in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


# --- the time bound ---------------------------------------------------------------------------------------------


def _bounded(item: pytest.Item) -> Generator[None, object, object]:
    """Fail the test from a signal handler: the only way out of a loop that never comes to a checkpoint."""
    if not hasattr(signal, "setitimer"):  # Windows has faulthandler_timeout alone
        return (yield)
    mark = item.get_closest_marker("time_limit")
    limit = (float(mark.args[0]) if mark is not None else DEFAULT_TIME_LIMIT) * SCALE

    def too_long(*_: object) -> None:
        pytest.fail(f"the test took longer than {limit:g} s")

    previous = signal.signal(signal.SIGALRM, too_long)
    # It repeats, because code that catches everything may swallow the first one.
    signal.setitimer(signal.ITIMER_REAL, limit, 5.0)
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    return (yield from _bounded(item))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    return (yield from _bounded(item))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    return (yield from _bounded(item))


# --- skips in CI ------------------------------------------------------------------------------------------------


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if not in_ci() or report.outcome != "skipped" or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    reason = reason.removeprefix("Skipped: ")
    if not reason.startswith(CANNOT_RUN):
        report.outcome = "failed"
        report.longrepr = (
            f"skipped in CI, which could have made it run: {reason}\n(else let the reason start with {CANNOT_RUN!r})"
        )


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _refuse_skip(report)
    return report


# --- fixtures ---------------------------------------------------------------------------------------------------


def needs_node(version: str) -> Path:
    """The ``node_modules`` directory with the real node-ipc of this version; skips the test where it is missing.

    ``PYIPC_NODE_DIR`` names another place than ``.node``, with one directory a version.
    """
    if is_wine():
        pytest.skip(f"{CANNOT_RUN} there is no Node for Wine")
    if shutil.which("node") is None:
        pytest.skip("node is not installed; on Debian: apt-get install nodejs npm")
    modules = Path(os.environ.get("PYIPC_NODE_DIR") or ROOT / ".node") / version / "node_modules"
    if not (modules / "node-ipc").is_dir():
        pytest.skip(f"node-ipc {version} is not installed; ./run test does that")
    return modules


@pytest.fixture(scope="session")
def node_modules() -> NodeModules:
    """`needs_node`, for tests that would rather not import it."""
    return needs_node


@pytest.fixture(scope="session")
def scale() -> int:
    """How many times the everyday amount of work a reliability test should do."""
    return SCALE
