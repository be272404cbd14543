"""The programs in the documents about the cluster, run as a reader would run them, print what stands there."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING

import pytest
import trio

from tests.cli.processes import ROOT, environment
from tests.conftest import needs_node_channel

if TYPE_CHECKING:
    from pathlib import Path

PAGES = (
    "docs/tutorial/cluster.md",
    "docs/how-to/cluster.md",
    "docs/how-to/from-node-cluster.md",
    "docs/how-to/node-workers.md",
)
#: Local names of theirs, which other programs of this user must not meet.
NAMES = re.compile(r'(?<=")(tutorial|spare)(?=")')
#: Seconds that a program may take on a busy machine.
PATIENCE = 100

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="cannot run here: needs Unix sockets and signals"),
    pytest.mark.time_limit(PATIENCE + 10),
]


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def programs(page: str) -> dict[str, str]:
    """Blocks that say in their first line how their file is called, with names of their own for their servers."""
    all_blocks = blocks(page, "python") + blocks(page, "js")
    named = [(re.match(r"(?:#|//) (\w+\.(?:py|js))\n", block), block) for block in all_blocks]
    return {name[1]: NAMES.sub(rf"\1-{os.getpid()}", block) for name, block in named if name is not None}


def runs(page: str) -> dict[str, str]:
    """What a program is said to print."""
    shown = [re.match(r"\$ python (\w+\.py)\n", block) for block in blocks(page, "console")]
    return {match[1]: match.string[match.end() :] for match in shown if match is not None}


def marks(page: str, program: str) -> list[pytest.MarkDecorator]:
    return [needs_node_channel] if "node=" in programs(page)[program] else []


@pytest.mark.parametrize(
    ("page", "program"),
    [pytest.param(page, program, marks=marks(page, program)) for page in PAGES for program in runs(page)],
)
async def test_a_program_prints_what_stands_there(tmp_path: Path, page: str, program: str) -> None:
    for name, source in programs(page).items():
        (tmp_path / name).write_text(source, "utf-8")
    with trio.fail_after(PATIENCE):
        result = await trio.run_process(
            [sys.executable, program],
            check=False,
            capture_stdout=True,
            capture_stderr=True,
            env=environment(),
            cwd=tmp_path,
        )
    assert (result.returncode, result.stdout.decode()) == (0, runs(page)[program]), result.stderr.decode()


@pytest.mark.parametrize("page", PAGES)
def test_every_program_is_run_or_used(page: str) -> None:
    sources = programs(page)
    for name in sources:
        module = name.removesuffix(".py")
        used = any(f'"{module}:' in source or f'"{name}"' in source for source in sources.values())
        assert name in runs(page) or used, f"nothing runs {name} of {page}"


def test_what_was_mended_names_tests_that_are_there() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs/how-to/from-node-cluster.md").read_text("utf-8")))
    sources = [path.read_text("utf-8") for path in (ROOT / "tests" / "cluster").glob("test_*.py")]
    assert named
    for name in named:
        assert any(re.search(rf"^(async )?def {name}\(", source, re.MULTILINE) for source in sources), name
