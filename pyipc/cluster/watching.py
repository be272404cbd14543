"""Watching source files, for whoever wants a reload when they change."""

from __future__ import annotations

import fnmatch
import os
import threading
from typing import TYPE_CHECKING, Any

import trio

from pyipc.cluster.errors import ClusterError
from pyipc.cluster.settings import NODE_SUFFIXES, is_node_program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["SourceFiles"]

# Milliseconds without a change after which those before it are taken for one, and how many they may last: an editor
# writes a file in several steps, and a tool of version control many files.
_QUIET = 200
_AT_MOST = 2_000
# How often, in milliseconds, the thread says that nothing has happened. The first time shows that it watches.
_SIGN_OF_LIFE = 250


class SourceFiles:
    """The source files below some directories. Those of version control, caches and environments are left out.

    Args:
        directories: Where; by default the present directory.
        include: Patterns of their names, as in a shell; by default those of the target's language, ``*.py``, or
            ``*.js``, ``*.cjs`` and ``*.mjs``.
        target: What workers run; see `Cluster`.

    Raises:
        ClusterError: A directory is not there, or the package that watches is missing.
    """

    def __init__(
        self, directories: Sequence[str] = (), include: Sequence[str] = (), *, target: str | None = None
    ) -> None:
        self.directories: tuple[str, ...] = tuple(directories) or (".",)
        suffixes = NODE_SUFFIXES if is_node_program(target) else (".py",)
        self.include: tuple[str, ...] = tuple(include) or tuple(f"*{suffix}" for suffix in suffixes)
        for directory in self.directories:
            if not os.path.isdir(directory):
                raise ClusterError(f"{directory!r} is no directory whose files could be watched")
        try:
            import watchfiles
        except ImportError:
            raise ClusterError(
                "watching source files takes the package watchfiles; install it with pip install 'pyipc-sockets[watch]'"
            ) from None
        self._is_no_litter = watchfiles.DefaultFilter()
        self._watch: Callable[..., Iterator[set[Any]]] = watchfiles.watch

    def __str__(self) -> str:
        return f"{', '.join(self.include)} in {', '.join(self.directories)}"

    def matches(self, change: Any, path: str) -> bool:
        """Whether a change of this file counts."""
        name = os.path.basename(path)
        return any(fnmatch.fnmatch(name, each) for each in self.include) and self._is_no_litter(change, path)

    async def watch(
        self,
        changed: Callable[[list[str]], object],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Call a plain function with the paths of what has changed, whenever something has, until cancelled.

        Started once changes are noticed.

        Raises:
            ClusterError: The system does not let the files be watched.

        Cancellation: at once; the thread that watches ends soon after.
        """
        stop = threading.Event()
        found = self._watch(
            *self.directories,
            watch_filter=self.matches,
            debounce=_AT_MOST,
            step=_QUIET,
            stop_event=stop,
            rust_timeout=_SIGN_OF_LIFE,
            yield_on_timeout=True,
            raise_interrupt=False,
            ignore_permission_denied=True,
        )
        is_started = False
        try:
            while True:
                # Not watchfiles' own `awatch`: cancelled, it would wait for the thread, which takes seconds.
                changes = await trio.to_thread.run_sync(next, found, abandon_on_cancel=True)
                if not is_started:
                    is_started = True
                    task_status.started()
                if changes:
                    changed(sorted({_shown(path) for _, path in changes}))
        except OSError as error:
            raise ClusterError(f"the source files cannot be watched: {error}") from error
        finally:
            stop.set()


def _shown(path: str) -> str:
    """A path for people: as seen from here."""
    return os.path.relpath(path)
