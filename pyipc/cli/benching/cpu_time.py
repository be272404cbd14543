"""How much work of the processor a process has had."""

from __future__ import annotations

import os
import time

__all__ = ["cpu_seconds"]


def cpu_seconds(pid: int | None) -> float | None:
    """Seconds of processor time that a process has used so far, in user mode and in the kernel.

    Args:
        pid: Its process id.

    Returns:
        The time, in steps of the kernel's clock tick for other processes; ``None`` if it is not known.
    """
    if pid == os.getpid():
        return time.process_time()
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name of the program is in parentheses and may contain any character.
            fields = file.read().rpartition(b")")[2].split()
        ticks = os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError):
        return None
    return (int(fields[11]) + int(fields[12])) / ticks
