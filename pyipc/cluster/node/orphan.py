"""No worker outlives the Node primary that it belongs to, not even one whose event loop is busy, or hangs.

However the primary ends, the system closes its end of the channel. A thread waits for that.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from pyipc.cluster.lifeline import ORPHAN_TIMEOUT, ORPHANED

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["no_orphan"]


@contextmanager
def no_orphan(sock: socket.socket) -> Iterator[None]:
    """Within the block this process ends at the latest a while after its primary has.

    Args:
        sock: This end of the channel.
    """
    copy, over = sock.dup(), threading.Event()
    threading.Thread(target=_watch, args=(copy, over), name="pyipc-lifeline", daemon=True).start()
    try:
        yield
    finally:
        over.set()
        with suppress(OSError):
            copy.shutdown(socket.SHUT_RDWR)  # which wakes the thread


def _watch(copy: socket.socket, over: threading.Event) -> None:
    poller = select.poll()
    poller.register(copy, 0)  # of a hang-up is told in any case
    poller.poll()
    copy.close()
    if not over.wait(ORPHAN_TIMEOUT):
        os._exit(ORPHANED)
