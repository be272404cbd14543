"""The programs in the guide to streams, run as a reader would run them."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import pytest

from tests.cli.processes import ROOT, run, start

if TYPE_CHECKING:
    from pathlib import Path

GUIDE = (ROOT / "docs" / "how-to" / "stream.md").read_text("utf-8")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="cannot run here: needs Unix sockets")


def programs() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


async def test_the_programs_of_the_guide(tmp_path: Path) -> None:
    files = [tmp_path / "server.py", tmp_path / "client.py"]
    for file, program in zip(files, programs(), strict=True):
        assert program.count('"world"') == 1
        file.write_text(program.replace('"world"', repr(f"unix:{tmp_path}/s")), "utf-8")
    async with start(files[0], command=(sys.executable, "-W", "error", "-u")) as server:
        result = await run(files[1], command=(sys.executable, "-W", "error"))
        assert (result.status, result.err) == (0, "")
        assert result.lines == ["{'id': 2000}", "line 0", "the server says: Expected `int`, got `str`"]
        await server.line("nobody listens any more")
