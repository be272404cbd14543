"""The command line on Windows, where a bare name is a pipe; the real one, in processes of its own."""

from __future__ import annotations

import json
import secrets
import sys

import pytest

from pyipc.cli.exits import ExitCode
from tests.cli.processes import run, start
from tests.conftest import CANNOT_RUN

pytestmark = pytest.mark.skipif(sys.platform != "win32", reason=f"{CANNOT_RUN} needs Windows")


@pytest.fixture
def name() -> str:
    return f"pyipc-{secrets.token_hex(8)}"


async def test_its_version() -> None:
    result = await run("--version")
    assert (result.status, result.err) == (0, "")
    assert result.out.startswith("pyipc ")


@pytest.mark.time_limit(120)
async def test_a_server_and_a_request_over_a_bare_name(name: str) -> None:
    async with start("serve", name, "--echo") as server:
        assert await server.listening() == name
        asked = await run("request", name, "add", "[1, 2]")
        assert (asked.status, asked.out, asked.err) == (0, "[1,2]\n", "")
        looked = await run("doctor", name, "--json")
        assert looked.status == 0, looked
        assert any("pipe" in line and name in line for line in looked.lines), looked.out
        for line in looked.lines:
            json.loads(line)


async def test_nobody_listens(name: str) -> None:
    asked = await run("request", name, "add", "[1, 2]", "--connect-timeout", "1")
    assert (asked.status, asked.out) == (ExitCode.UNREACHABLE, "")
    assert "there is no such pipe; start the server" in asked.err
