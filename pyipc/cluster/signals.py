"""Signals by number, and how a process ended, in words."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pyipc.cluster.process import WorkerProcess

__all__ = ["SIGKILL", "exit_text", "signal_number"]

#: There is none on Windows, and this is the number that it has elsewhere.
SIGKILL: Final = 9


def signal_number(number: Any) -> int:
    """A signal as a number.

    Raises:
        ValueError: There is no such signal.
    """
    try:
        # Windows knows few signals by name, and ends a process whichever it is.
        return int(number) if sys.platform == "win32" else signal.Signals(number)
    except (TypeError, ValueError):
        raise ValueError(f"there is no signal {number!r}; give its number, such as signal.SIGTERM") from None


def exit_text(process: WorkerProcess) -> str:
    """How a process ended, for people."""
    if process.signal is not None:
        try:
            name = "SIGKILL" if process.signal == SIGKILL else signal.Signals(process.signal).name
        except ValueError:
            name = f"signal {process.signal}"
        how = f"was ended by {name}"
    elif process.code is not None:
        how = f"ended with code {process.code}"
    else:
        return process.failure or "has ended"
    return f"{how}: {process.failure}" if process.failure else how
