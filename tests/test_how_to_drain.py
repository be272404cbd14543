"""The programs in the guide to draining, run as a reader would run them."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import pytest

from tests.cli.processes import ROOT, run, start

if TYPE_CHECKING:
    from pathlib import Path

GUIDE = (ROOT / "docs" / "how-to" / "drain.md").read_text("utf-8")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="cannot run here: needs Unix sockets and signals")
PYTHON = (sys.executable, "-W", "error", "-u")


def programs() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


async def test_the_programs_of_the_guide(tmp_path: Path) -> None:
    files = [tmp_path / "server.py", tmp_path / "client.py"]
    for file, program in zip(files, programs(), strict=True):
        file.write_text(program, "utf-8")
    blue, green = f"unix:{tmp_path}/blue", f"unix:{tmp_path}/green"
    async with (
        start(files[0], blue, command=PYTHON) as old,
        start(files[1], blue, green, command=PYTHON) as client,
    ):
        await client.line("9 done at unix")
        async with start(files[0], green, command=PYTHON) as new:
            await new.line("green")
            old.process.terminate()
            await old.line(re.escape("DrainReport(left=1, cut_off=0, undelivered=0)"))
            assert await old.process.wait() == 0
            await client.line("moved 1 times")
            lines = (await client.finish()).lines
    answers = [line for line in lines if " done at " in line]
    assert [int(line.split()[0]) for line in answers] == list(range(200))
    assert {line.rpartition("/")[2] for line in answers} == {"blue", "green"}


async def test_the_example_says_what_came_of_it() -> None:
    result = await run(ROOT / "examples" / "drain.py", command=PYTHON)
    assert (result.status, result.err) == (0, "")
    assert result.lines[:3] == [
        "both have answered: True",
        "the client has moved: 1",
        "the old server: DrainReport(left=1, cut_off=0, undelivered=0)",
    ]
    assert re.fullmatch(r"the new server: DrainReport\(left=[01], cut_off=0, undelivered=0\)", result.lines[3])
