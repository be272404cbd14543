"""Socket files that nobody else can put in our way, and that never get in anybody's way.

Owns the rules for the directory of a socket, for its lock file and for what may be removed.
Must not know trio or addresses: everything here is a handful of calls on the file system, none of
which waits.

The rules:

* The directory is opened once, without following a symbolic link, and judged by its descriptor;
  from then on everything happens relative to that descriptor. (Binding has no such form; that it
  happened in the same directory is verified afterwards.)
* Whoever holds the lock on ``<name>.lock`` has the path, and holds it for life. The lock file is
  only removed while it is locked, so having locked it proves something only if it is still the
  file at its path: that is compared after locking.
* With the lock in hand, a socket at the path belongs to a dead server or to one that knows
  nothing of locks (any node-ipc program). A connection tells which. Only a dead socket of our own
  user is removed; everything else stays untouched.
* On closing, what is removed is the very socket that was bound, never what took its place.

One thing cannot be told: on systems other than Linux a connection is refused also by a live server
whose backlog is full. Servers with a lock are never mistaken for dead by this, others might be.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import stat
import sys
from typing import Final

from pyipc.errors import AddressError, AddressInUse, ListenError, UnsafePath

__all__ = [
    "PathClaim",
    "check_length",
    "default_directories",
    "open_private_directory",
    "open_socket_directory",
    "socket_is_live",
]

logger: logging.Logger = logging.getLogger("pyipc.transports")

#: Bytes of a path in ``struct sockaddr_un``, without the zero at the end: 107 on Linux; macOS and
#: the BSDs have four less.
_LINUX_LIMIT: Final = 107
_BSD_LIMIT: Final = 103

#: ``confstr`` parameter of macOS, <unistd.h>; Python has no name for it.
_CS_DARWIN_USER_TEMP_DIR: Final = 65537

#: How often a lock file may vanish while we lock it. Each time somebody else had it and is done.
_LOCK_ATTEMPTS: Final = 100

_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_WRITABLE_BY_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH


def default_directories(uid: int, platform: str = sys.platform) -> tuple[str, ...]:
    """Where the sockets of bare names are, best place first. Derived from the user id, never from the environment.

    Args:
        uid: The user.
        platform: The operating system, as in ``sys.platform``.
    """
    fallback = f"/tmp/pyipc-{uid}"
    if platform == "darwin":
        temporary = os.confstr(_CS_DARWIN_USER_TEMP_DIR)  # type: ignore[arg-type,unused-ignore]  # takes numbers as well
        return (os.path.join(temporary, "pyipc"),) if temporary else (fallback,)
    return (f"/run/user/{uid}/pyipc", fallback)


def check_length(path: str, platform: str = sys.platform) -> None:
    """Refuse a path that the operating system cannot take as the address of a socket.

    Args:
        path: A path, or the name of an abstract socket with its ``@``, which counts for one byte as the
            zero in its place does.
        platform: The operating system, as in ``sys.platform``.

    Raises:
        AddressError: The message says how many bytes there are and how many there may be.
    """
    size = len(os.fsencode(path))
    limit = _LINUX_LIMIT if platform == "linux" else _BSD_LIMIT
    if size > limit:
        raise AddressError(
            f"the socket path {path!r} takes {size} bytes and this system allows {limit}; "
            "use a shorter name or a directory nearer to the root"
        )


def open_private_directory(path: str, *, create: bool) -> int:
    """Open a directory that must be ours alone: owned by us, mode 0700, no symbolic link.

    Args:
        path: The directory. The one above it must be safe from others, as for `open_socket_directory`.
        create: Whether to make the directory if it is missing.

    Returns:
        A descriptor of the directory; the caller closes it.

    Raises:
        UnsafePath: The directory, or the one above it, is not safely ours.
        OSError: It is missing, or cannot be made or opened.
    """
    above, name = os.path.split(path)
    # Links above are followed: they lead where root wants (/tmp is one on macOS), and the
    # directory they lead to is judged.
    parent = os.open(above, _directory_flags())
    try:
        _refuse_shared(above, os.fstat(parent))
        if create:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=parent)
        directory = _open_directory(path, name, parent)
    finally:
        os.close(parent)
    try:
        info = os.fstat(directory)
        if info.st_uid != os.geteuid():
            raise UnsafePath(
                f"the directory {path!r} belongs to user {info.st_uid} and not to us ({os.geteuid()}); "
                "it is not used, since whoever owns it could pose as the server"
            )
        if info.st_mode & _OTHERS:
            raise UnsafePath(
                f"the directory {path!r} is open to other users (mode {stat.S_IMODE(info.st_mode):04o}); "
                "make sure that nothing strange is in it, then take their rights away with chmod 700"
            )
    except BaseException:
        os.close(directory)
        raise
    return directory


def open_socket_directory(path: str) -> int:
    """Open the directory of an explicit path: owned by us or root, and others cannot replace files in it.

    Args:
        path: The directory; it is never made here.

    Returns:
        A descriptor of the directory; the caller closes it.

    Raises:
        UnsafePath: Others could replace a socket in it, or it is a symbolic link.
        ListenError: It is missing or cannot be opened.
    """
    try:
        directory = _open_directory(path, path, None)
    except OSError as error:
        raise ListenError(_why(error, path)) from error
    try:
        _refuse_shared(path, os.fstat(directory))
    except BaseException:
        os.close(directory)
        raise
    return directory


def socket_is_live(path: str) -> bool:
    """Whether somebody listens on the socket at ``path``, found out by connecting to it.

    Args:
        path: Where the socket is.

    Raises:
        OSError: That cannot be told: it is no stream socket, or we may not connect to it.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fsencode(path))
        except BlockingIOError:
            # Somebody is so busy that the backlog is full.
            return True
        except (ConnectionRefusedError, FileNotFoundError):
            return False
    return True


