"""Node programs as workers of a cluster, for tests."""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from pyipc import cluster
from tests.cluster.diary import PATIENCE, QUICK, Diary
from tests.conftest import needs_node_channel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["ANSWERING", "NEEDS_NODE", "OBEDIENT", "PROGRAMS", "heard", "made", "obedient", "run", "script"]

PROGRAMS = Path(__file__).with_name("node")
OBEDIENT = str(PROGRAMS / "obedient.js")
ANSWERING = str(PROGRAMS / "answering.js")

NEEDS_NODE: Any = [
    needs_node_channel,
    pytest.mark.usefixtures("nothing_is_left"),
]


def made(target: str = OBEDIENT, **settings: Any) -> tuple[cluster.Cluster, Diary]:
    """A cluster of Node programs, and what happens to them."""
    primary = cluster.Cluster(target, **{**QUICK, **settings})
    return primary, Diary(primary)


@asynccontextmanager
async def obedient(**settings: Any) -> AsyncIterator[tuple[cluster.Cluster, cluster.WorkerHandle, Diary]]:
    """A cluster with one worker that does what it is told, and what happens there."""
    primary, diary = made(**{"restart": "never", **settings})
    async with primary:
        with trio.fail_after(PATIENCE):
            worker = await primary.fork()
        yield primary, worker, diary


async def run(worker: cluster.WorkerHandle, code: str, **values: Any) -> None:
    """Have a worker run some JavaScript; ``message`` has the values."""
    await worker.send({"run": code, **values})


async def heard(diary: Diary, count: int = 1) -> list[Any]:
    """Wait for so many messages of workers; all of them."""
    await diary.seen("message", count=count)
    return [each.data for each in diary.of("message")]


def script(directory: Path, code: str, name: str = "worker.js") -> str:
    """A program, in a file."""
    path = directory / name
    path.write_text(code, "utf-8")
    return str(path)
