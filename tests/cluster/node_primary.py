"""A real Node program as primary, or parent, of programs of pyipc."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import trio

from tests.interop.node import NodePeer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["ROOT", "Kind", "NodeProgram", "node_program"]

DRIVER = Path(__file__).with_name("node") / "primary.js"
ROOT = Path(__file__).parents[2]
PROGRAMS = Path(__file__).with_name("programs")

Kind = Literal["worker", "child"]


class NodeProgram(NodePeer):
    """The Node program. Made by `node_program`."""

    async def fork(
        self,
        name: str = "one",
        kind: Kind = "worker",
        *,
        program: str | Path = PROGRAMS / "under_node.py",
        args: list[str] | None = None,
        executable: str | None = sys.executable,
        env: dict[str, str] | None = None,
        serialization: str = "json",
    ) -> int:
        """Have a process started.

        Args:
            name: What it is called here.
            kind: Whether as a worker of Node's cluster.
            program: What it runs.
            args: With which arguments.
            executable: By what it is run; ``None`` for Node.
            env: Variables beside those of this process.
            serialization: Node's setting.

        Returns:
            Its process id.
        """
        told = {"program": str(program), "args": args or [], "executable": executable, "env": env or {}}
        answer = await self.ask("fork", name=name, kind=kind, serialization=serialization, **told)
        return int(answer["pid"])

    async def ask(self, command: str, /, **arguments: Any) -> dict[str, Any]:
        """Have something done, and wait for what it has brought."""
        self.asked = getattr(self, "asked", 0) + 1
        await self.post(command, number=self.asked, **arguments)
        return await self.wait_for("done", number=self.asked)

    async def send(self, data: object, name: str = "one") -> None:
        """Have a message sent to a process."""
        await self.ask("send", name=name, data=data)

    async def heard(self, name: str = "one") -> Any:
        """The next message of a process."""
        return (await self.wait_for("message", name=name))["data"]

    async def told(self, data: object, name: str = "one") -> Any:
        """What a process answers to a message."""
        await self.send(data, name)
        return await self.heard(name)

    def kinds(self, name: str = "one") -> list[str]:
        """What has happened to a process so far."""
        return [each["report"] for each in self.reports if each.get("name") == name and each["report"] != "message"]


@contextlib.asynccontextmanager
async def node_program() -> AsyncIterator[NodeProgram]:
    """Run it for the length of a block. In the end it is killed, and what it has started has to end by that."""
    process = await trio.lowlevel.open_process(
        ["node", str(DRIVER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    async with trio.open_nursery() as nursery:
        program = NodeProgram(process)
        nursery.start_soon(program.read)
        try:
            await program.wait_for("ready")
            yield program
        finally:
            with trio.CancelScope(shield=True):
                await program.aclose()
                # Its output ends when the last of what it has started has.
                with trio.fail_after(15):
                    await program.wait_ended()
        nursery.cancel_scope.cancel()
