"""One instance of a named pipe, on its way from the process that accepted it to the one that serves it.

Owns the handle meanwhile. Must not know how a pipe is read: trio can wait for a file in one process only, once in the
life of the file, so nothing of that may happen before it has arrived.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyipc.transports.windows_api import WindowsApi

__all__ = ["PipeInstance"]


class PipeInstance:
    """The server's end of a pipe with a client, as `Claim.accept` returns it on Windows.

    Args:
        handle: Its number in this process, such as `duplicate_into` returned in another one; the object owns it.
        windows: The calls of Windows; by default those of this system.

    Attributes:
        on_close: Is called once it was closed, here or by the link that is made of it.

    Raises:
        OSError: This system is not Windows.
    """

    __slots__ = ("_handle", "_windows", "on_close")

    def __init__(self, handle: int, *, windows: WindowsApi | None = None) -> None:
        if windows is None:
            windows = _calls()
        self._windows = windows
        self._handle = handle
        self.on_close: Callable[[], None] | None = None

    def __repr__(self) -> str:
        return f"<PipeInstance, {'closed' if self._handle < 0 else f'handle {self._handle}'}>"

    @property
    def handle(self) -> int:
        """Its number in this process; -1 once it was closed or detached."""
        return self._handle

    def duplicate_into(self, pid: int) -> int:
        """Give another process a handle of the same instance. This one stays open, and is closed by its owner.

        Args:
            pid: The process, which must run as this user.

        Returns:
            The number of the handle there. Unless it is told, nobody ever closes it before that process ends.

        Raises:
            OSError: There is no such process, or it cannot be given handles.
        """
        return self._windows.duplicate_handle(self._handle, pid)

    def detach(self) -> int:
        """Give the handle away; returns its number."""
        handle, self._handle = self._handle, -1
        return handle

    def close(self) -> None:
        """Close the handle, if it is still here. The client finds its pipe closed once nobody else has one."""
        handle = self.detach()
        if handle >= 0:
            self._windows.close_handle(handle)
            if self.on_close is not None:
                self.on_close()


@functools.cache
def _calls() -> WindowsApi:
    from pyipc.transports.windows_api import WindowsApi  # brings ctypes along

    return WindowsApi()
