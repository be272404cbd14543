"""Who this process is."""

from __future__ import annotations

import functools
import os
import sys

from pyipc.transports.credentials import overflow_uid as _overflow_uid

__all__ = ["AGENT", "overflow_uid", "own_sid", "own_uid"]

#: What this side calls itself in hello and welcome.
AGENT = f"pyipc (Python {sys.version_info.major}.{sys.version_info.minor})"


def own_uid() -> int | None:
    """The user this process runs as; ``None`` on Windows."""
    return os.geteuid() if hasattr(os, "geteuid") else None


@functools.cache
def own_sid() -> str | None:
    """The Windows user this process runs as; ``None`` on other systems."""
    if sys.platform != "win32":
        return None
    from pyipc.transports.windows_api import WindowsApi

    return WindowsApi().own_sid()


@functools.cache
def overflow_uid() -> int:
    """The user id by which the kernel shows users that it cannot map into this namespace."""
    return _overflow_uid()