class PathClaim:
    """The sole right to the path of a socket, from locking it until `release`.

    Args:
        path: Where the socket is to be.
        directory: A descriptor of the verified directory of ``path``; the claim owns it from here
            on, also if it cannot be made.

    Raises:
        AddressInUse: A live server has the path. Nothing was changed.
        UnsafePath: What is at the path, or at that of the lock file, is none of ours to remove. It
            was left untouched.
        ListenError: The directory cannot be written, or has no locks.
    """

    __slots__ = ("_bound", "_directory", "_lock", "_lock_name", "_name", "_process", "path")

    def __init__(self, path: str, directory: int) -> None:
        self.path: str = path
        self._name = os.path.basename(path)
        self._lock_name = f"{self._name}.lock"
        self._directory = directory
        self._lock = -1
        self._bound: tuple[int, int] | None = None
        # A fork has a copy of this object and must not clean up after its parent.
        self._process = os.getpid()
        try:
            if self._name in ("", ".", ".."):
                raise AddressError(f"the socket path {path!r} does not end with the name of a file; add one")
            self._take_lock()
            self._clear_the_way()
        except BaseException:
            self.release()
            raise

    def __repr__(self) -> str:
        state = "released" if self._directory < 0 else "held" if self._bound is None else "bound"
        return f"<PathClaim of {self.path!r}, {state}>"

    def bind(self, sock: socket.socket, *, mode: int, gid: int | None = None) -> None:
        """Bind ``sock`` to the path and give it its mode and group.

        Nobody can connect before ``sock.listen()`` is called, so there is no moment in which a mode
        that is too wide would matter.

        Args:
            sock: An unbound Unix domain stream socket.
            mode: Permission bits; whoever may write may connect.
            gid: The group to give it to; ``None`` leaves it as the system decides.

        Raises:
            AddressInUse: Somebody who knows nothing of locks was faster.
            UnsafePath: The directory was exchanged meanwhile.
            ListenError: The operating system refuses.
        """
        try:
            sock.bind(os.fsencode(self.path))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise AddressInUse(f"{self.path!r} was taken by another program just now; try again") from error
            raise ListenError(_why(error, self.path)) from error
        info = self._look(self._name)
        if info is None or not stat.S_ISSOCK(info.st_mode) or info.st_uid != os.geteuid():
            raise UnsafePath(f"the directory of {self.path!r} was exchanged while its socket was made; look who did it")
        self._bound = _identity(info)
        try:
            if gid is not None:
                os.chown(self._name, -1, gid, dir_fd=self._directory, follow_symlinks=False)
            os.chmod(self._name, mode, dir_fd=self._directory)
        except OSError as error:
            wanted = f"mode {mode:04o}" if gid is None else f"group {gid} and mode {mode:04o}"
            raise ListenError(
                f"the socket {self.path!r} cannot be given {wanted}: {error.strerror}; "
                "a user can give files to groups of which it is a member"
            ) from error

    def release(self) -> None:
        """Remove the socket, if it is still ours, and the lock file, then let go. At once, more than once.

        Call it while the bound socket is open: after that its inode number may belong to another file.
        """
        directory, self._directory = self._directory, -1
        lock, self._lock = self._lock, -1
        if directory < 0:
            return
        try:
            if lock >= 0 and self._process == os.getpid():
                if self._bound is not None:
                    _remove(self._name, self._bound, directory)
                _remove(self._lock_name, _identity(os.fstat(lock)), directory)
        except OSError as error:
            # What is left behind is dead, and the next server clears it away or says what is wrong.
            logger.warning("cannot remove the socket %s: %s", self.path, error)
        finally:
            if lock >= 0:
                os.close(lock)
            os.close(directory)

    def _take_lock(self) -> None:
        import fcntl  # not on Windows

        for _ in range(_LOCK_ATTEMPTS):
            lock = self._open_lock()
            try:
                info = os.fstat(lock)
                if not stat.S_ISREG(info.st_mode) or info.st_uid != os.geteuid() or info.st_size > 0:
                    # Locks of ours are empty; anything else is somebody's work, such as poetry.lock.
                    raise self._foreign(self._lock_name, info)
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                now = self._look(self._lock_name)
            except BlockingIOError:
                os.close(lock)
                raise AddressInUse(
                    f"another server holds {self.path!r}; stop it, or listen on another address"
                ) from None
            except OSError as error:
                os.close(lock)
                raise ListenError(f"the lock file of {self.path!r} cannot be locked: {error.strerror}") from error
            except BaseException:
                os.close(lock)
                raise
            if now is not None and _identity(now) == _identity(info):
                self._lock = lock
                return
            # The one who had it removed it before letting go: what we locked is no longer the lock.
            os.close(lock)
        raise AddressInUse(f"the lock file of {self.path!r} changes hands all the time; too many servers want it")

    def _open_lock(self) -> int:
        # Not blocking, because at its place may be a FIFO.
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            return os.open(self._lock_name, flags, 0o600, dir_fd=self._directory)
        except OSError as error:
            info = self._look(self._lock_name)
            if info is not None and (not stat.S_ISREG(info.st_mode) or info.st_uid != os.geteuid()):
                raise self._foreign(self._lock_name, info) from error
            raise ListenError(_why(error, os.path.join(os.path.dirname(self.path), self._lock_name))) from error

    def _clear_the_way(self) -> None:
        """Remove a dead socket of ours; refuse everything else that is at the path."""
        info = self._look(self._name)
        if info is None:
            return
        if not stat.S_ISSOCK(info.st_mode) or info.st_uid != os.geteuid():
            raise self._foreign(self._name, info)
        try:
            live = socket_is_live(self.path)
        except OSError as error:
            raise AddressInUse(
                f"there is a socket at {self.path!r} and it cannot be told whether anybody uses it "
                f"({error.strerror}); remove it if nobody does"
            ) from error
        if live:
            raise AddressInUse(f"another program listens on {self.path!r}; stop it, or listen on another address")
        try:
            # Again, because programs that know nothing of locks may have put theirs there meanwhile.
            _remove(self._name, _identity(info), self._directory)
        except OSError as error:
            raise ListenError(f"the dead socket at {self.path!r} cannot be removed: {error.strerror}") from error

    def _look(self, name: str) -> os.stat_result | None:
        try:
            return os.stat(name, dir_fd=self._directory, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def _foreign(self, name: str, info: os.stat_result) -> UnsafePath:
        path = os.path.join(os.path.dirname(self.path), name)
        what = f"is {_kind(info.st_mode)}" if info.st_uid == os.geteuid() else f"belongs to user {info.st_uid}"
        return UnsafePath(f"{path!r} {what} and was left untouched; remove it, or listen on another address")


def _directory_flags() -> int:
    # O_PATH, where it exists, does not ask for the right to list the directory, which is not needed.
    return os.O_DIRECTORY | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)


