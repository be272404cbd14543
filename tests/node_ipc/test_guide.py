"""docs/how-to/from-node-ipc.md: nothing is left out, and its programs run."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from pyipc.node_ipc import IPC, Client, Config, Emitter, Server, Socket
from pyipc.node_ipc.client import _LIFECYCLE as OF_CLIENTS
from pyipc.node_ipc.server import _LIFECYCLE as OF_SERVERS
from tests.conftest import CANNOT_RUN
from tests.interop.node import eventually

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/how-to/from-node-ipc.md").read_text("utf-8")


def section(title: str) -> str:
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def named(text: str) -> set[str]:
    """Every word in a code span."""
    return {word for span in re.findall(r"`([^`]+)`", text) for word in re.findall(r"[\w.*]+", span)}


def in_javascript(option: str) -> str:
    """How node-ipc spells it."""
    first, *rest = option.split("_")
    return first + "".join(word.capitalize() for word in rest)


def test_every_option_is_named_in_both_spellings() -> None:
    names = named(section("Options"))
    options = {field.name for field in dataclasses.fields(Config)}
    assert options - names == set()
    ours = {"sync_timeout", "allow", "options"}
    assert {in_javascript(option) for option in options - ours} - names == set()


@pytest.mark.parametrize("kind", [IPC, Server, Client, Socket, Emitter])
def test_every_public_member_is_named(kind: type) -> None:
    made = {
        IPC: {"config", "of"},
        Server: {"config", "path", "port", "udp", "server"},
        Client: {"id", "config", "path", "port", "retries_remaining", "explicitly_disconnected", "destroyed"},
        Socket: {"connection", "id"},
    }.get(kind, set())
    members = {name for name in vars(kind) if not name.startswith("_")} | made
    # What an IPC calls to run a client is none of a program's business.
    assert members - {"run"} - named(section("Methods")) == set()


def test_every_event_is_named() -> None:
    names = named(section("Events"))
    assert (OF_CLIENTS | OF_SERVERS | {"data", "*"}) - names == set()


def test_all_that_was_mended_is_told() -> None:
    assert re.findall(r"^\| (B\d+) \|", section("What was mended"), re.MULTILINE) == [f"B{n}" for n in range(1, 24)]


@pytest.mark.skipif(sys.platform == "win32", reason=f"{CANNOT_RUN} the programs meet at a Unix socket")
async def test_its_programs_run(tmp_path: Path) -> None:
    id = f"world_{os.getpid()}"
    server, client = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    for name, source in (("server", server), ("client", client)):
        renamed = source.replace('"world"', f'"{id}"').replace("of.world", f"of.{id}")
        assert renamed != source
        (tmp_path / f"{name}.py").write_text(renamed.replace("1500", "20"), "utf-8")

    async def run(name: str, printed: dict[str, str]) -> None:
        process = await trio.run_process(
            [sys.executable, "-W", "error", str(tmp_path / f"{name}.py")],
            capture_stdout=True,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
            check=False,
        )
        printed[name] = process.stdout.decode()
        assert process.returncode == 0, printed

    printed: dict[str, str] = {}
    with trio.fail_after(40):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, "server", printed)
            await eventually(lambda: Path(f"/tmp/app.{id}").exists())
            nursery.start_soon(run, "client", printed)
    assert printed == {"server": "got a message: hello\n", "client": "hello world!\n"}
