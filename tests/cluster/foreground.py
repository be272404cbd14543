"""Clusters that run in the foreground, in processes of their own, for the tests."""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.cli.processes import PATIENCE, Program, start
from tests.conftest import is_wine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

__all__ = ["PROGRAMS", "WORKERS_PATIENCE", "running", "started", "step"]

#: Workers are started one interpreter after the other, which under Wine, on a busy machine, takes a minute.
WORKERS_PATIENCE = 150.0 if is_wine() else PATIENCE

PROGRAMS = Path(__file__).with_name("programs")

_PROGRAM = "import sys; from pyipc import cluster; sys.exit(cluster.run({target!r}, **{options!r}))"


def step(kind: str, *, who: str = r"\S+ ?\S*", rest: str = ".*") -> str:
    """A pattern of the line that tells of a step; its process id is the group ``pid``."""
    return rf"^\d\d:\d\d:\d\d\.\d{{3}}  {who} +(?P<pid>\d*)  {kind} *(?P<rest>{rest})$"


@asynccontextmanager
async def started(
    target: str | None, *, cwd: Path = PROGRAMS, env: Mapping[str, str] | None = None, **options: Any
) -> AsyncIterator[Program]:
    """Run `pyipc.cluster.run` with these arguments in a process."""
    options.setdefault("ready_timeout", WORKERS_PATIENCE)
    program = _PROGRAM.format(target=target, options=options)
    command = [sys.executable, "-W", "error", "-c", program]
    async with start(command=command, cwd=cwd, env=env, patience=WORKERS_PATIENCE) as process:
        yield process


async def running(program: Program) -> None:
    """Wait until all workers are ready."""
    await program.line(step("running", who="cluster"), stream="err")
