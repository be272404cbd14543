"""What a program holds: after a test it is what it was before."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["Holdings", "LeakGate", "leak_gate", "resident_size"]

# What is closed when a test ends may take the kernel, or a child that was killed, a moment.
_PATIENCE = 10.0
# Whether /proc tells about this process. Under Wine there is one too, which knows nothing of Windows.
_HAS_PROC = sys.platform == "linux"
# Memory comes from the system in pieces: of less, a tenth would be noise.
_SMALL = 8 << 20


@dataclasses.dataclass(frozen=True)
class Holdings:
    """What this process holds.

    Attributes:
        tasks: How many tasks of trio there are.
        threads: The names of its threads.
        descriptors: What its open descriptors are, by number; empty where the system does not tell.
        sockets: The names in the file system or beside it that sockets of this host have, of those in its directories.
        children: The numbers of its child processes; empty where the system does not tell.
        files: The files in the directories that are watched.
    """

    tasks: int
    threads: frozenset[str]
    descriptors: frozenset[tuple[str, str]]
    sockets: frozenset[str]
    children: frozenset[str]
    files: frozenset[str]

    @classmethod
    def now(cls, *folders: Path) -> Holdings:
        """What it holds now.

        Args:
            *folders: Directories to watch.
        """
        gc.collect()
        return cls(
            trio.lowlevel.current_statistics().tasks_living,
            # Trio keeps threads for the next that needs one; they end by themselves.
            frozenset(each.name for each in threading.enumerate() if not each.name.startswith(("trio", "Trio"))),
            _descriptors(),
            _sockets(folders),
            _children(),
            frozenset(str(path) for folder in folders for path in folder.rglob("*") if not path.is_dir()),
        )

    def beyond(self, before: Holdings) -> dict[str, object]:
        """What there is now that there was not before."""
        found: dict[str, object] = {}
        if self.tasks > before.tasks:
            found["tasks"] = self.tasks - before.tasks
        for field in dataclasses.fields(self)[1:]:
            if more := getattr(self, field.name) - getattr(before, field.name):
                found[field.name] = sorted(more)
        return found


def _descriptors() -> frozenset[tuple[str, str]]:
    found = set()
    for number in os.listdir("/proc/self/fd") if _HAS_PROC else ():
        with contextlib.suppress(FileNotFoundError):  # of the directory that was just read
            found.add((number, os.readlink(f"/proc/self/fd/{number}")))
    return frozenset(found)


def _sockets(folders: tuple[Path, ...]) -> frozenset[str]:
    if not _HAS_PROC:
        return frozenset()
    lines = Path("/proc/net/unix").read_text("utf-8", "surrogateescape").splitlines()[1:]
    names = {line.split(maxsplit=7)[7] for line in lines if len(line.split(maxsplit=7)) > 7}
    return frozenset(name for name in names if any(name.startswith(f"{folder}/") for folder in folders))


def _children() -> frozenset[str]:
    found: set[str] = set()
    for task in Path("/proc/self/task").glob("*/children") if _HAS_PROC else ():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found |= set(task.read_text().split())
    return frozenset(found)


def resident_size() -> int:
    """How much memory this process has, in bytes; 0 where the system does not tell."""
    if not _HAS_PROC:
        return 0
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class LeakGate:
    """Made by `leak_gate`."""

    def __init__(self) -> None:
        self._size: int | None = None

    def warmed_up(self) -> None:
        """From here on memory must not grow by more than a tenth: what is made once has been made."""
        self._size = resident_size()

    def check_memory(self) -> None:
        """Compare with what there was when it was warm.

        Raises:
            AssertionError: There is too much more.
        """
        if self._size is None:
            return
        grown = resident_size() - self._size
        assert grown <= max(self._size // 10, _SMALL), (
            f"the memory of the process grew by {grown:,} bytes over {self._size:,}"
        )


@contextlib.asynccontextmanager
async def leak_gate(*folders: Path) -> AsyncIterator[LeakGate]:
    """A block that leaves nothing behind: tasks, threads, descriptors, sockets, children, files.

    Args:
        *folders: Directories in which no file may be left.

    Raises:
        AssertionError: Something is left, and what.
    """
    # Loaded and opened once, whoever needs it first.
    await trio.to_thread.run_sync(lambda: None)
    before = Holdings.now(*folders)
    gate = LeakGate()
    yield gate
    with trio.move_on_after(_PATIENCE):
        while Holdings.now(*folders).beyond(before):  # noqa: ASYNC110 - the kernel sets no event
            await trio.sleep(0.02)
    left = Holdings.now(*folders).beyond(before)
    assert not left, f"this was left behind: {left}"
    gate.check_memory()