def _open_directory(path: str, name: str, parent: int | None) -> int:
    try:
        return os.open(name, _directory_flags() | os.O_NOFOLLOW, dir_fd=parent)
    except OSError as error:
        # Systems report a link in different ways, as ELOOP, EMLINK or ENOTDIR.
        if os.path.islink(path):
            raise UnsafePath(
                f"the directory {path!r} is a symbolic link, which somebody may turn elsewhere; "
                f"use {os.path.realpath(path)!r} if that is what you mean"
            ) from error
        raise


def _refuse_shared(path: str, info: os.stat_result) -> None:
    """Refuse a directory in which somebody other than us and root could replace our files."""
    if info.st_uid not in (os.geteuid(), 0):
        raise UnsafePath(
            f"the directory {path!r} belongs to user {info.st_uid}, who could replace sockets in it; "
            "use a directory of your own"
        )
    if info.st_mode & _WRITABLE_BY_OTHERS and not info.st_mode & stat.S_ISVTX:
        raise UnsafePath(
            f"other users may write to the directory {path!r} (mode {stat.S_IMODE(info.st_mode):04o}) and could "
            "replace sockets in it; take that right away with chmod go-w, or use another directory"
        )


def _remove(name: str, identity: tuple[int, int], directory: int) -> None:
    """Remove a file if it is still the one that is meant."""
    try:
        if _identity(os.stat(name, dir_fd=directory, follow_symlinks=False)) == identity:
            os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return


def _identity(info: os.stat_result) -> tuple[int, int]:
    return info.st_dev, info.st_ino


def _kind(mode: int) -> str:
    if stat.S_ISLNK(mode):
        return "a symbolic link"
    if stat.S_ISDIR(mode):
        return "a directory"
    if stat.S_ISREG(mode):
        return "a regular file"
    return "a socket" if stat.S_ISSOCK(mode) else "a device or a pipe"


def _why(error: OSError, path: str) -> str:
    """The sentence for an error of the file system that kept us from using ``path``."""
    directory = os.path.dirname(path)
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR:
            return f"{path!r} cannot be used: its directory is missing or takes no files; make it, with mode 0700"
        case errno.EACCES | errno.EPERM | errno.EROFS:
            reason = f"{directory!r} cannot be written ({error.strerror})"
            return f"{path!r} cannot be used: {reason}; give us the right, or use another directory"
    return f"{path!r} cannot be used: {error.strerror}; use another path"
