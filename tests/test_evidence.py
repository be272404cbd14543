"""The evidence maps in docs/explanation/: what they name exists, and is really run.

That a test was not skipped where it could run is seen to in CI by the rule in conftest.py, for every test.
"""

from __future__ import annotations

import ast
import functools
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAPS = [ROOT / "docs" / "explanation" / name for name in ("evidence.md", "node-ipc-weaknesses.md", "security.md")]


# By the numbers that the page on security gives them.
THREATS = {f"S{number}" for number in range(1, 23)}


def rows(page: str) -> list[tuple[str, list[str]]]:
    """What must hold, and the code spans of what shows it."""
    found = re.findall(r"^\| (.+?) \| (.+?) \|$", page, re.MULTILINE)
    return [
        (claim, re.findall(r"`([^`]+)`", shown_by)) for claim, shown_by in found if claim.lower() != "what must hold"
    ]


@functools.cache
def defined_tests(source: str) -> dict[str, list[str]]:
    """Every test of a module, ``name`` or ``Class::name``, with its decorators."""
    found = {}
    for node in ast.parse(source).body:
        members = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}::" if isinstance(node, ast.ClassDef) else ""
        for member in members:
            if isinstance(member, (ast.FunctionDef, ast.AsyncFunctionDef)) and member.name.startswith("test"):
                found[prefix + member.name] = [ast.unparse(decorator) for decorator in member.decorator_list]
    return found


def complaint(evidence: str) -> str | None:
    """What is wrong with one code span of the map."""
    if evidence.startswith("command: "):
        words = shlex.split(evidence.removeprefix("command: "))
        files = [word for word in words if "/" in word and not word.startswith("-")]
        missing = [file for file in files if not (ROOT / file).exists()]
        if not files:
            return f"{evidence!r} names no file of this repository"
        return f"{evidence!r}: there is no {', '.join(missing)}" if missing else None
    path, _, name = evidence.partition("::")
    if not name or not (ROOT / path).is_file():
        return f"{evidence!r} is neither tests/file.py::test_name nor a command"
    tests = defined_tests((ROOT / path).read_text("utf-8"))
    if name not in tests:
        return f"{path} has no test {name}"
    switched_off = [each for each in tests[name] if re.match(r"pytest\.mark\.(skip|xfail)\b", each)]
    return f"{evidence} is switched off by @{switched_off[0]}" if switched_off else None


@pytest.mark.parametrize("page", MAPS, ids=lambda page: page.stem)
def test_what_the_map_names_is_there(page: Path) -> None:
    table = rows(page.read_text("utf-8"))
    assert table
    for claim, evidence in table:
        assert evidence, f"nothing shows that {claim}"
        assert [complaint(each) for each in evidence if complaint(each)] == [], claim


def test_every_threat_is_answered() -> None:
    table = rows((ROOT / "docs" / "explanation" / "security.md").read_text("utf-8"))
    assert {claim.split()[0] for claim, _ in table} >= THREATS


def test_rows_are_read_as_written() -> None:
    page = "| What must hold | Shown by |\n|---|---|\n"
    page += "| it works | `tests/a.py::test_a`, `command: bash .ci/run` |\n| hm | - |\n"
    assert rows(page) == [("it works", ["tests/a.py::test_a", "command: bash .ci/run"]), ("hm", [])]


@pytest.mark.parametrize(
    "evidence",
    [
        "tests/test_evidence.py::test_that_is_not_there",
        "tests/no_such_file.py::test_it",
        "tests/test_evidence.py",
        "it is obvious",
        "command: benchmarks/no_such_file.py",
        "command: true",
    ],
)
def test_evidence_that_is_not_there_is_caught(evidence: str) -> None:
    assert complaint(evidence) is not None


def test_evidence_that_is_switched_off_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "test_it.py").write_text(
        "@pytest.mark.skip(reason='later')\ndef test_off(): ...\n"
        "@pytest.mark.skipif(x, reason='cannot run here: y')\ndef test_on(): ...\n"
        "class TestIt:\n    @pytest.mark.xfail\n    async def test_hoped(self): ...\n"
    )
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    assert "switched off" in (complaint("test_it.py::test_off") or "")
    assert "switched off" in (complaint("test_it.py::TestIt::test_hoped") or "")
    assert complaint("test_it.py::test_on") is None
