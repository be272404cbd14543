"""What happened to the workers of a cluster, for tests to look at and to wait for."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

import pyipc
from pyipc import cluster

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyipc.cluster import WorkerEvent

__all__ = ["PATIENCE", "QUICK", "ROOT", "Diary", "children", "ended", "is_running", "made", "program", "told"]

ROOT = Path(__file__).resolve().parent.parent.parent
#: Seconds that anything may take on a busy machine.
PATIENCE = 30.0
#: Settings of clusters that are not to keep a test waiting.
QUICK: Any = {"cwd": str(ROOT), "restart_interval": 0.01, "kill_timeout": 1.0, "drain_timeout": 5.0}


class Diary:
    """Notes all events of a cluster.

    Args:
        primary: The cluster.

    Attributes:
        events: All of them, in order.
    """

    def __init__(self, primary: cluster.Cluster) -> None:
        self.events: list[WorkerEvent] = []
        self._news = trio.Event()
        for type in cluster.EVENTS:
            primary.on(type, self._note)

    def _note(self, event: WorkerEvent) -> None:
        self.events.append(event)
        self._news.set()
        self._news = trio.Event()

    def of(self, type: str, id: str | None = None) -> list[WorkerEvent]:
        """Those of a type, of one worker or of all."""
        return [
            each
            for each in self.events
            if each.type == type and (id is None or (each.worker is not None and each.worker.id == id))
        ]

    def types(self, id: str) -> list[str]:
        """What happened to a worker."""
        return [each.type for each in self.events if each.worker is not None and each.worker.id == id]

    async def seen(self, type: str, id: str | None = None, *, count: int = 1) -> WorkerEvent:
        """Wait for the ``count``-th event of a type."""
        await self.until(lambda: len(self.of(type, id)) >= count, f"{count} of {type!r}")
        return self.of(type, id)[count - 1]

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until something is true of what is noted."""
        with trio.move_on_after(PATIENCE):
            while not condition():
                await self._news.wait()
        assert condition(), f"{what} did not come; there were {[each.type for each in self.events]}"


def is_running(pid: int) -> bool:
    """Whether there is a process of this id that has not ended."""
    if sys.platform == "linux":
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return False
        return state not in "ZX"  # whoever inherits orphans may take its time with their remains
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def children() -> set[int]:
    """The child processes of this one, those that have ended and were not waited for as well; on Linux."""
    found: set[int] = set()
    for task in Path("/proc/self/task").glob("*/children"):
        found |= {int(pid) for pid in task.read_text().split()}
    return found


async def ended(*pids: int) -> None:
    """Wait until processes, of which some are nobody's children any more, have ended."""
    with trio.move_on_after(PATIENCE):
        while any(map(is_running, pids)):  # noqa: ASYNC110 - the kernel sets no event
            await trio.sleep(0.05)
    left = [pid for pid in pids if is_running(pid)]
    assert not left, f"these processes go on: {left}"


def program(name: str) -> str:
    """One of the functions of `tests.cluster.programs.faulty`, as a target."""
    return f"tests.cluster.programs.faulty:{name}"


def made(name: str = "main", **settings: Any) -> tuple[cluster.Cluster, Diary]:
    """A cluster of such workers, and what happens to them."""
    primary = cluster.Cluster(program(name), **{**QUICK, **settings})
    return primary, Diary(primary)


async def told(worker: cluster.WorkerHandle, event: str, data: object = None, timeout: float = PATIENCE) -> None:
    """Ask a worker for something that it does not survive, or not answer."""
    with contextlib.suppress(pyipc.ConnectionLost, pyipc.RequestError):
        await worker.request(event, data, timeout=timeout)
