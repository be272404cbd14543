"""Processes that are not children of this one, as the workers of another are: whether they have ended."""

from __future__ import annotations

import ctypes
import os
import select
import sys
import time
from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Watched"]

_SYNCHRONIZE = 0x10_0000


class Watched:
    """A process that is there now; its id may be that of another after its end, which is not confused.

    Args:
        pid: Its id.
    """

    def __init__(self, pid: int) -> None:
        self.has_ended: Callable[[], bool] = _on_windows(pid) if sys.platform == "win32" else _on_posix(pid)

    async def wait(self, timeout: float) -> bool:
        """Wait until it has ended; whether it has, in time."""
        deadline = time.monotonic() + timeout
        while not self.has_ended() and time.monotonic() < deadline:  # noqa: ASYNC110 - no system has an event for all
            await trio.sleep(0.02)
        return self.has_ended()


def _on_windows(pid: int) -> Callable[[], bool]:
    library: Any = ctypes
    kernel = library.WinDLL("kernel32", use_last_error=True)
    kernel.OpenProcess.restype = ctypes.c_void_p
    kernel.WaitForSingleObject.argtypes = [ctypes.c_void_p, ctypes.c_ulong]
    handle = kernel.OpenProcess(_SYNCHRONIZE, False, pid)
    assert handle, f"there is no process {pid}"
    return lambda: kernel.WaitForSingleObject(handle, 0) == 0


def _on_posix(pid: int) -> Callable[[], bool]:
    if hasattr(os, "pidfd_open"):
        descriptor = os.pidfd_open(pid)
        return lambda: bool(select.select([descriptor], [], [], 0)[0])

    def has_ended() -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return False

    return has_ended
