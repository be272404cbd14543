"""Breaking one copy of the package after the other, and running the test that has to notice.

The copies are in a temporary directory; the repository is not touched. Each process imports the package of its copy,
or stops: what is installed is never tested by mistake. A mutant is caught when its test was run and failed. It is not
caught by a test that could not run, by a build that does not even do what it is said to do wrong, or by one that
comes to no end.
"""

from __future__ import annotations

import compileall
import dataclasses
import enum
import os
import py_compile
import re
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final
from xml.etree import ElementTree

import trio

from tests.mutants.mutant import broken

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from tests.mutants.mutant import Mutant

__all__ = ["Result", "Verdict", "catch_all", "check_sound", "copy_tree"]

#: Mutants that are tried at the same time.
WORKERS: Final = 2
#: Seconds that one test has, beside which a mutant costs the start of an interpreter.
TEST_TIME_LIMIT: Final = 30
#: Seconds after which a run that goes on although its test has no time left is ended.
_RUN_TIME_LIMIT: Final = 120
_SOUND_TIME_LIMIT: Final = 600

_COPIED: Final = ("pyipc", "tests", "pyproject.toml")
#: Runs pytest with the package in the current directory, and with no other.
_DRIVER: Final = """
import os, sys
import pyipc
expected = os.path.join(os.getcwd(), "pyipc")
if list(map(os.path.realpath, pyipc.__path__)) != [os.path.realpath(expected)]:
    sys.exit(f"pyipc is imported from {list(pyipc.__path__)} and not from {expected}")
import pytest
sys.exit(pytest.main(sys.argv[1:]))
"""
#: What a build raises that is not broken as it is said to be, but does not work at all.
_NOT_AS_SAID: Final = re.compile(r"\b(NameError|UnboundLocalError|AttributeError|ImportError|ModuleNotFoundError)\b")


class Verdict(enum.Enum):
    """How it went with one mutant."""

    CAUGHT = "caught"
    SURVIVED = "survived"
    FAULTY = "faulty"


@dataclasses.dataclass(frozen=True)
class Result:
    """What came of one mutant.

    Attributes:
        mutant: Which.
        verdict: How it went.
        seconds: How long that took.
        why: What pytest had to say, where the mutant was not caught.
    """

    mutant: Mutant
    verdict: Verdict
    seconds: float
    why: str = ""


def copy_tree(root: Path, place: Path) -> Path:
    """Copy what the tests need of a repository to a new directory of ``place``.

    Compiled files there are compared with their source by its hash: a file may be broken and mended within one second,
    and Python looks no closer at the times of files.
    """
    tree = place / f"tree{sum(1 for _ in place.iterdir())}"
    tree.mkdir()
    for name in _COPIED:
        source = root / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        else:
            shutil.copy(source, tree / name)
    mode = py_compile.PycInvalidationMode.CHECKED_HASH
    compileall.compile_dir(tree / "pyipc", quiet=1, invalidation_mode=mode)
    return tree


async def check_sound(tree: Path, mutants: Iterable[Mutant]) -> str:
    """Run all tests that are to catch something on a sound tree.

    Returns:
        What pytest had to say if not all of them pass; empty if they do.

    Cancellation: the tests are ended.
    """
    names = list(dict.fromkeys(mutant.caught_by for mutant in mutants))
    report = await _run(tree, names, _SOUND_TIME_LIMIT)
    if report.status == 0 and report.count("testcase") >= len(names) and not report.count("skipped"):
        return ""
    return report.text


async def catch_all(trees: Sequence[Path], mutants: Iterable[Mutant], tell: Callable[[Result], None]) -> None:
    """Try one mutant after the other, in several trees at a time; ``tell`` is called with what came of each.

    All of them have to fit the code.

    Cancellation: the tests that run are ended, and the trees are sound again.
    """
    waiting = iter(mutants)

    async def work(tree: Path) -> None:
        for mutant in waiting:
            tell(await _catch(tree, mutant))

    async with trio.open_nursery() as nursery:
        for tree in trees:
            nursery.start_soon(work, tree)


async def _catch(tree: Path, mutant: Mutant) -> Result:
    path = tree / mutant.file
    sound = path.read_bytes()
    began = time.perf_counter()
    path.write_text(broken(mutant, tree), "utf-8")
    try:
        report = await _run(tree, [mutant.caught_by], _RUN_TIME_LIMIT)
    finally:
        path.write_bytes(sound)
    seconds = time.perf_counter() - began
    verdict = report.judge()
    return Result(mutant, verdict, seconds, "" if verdict is Verdict.CAUGHT else report.text)


@dataclasses.dataclass(frozen=True)
class _Report:
    """What came of a run of pytest: its exit status, its report in XML if it made one, and what it printed."""

    status: int | None
    xml: ElementTree.Element | None
    text: str

    def count(self, tag: str) -> int:
        return 0 if self.xml is None else sum(1 for _ in self.xml.iter(tag))

    def judge(self) -> Verdict:
        if self.xml is None or self.status not in (0, 1) or not self.count("testcase"):
            return Verdict.FAULTY
        failures = [failure.text or "" for failure in self.xml.iter("failure")]
        if not failures:
            return Verdict.FAULTY if self.count("error") else Verdict.SURVIVED
        return Verdict.FAULTY if any(map(_NOT_AS_SAID.search, failures)) else Verdict.CAUGHT


async def _run(tree: Path, tests: Sequence[str], time_limit: float) -> _Report:
    """Run tests in a tree, each within its own time limit."""
    written = tree / "report.xml"
    written.unlink(missing_ok=True)
    options = ["-q", "--tb=short", "-p", "no:cacheprovider", f"--junitxml={written}"]
    environment = {
        **os.environ,
        "PYTHONPATH": str(tree),  # for the processes that tests start
        "PYIPC_TEST_TIME_LIMIT": str(TEST_TIME_LIMIT),
        "PYIPC_TEST_SCALE": "1",
        "CI": "true",  # what hypothesis tries is the same each time, and no test is skipped in silence
    }

    async def end(process: trio.Process) -> None:
        # And all that its tests have started.
        os.killpg(process.pid, signal.SIGKILL)

    done: subprocess.CompletedProcess[bytes] | None = None
    with trio.move_on_after(time_limit):
        done = await trio.run_process(
            [sys.executable, "-c", _DRIVER, *options, *tests],
            cwd=tree,
            env=environment,
            capture_stdout=True,
            stderr=subprocess.STDOUT,
            check=False,
            start_new_session=True,
            deliver_cancel=end,
        )
    if done is None:
        return _Report(None, None, f"it went on for {time_limit:g} s, and the time limit of its test did not end it")
    xml = ElementTree.parse(written).getroot() if written.exists() else None
    return _Report(done.returncode, xml, done.stdout.decode("utf-8", "replace"))
