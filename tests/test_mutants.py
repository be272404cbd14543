"""Builds that are broken on purpose: each fits the code, and the runner tells those that are caught from all others.

Whether each of them is caught takes two minutes to find out, so that is for `./run mutants`, and for CI.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import trio

from tests.conformance.sides import until
from tests.conftest import CANNOT_RUN
from tests.mutants import runner
from tests.mutants.catalogue import CATALOGUE, MUTANTS
from tests.mutants.command import main, try_all
from tests.mutants.mutant import Mutant, StaleMutant, broken, find_test
from tests.mutants.page import COMMAND, PAGE, page
from tests.test_evidence import complaint

ROOT = Path(__file__).resolve().parent.parent


def test_every_mutant_fits_the_code() -> None:
    for mutant in MUTANTS:
        broken(mutant, ROOT)


def test_every_mutant_is_to_be_caught_by_a_test_that_is_run() -> None:
    complaints = [complaint("::".join(find_test(mutant))) for mutant in MUTANTS]
    assert [each for each in complaints if each is not None] == []


def test_mutants_have_names_of_their_own() -> None:
    names = [mutant.name for mutant in MUTANTS]
    assert sorted(set(names)) == sorted(names)


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text("utf-8") == page(CATALOGUE), f"make it anew: {COMMAND}"


# --- the runner, on a package made for it ---

SOUND = "def add(a, b):\n    return a + b\n"
TESTS = """
import os
import pyipc
import pytest

def test_sum():
    assert pyipc.add(1, 2) == 3

def test_nothing():
    assert callable(pyipc.add)

@pytest.fixture
def summed():
    assert pyipc.add(1, 2) == 3

def test_prepared(summed): ...

def test_skipped():
    pytest.skip("not today")
"""

posix_only = pytest.mark.skipif(sys.platform == "win32", reason=f"{CANNOT_RUN} the runner ends processes by group")


def mutant(new: str, caught_by: str = "test_sum", old: str = "a + b") -> Mutant:
    name = f"{new!r} by {caught_by}"
    return Mutant(
        name=name, mistake="", file="pyipc/__init__.py", old=old, new=new, caught_by=f"tests/test_it.py::{caught_by}"
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository with one function and its tests."""
    root = tmp_path / "project"
    for name, text in (("pyipc/__init__.py", SOUND), ("tests/test_it.py", TESTS), ("pyproject.toml", "")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@posix_only
@pytest.mark.slow
async def test_only_a_test_that_was_run_and_failed_catches_a_build(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = {
        mutant("a - b"): "caught",
        mutant("b + a"): "survived",
        mutant("a - b", "test_nothing"): "survived",
        mutant("a + c"): "faulty",  # it raises NameError, and is broken in another way than it says
        mutant("a + b\nimport nothing_of_that_name"): "faulty",
        mutant("a - b", "test_prepared"): "faulty",  # the test itself was never run
        mutant("__import__('os')._exit(1)"): "faulty",
    }
    assert await try_all(project, list(wanted)) == 1
    printed = capsys.readouterr().out
    missed = {one.name: verdict for one, verdict in wanted.items() if verdict != "caught"}
    assert dict(re.findall("^-+ (.+): (.+)$", printed, re.MULTILINE)) == missed
    assert "1 of 7 caught" in printed
    assert (project / "pyipc/__init__.py").read_text() == SOUND


@posix_only
async def test_where_every_build_is_caught_all_is_well(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert await try_all(project, [mutant("a - b")]) == 0
    assert "1 of 1 caught" in capsys.readouterr().out


@posix_only
async def test_a_build_that_comes_to_no_end_is_ended_and_not_caught(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runner, "_RUN_TIME_LIMIT", 2)
    assert await try_all(project, [mutant("__import__('time').sleep(1000)")]) == 1
    assert "it went on for 2 s" in capsys.readouterr().out


@posix_only
@pytest.mark.parametrize("caught_by", ["test_missing", "test_skipped"])
async def test_nothing_is_broken_where_the_tests_do_not_pass_on_the_sound_build(
    project: Path, caught_by: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await try_all(project, [mutant("a - b", caught_by)]) == 1
    assert "nothing was broken" in capsys.readouterr().out


@posix_only
async def test_nothing_is_tested_but_the_copy(project: Path, tmp_path: Path) -> None:
    """Where the copy has no package, the one that is installed would be tested, and found sound."""
    (tree,) = [runner.copy_tree(project, tmp_path)]
    (tree / "pyipc" / "__init__.py").unlink()
    (tree / "pyipc").rename(tree / "elsewhere")
    assert "is imported from" in await runner.check_sound(tree, [mutant("a - b", "test_nothing")])


@posix_only
async def test_a_mutant_that_does_not_fit_is_told(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert await try_all(project, [mutant("a - b"), mutant("", old="a / b")]) == 1
    assert "its old text stands 0 times in pyipc/__init__.py" in capsys.readouterr().out
    with pytest.raises(StaleMutant, match="stands 3 times"):
        broken(mutant("c", old="a"), project)
    with pytest.raises(StaleMutant, match="no Python"):
        broken(mutant("("), project)


@posix_only
async def test_a_run_that_is_cancelled_leaves_a_sound_tree(project: Path, tmp_path: Path) -> None:
    tree = runner.copy_tree(project, tmp_path)
    begun = tree / "begun"
    slow = mutant(f"open({str(begun)!r}, 'w').close() or __import__('time').sleep(1000)")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(runner.catch_all, [tree], [slow], print)
        await until(begun.exists)
        assert (tree / slow.file).read_text() != SOUND
        nursery.cancel_scope.cancel()
    assert (tree / slow.file).read_text() == SOUND


def test_a_mutant_that_there_is_not_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["no-such-mutant"])
    assert "there is no mutant no-such-mutant" in capsys.readouterr().err


def test_the_command_prints_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--markdown"]) == 0
    assert capsys.readouterr().out == page(CATALOGUE)
