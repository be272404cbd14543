"""Who is on the other side of a Unix domain socket, in the words of the kernel.

Owns the layouts of the kernels' structures and nothing else: whether that somebody may talk to us
is decided above. Every way of not knowing is an `OSError`, so that nobody is let in by a lookup
that failed.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from typing import Final

__all__ = ["overflow_uid", "peer_credentials"]

#: Linux ``struct ucred``: pid_t, uid_t, gid_t.
_UCRED: Final = struct.Struct("=iII")

# macOS, <sys/un.h> and <sys/ucred.h>; Python has no names for these.
_SOL_LOCAL: Final = 0
_LOCAL_PEERCRED: Final = 1
_LOCAL_PEERPID: Final = 2
_XUCRED_VERSION: Final = 0
#: ``struct xucred``: version, uid, number of groups (padded to four bytes), sixteen groups.
_XUCRED: Final = struct.Struct("=IIh2x16I")
_PID: Final = struct.Struct("=i")

#: ``(uid_t) -1``: no user. Linux reports it for a socket that was never connected.
_NOBODY: Final = 0xFFFF_FFFF

_OVERFLOW_UID_FILE: Final = "/proc/sys/kernel/overflowuid"
_OVERFLOW_UID: Final = 65534


def peer_credentials(sock: socket.socket, *, platform: str = sys.platform) -> tuple[int, int, int]:
    """Ask the kernel who connected, or who listened.

    The answer was fixed when the connection was made, or on the server's side when it began to
    listen; a peer that changes its user or passes the socket on does not change it.

    Args:
        sock: A connected Unix domain stream socket.
        platform: The operating system, as in ``sys.platform``.

    Returns:
        Process id, user id and group id. Ids of processes are reused: never authorize by them.

    Raises:
        OSError: The kernel does not say, or says something that cannot be trusted. Treat it as a refusal.
    """
    if platform == "linux":
        pid, uid, gid = _UCRED.unpack(_option(sock, socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED))
    elif platform == "darwin":
        version, uid, groups, gid, *_ = _XUCRED.unpack(_option(sock, _SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED))
        if version != _XUCRED_VERSION or groups < 1:
            raise OSError(errno.EPROTO, "the kernel reports the peer's credentials in an unknown form")
        (pid,) = _PID.unpack(_option(sock, _SOL_LOCAL, _LOCAL_PEERPID, _PID))
    else:
        raise OSError(errno.EOPNOTSUPP, f"pyipc cannot ask for the credentials of a peer on {platform!r}")
    if uid == _NOBODY:
        raise OSError(errno.ENOTCONN, "the kernel knows no peer of this socket")
    return pid, uid, gid


def overflow_uid() -> int:
    """The user id that stands for every user which has no id in our user namespace.

    Many different users share it, so nobody may be admitted by it. 65534 unless the system says otherwise.
    """
    try:
        with open(_OVERFLOW_UID_FILE, encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return _OVERFLOW_UID


def _option(sock: socket.socket, level: int, option: int, layout: struct.Struct) -> bytes:
    value = sock.getsockopt(level, option, layout.size)
    if len(value) != layout.size:
        raise OSError(errno.EPROTO, "the kernel reports the peer's credentials in an unknown form")
    return value
