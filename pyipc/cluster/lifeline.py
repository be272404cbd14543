"""The lifeline of a worker: a pipe whose other end only its primary has.

However the primary ends, the system closes that end. A thread waits for it, since the worker's event loop may be busy,
or hang; PDEATHSIG would come with the end of the thread that started the worker, which need not be the primary's.

It is watched from when a program joins its cluster. One that never does, and one that was stopped, is not ended by it.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ORPHANED", "ORPHAN_TIMEOUT", "watch_lifeline"]

#: Seconds that a worker whose primary is gone may take to end in order.
ORPHAN_TIMEOUT: Final = 5.0
#: The exit code of one that took longer.
ORPHANED: Final = 70


def watch_lifeline(descriptor: int, orphaned: Callable[[], None], *, timeout: float = ORPHAN_TIMEOUT) -> None:
    """Start the thread.

    Args:
        descriptor: The end to read; it belongs to the thread from here on.
        orphaned: Called by the thread when the primary is gone. It must not raise.
        timeout: Seconds after which this process ends in any case.
    """
    os.set_inheritable(descriptor, False)
    thread = threading.Thread(target=_watch, args=(descriptor, orphaned, timeout), name="pyipc-lifeline", daemon=True)
    thread.start()


def _watch(descriptor: int, orphaned: Callable[[], None], timeout: float) -> None:
    while os.read(descriptor, 1):
        pass  # nothing is ever written to it
    orphaned()
    time.sleep(timeout)
    os._exit(ORPHANED)
