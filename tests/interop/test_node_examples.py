"""The programs in examples/node, run as their README says, and what they print compared with it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from tests.conftest import needs_node_channel
from tests.interop.node import node_environment

if TYPE_CHECKING:
    from tests.interop.node import Place

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "node"
ROOT = EXAMPLES.parents[1]


def said_in_readme(command: str) -> str:
    """What the README shows for a command."""
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    found = re.search(rf"```console\n\$ {re.escape(command)}\n(.*?)```", text, re.DOTALL)
    assert found is not None, f"the README does not show {command!r}"
    return found[1]


@pytest.mark.parametrize(
    ("server", "client"), [("server.py", "client.js"), ("server.js", "client.py"), ("topics.py", "topics.js")]
)
async def test_examples(modules: Path, unix: Place, server: str, client: str) -> None:
    def command(program: str) -> list[str]:
        if program.endswith(".py"):
            return [sys.executable, str(EXAMPLES / program), unix.address]
        return ["node", str(EXAMPLES / program), unix.path]

    environment = node_environment(modules)
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [environment.get("PYTHONPATH")])])
    interpreters = {"server.py": "python server.py", "server.js": "node server.js"}
    interpreters |= {"client.py": "python client.py", "client.js": "node client.js"}
    interpreters |= {"topics.py": "python topics.py", "topics.js": "node topics.js"}
    with trio.fail_after(40):
        process = await trio.lowlevel.open_process(command(server), stdout=subprocess.PIPE, env=environment)
        assert process.stdout is not None
        try:
            started = said_in_readme(interpreters[server]).encode()
            printed = b""
            while len(printed) < len(started):
                chunk = await process.stdout.receive_some()
                assert chunk, f"{server} ended: {process.returncode}"
                printed += chunk
            assert printed == started
            result = await trio.run_process(
                command(client), capture_stdout=True, capture_stderr=True, check=False, env=environment
            )
            assert result.stderr == b""
            assert result.stdout.decode() == said_in_readme(interpreters[client])
            assert result.returncode == 0
        finally:
            process.kill()
            await process.wait()
            await process.stdout.aclose()


@needs_node_channel
async def test_a_node_program_has_a_worker_in_python() -> None:
    environment = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}
    with trio.fail_after(40):
        result = await trio.run_process(
            ["node", EXAMPLES / "primary.js"], capture_stdout=True, capture_stderr=True, check=False, env=environment
        )
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout.decode() == said_in_readme("node primary.js")
    guide = (ROOT / "docs" / "how-to" / "node-workers.md").read_text(encoding="utf-8")
    assert f"$ node primary.js\n{said_in_readme('node primary.js')}" in guide


def test_every_program_is_in_the_readme() -> None:
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for path in EXAMPLES.iterdir():
        assert path.suffix not in (".js", ".py") or path.name in text, path.name
