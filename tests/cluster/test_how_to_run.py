"""docs/how-to/run.md: its program runs, and the lines that it shows are those that come."""

from __future__ import annotations

import re
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from tests.cli.processes import ROOT, start
from tests.cli.test_docs import arguments_in
from tests.conftest import CANNOT_RUN

if TYPE_CHECKING:
    from pathlib import Path

GUIDE = (ROOT / "docs" / "how-to" / "run.md").read_text("utf-8")


def kinds(text: str) -> list[tuple[str, str]]:
    """Who and what, of each line; workers come in any order."""
    return sorted(re.findall(r"^[\d:.]{12}  (cluster|worker \d) +\d+  (\S+)", text, re.MULTILINE))


@pytest.mark.skipif(sys.platform == "win32", reason=f"{CANNOT_RUN} there are no signals to send")
async def test_the_lines_are_those_that_come(tmp_path: Path) -> None:
    program, other = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    console = re.search(r"```console\n\$ (pyipc run .*?)\n(.*?)```", GUIDE, re.DOTALL)
    assert console is not None
    (tmp_path / "app.py").write_text(program, "utf-8")
    (tmp_path / "other.py").write_text(other, "utf-8")
    for command in (["-m", "pyipc", *arguments_in(console[1])], ["other.py"]):
        async with start(command=[sys.executable, "-W", "error", *command], cwd=tmp_path) as process:
            await process.line(" running ", stream="err")
            so_far = process.err.decode()
            assert kinds(so_far) == kinds(console[2])
            assert (await process.interrupt(signal.SIGTERM)).status == 0
