"""The command line and real node-ipc programs, as they are."""

from __future__ import annotations

import json
import os
import re
import sys
from typing import TYPE_CHECKING

import pytest
import trio

from tests.cli.processes import PATIENCE, run, start
from tests.conftest import CANNOT_RUN, NODE_IPC_VERSIONS, needs_node
from tests.interop.node import Place, start_node

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(sys.platform == "win32", reason=f"{CANNOT_RUN} there is no Node for Wine"),
]


@pytest.mark.parametrize("version", NODE_IPC_VERSIONS)
async def test_serve_for_node_programs(version: str, directory: Path, nursery: trio.Nursery) -> None:
    name = f"pyipc-cli-{os.getpid()}"
    async with start("serve", f"node-ipc:{name}", "--echo") as server:
        await server.listening()
        node = await start_node(nursery, needs_node(version), directory)
        try:
            await node.connect(Place("unix", path=f"/tmp/app.{name}"), id=name, on=["greet"])
            await node.command("emit", id=name, event="greet", js='{name: "Ada"}')
            assert (await node.event("greet"))["data"] == {"name": "Ada"}
            await server.line(r'event +greet  {"name":"Ada"}$')
        finally:
            await node.aclose()
        await server.line("disconnected")
        assert (await server.interrupt()).status == 130


@pytest.mark.parametrize("version", NODE_IPC_VERSIONS)
async def test_emit_to_and_listen_to_node_programs(version: str, directory: Path, nursery: trio.Nursery) -> None:
    place = Place("unix", path=str(directory / "s"))
    node = await start_node(nursery, needs_node(version), directory)
    try:
        with trio.fail_after(2 * PATIENCE):
            await node.serve(place, on=["thing"])
            assert (await run("emit", place.address, "thing", '{"n": [1, null]}')).status == 0
            assert (await node.event("thing"))["data"] == {"n": [1, None]}
            async with start("listen", place.address, "news", "--count", "1", "--json") as listener:
                await listener.line("^connected", stream="err")
                await node.command("broadcast", event="news", js='"hello"')
                result = await listener.finish()
            assert (result.status, json.loads(result.out)["data"]) == (0, "hello")
            result = await run("request", place.address, "thing", "1", "--timeout", "0.5")
            assert result.status == 4
            assert re.search("it may be a plain node-ipc program", result.err)
    finally:
        await node.aclose()
