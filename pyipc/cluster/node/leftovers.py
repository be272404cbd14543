"""Sockets that a Node program which was killed has left: Node does not listen on a path while there is one.

Only Node itself can listen for its workers, so none of them can take the path first, as a server of pyipc does.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import time
from typing import Final

import trio

__all__ = ["remove_dead_socket"]

# Seconds that a socket must have been there to count as dead: Node may have made it just now, and be about to listen.
_YOUTH: Final = 1.0
# Seconds to wait for another worker that looks at the same directory.
_PATIENCE: Final = 2 * _YOUTH
_PAUSE: Final = 0.005


async def remove_dead_socket(path: str) -> None:
    """Remove a socket of this user on which nobody listens any more.

    Two workers that find one at once must not remove what Node has put in its place between them: so one of them looks
    at a time. Node itself puts nothing there before it is removed.

    Cancellation: nothing was removed.
    """
    import fcntl

    try:
        directory = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        await trio.lowlevel.checkpoint()
        return  # Node will say what is wrong with it
    try:
        with trio.move_on_after(_PATIENCE):
            while True:
                await trio.lowlevel.checkpoint()
                try:
                    fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    await trio.sleep(_PAUSE)
                    continue
                while (youth := _youth_of_dead(path)) is not None:
                    if youth == 0:
                        with contextlib.suppress(OSError):
                            os.unlink(path)
                        break
                    await trio.sleep(youth)
                return
    finally:
        os.close(directory)


def _youth_of_dead(path: str) -> float | None:
    """How many seconds are left until a socket on which nobody listens is old; ``None`` if there is none."""
    try:
        info = os.lstat(path)
    except OSError:
        return None
    if not stat.S_ISSOCK(info.st_mode) or info.st_uid != os.geteuid():
        return None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        if sock.connect_ex(path) != errno.ECONNREFUSED:
            return None
    age = time.time() - info.st_ctime
    return min(max(_YOUTH - age, 0.0), _YOUTH)
