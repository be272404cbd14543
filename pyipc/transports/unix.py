"""The transport of Unix domain sockets: bare names, ``unix:`` and ``node-ipc:``.

Owns what the addresses mean on this system and how their sockets are reached, bound and
identified. Must not know who may talk: it reports what the kernel says about a peer, and only
turns away whom the kernel says nothing about. What is safe to bind is for `safe_paths`.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import socket
import sys
from typing import TYPE_CHECKING, Final

import trio

from pyipc.errors import AddressError, AddressInUse, ConnectError, ListenError, UnsafePath
from pyipc.transports.claims import ClaimListener, SocketClaim, socket_adopter
from pyipc.transports.credentials import peer_credentials
from pyipc.transports.port import Peer, Place, Transport
from pyipc.transports.safe_paths import (
    PathClaim,
    check_length,
    default_directories,
    open_private_directory,
    open_socket_directory,
    socket_is_live,
)
from pyipc.transports.sockets import BACKLOG, SHORTAGE, SocketLink, refuse_unknown_options

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pyipc.protocol.addresses import Address
    from pyipc.transports.port import Carrier, Link, Listener

__all__ = ["UnixTransport", "unix_link"]

#: Seconds between attempts to connect to a server whose backlog is full: the first and the longest.
_FIRST_PAUSE: Final = 0.005
_LONGEST_PAUSE: Final = 0.1

_DEFAULT_MODE: Final = 0o600
_DEFAULT_MODE_WITH_GROUP: Final = 0o660


class UnixTransport(Transport):
    """Reaches and listens on Unix domain sockets.

    Args:
        directories: Where the sockets of bare names are, best place first; by default the places
            that belong to the user this process runs as.
        platform: The operating system, as in ``sys.platform``.
    """

    def __init__(self, *, directories: Sequence[str] | None = None, platform: str = sys.platform) -> None:
        self._directories = directories
        self._platform = platform

    async def connect(self, address: Address, options: Mapping[str, object]) -> Link:
        """Connect to the server of ``address``; for a bare name, to the first found in the default directories.

        While the server's backlog is full this waits, until it is cancelled.

        Raises:
            ConnectError: Nobody listens; the message says where it was looked for.
            UnsafePath: Every default directory belongs, or is open, to somebody else.
            AddressError: The address cannot be used on this system.
            TypeError: An option does not exist.

        Cancellation: nothing stays open.
        """
        refuse_unknown_options(options, (), f"connecting to {address}")
        self._check(address)
        await trio.lowlevel.checkpoint()
        if address.scheme == "local":
            sock = await self._find(address)
        else:
            target = self._abstract_name(address) if _is_abstract(address) else self._explicit_path(address)
            try:
                sock = await _dial(target)
            except OSError as error:
                if error.errno in SHORTAGE:
                    raise ConnectError(f"cannot connect to {address}: {_reason(error)}") from error
                raise ConnectError(f"nobody listens on {address}: {_reason(error)}; start the server") from error
        try:
            return unix_link(sock, str(address), platform=self._platform)
        except OSError as error:
            sock.close()
            raise ConnectError(f"the server of {address} cannot be identified: {_reason(error)}") from error

    async def listen(self, address: Address, options: Mapping[str, object]) -> Listener:
        """Listen on ``address``; see `claim`.

        Raises:
            AddressInUse, UnsafePath, ListenError, AddressError, TypeError, ValueError: As `claim`.

        Cancellation: nothing stays open.
        """
        return ClaimListener(await self.claim(address, options), self.adopter(address, options))

    async def claim(self, address: Address, options: Mapping[str, object]) -> SocketClaim:
        """Take ``address``.

        Options: ``mode`` (permission bits of the socket, 0600 if not given, or 0660 with a group) and ``group``
        (name or id), for addresses with a path.

        Raises:
            AddressInUse: A live server has it.
            UnsafePath: The directory, the socket or its lock file is not safely ours.
            ListenError: The operating system refuses.
            AddressError: The address cannot be used on this system.
            TypeError, ValueError: An option does not exist, does not fit the address, or has a wrong value.

        Cancellation: nothing stays open.
        """
        refuse_unknown_options(options, ("mode", "group"), f"listening on {address}")
        self._check(address)
        mode, gid = _permissions(address, options)
        await trio.lowlevel.checkpoint()
        path: PathClaim | None = None
        with contextlib.ExitStack() as undo:
            # Last in, first out: the path is given back while the socket is still open.
            try:
                sock = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                if _is_abstract(address):
                    sock.bind(self._abstract_name(address))
                else:
                    path = self._claim_path(address)
                    undo.callback(path.release)
                    path.bind(sock, mode=mode, gid=gid)
                sock.listen(BACKLOG)
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    raise AddressInUse(f"another program listens on {address}; stop it, or use another name") from error
                raise ListenError(f"cannot listen on {address}: {_reason(error)}; use another name") from error
            undo.pop_all()
        return SocketClaim([sock], address, release=path.release if path is not None else None)

    def adopter(self, address: Address, options: Mapping[str, object]) -> Callable[[Carrier], Link]:
        """How links are made of sockets that were accepted on ``address``.

        Options: as `claim`; they do nothing here.

        Raises:
            AddressError: The address cannot be used on this system.
            TypeError: An option does not exist.
        """
        refuse_unknown_options(options, ("mode", "group"), f"listening on {address}")
        self._check(address)
        return socket_adopter(functools.partial(unix_link, address=str(address), platform=self._platform), address)

    def places(self, address: Address) -> Sequence[Place]:
        """The paths of the sockets that ``address`` stands for, in the order in which clients try them.

        Clients look for a bare name only where nothing is in the way of a server, either.

        Raises:
            AddressError: The address cannot be used on this system.
        """
        self._check(address)
        if _is_abstract(address):
            check_length(address.name, self._platform)
            return (Place(address.name),)
        if address.scheme == "local":
            return tuple(Place(path, _private_obstacle(os.path.dirname(path))) for path in self._candidates(address))
        path = self._explicit_path(address)
        return (Place(path, _obstacle(os.path.dirname(path))),)

    def _claim_path(self, address: Address) -> PathClaim:
        if address.scheme == "local":
            return self._claim_default(address)
        path = self._explicit_path(address)
        return PathClaim(path, open_socket_directory(os.path.dirname(path)))

    def _claim_default(self, address: Address) -> PathClaim:
        """Claim a bare name in the first default directory that is safe, or can be made so."""
        refused: list[str] = []
        unsafe: UnsafePath | None = None
        candidates = self._candidates(address)
        for place, path in enumerate(candidates):
            try:
                directory = open_private_directory(os.path.dirname(path), create=True)
            except UnsafePath as error:
                unsafe = error
                refused.append(str(error))
                continue
            except OSError as error:
                refused.append(f"{os.path.dirname(path)!r} cannot be used: {error.strerror}")
                continue
            claim = PathClaim(path, directory)
            try:
                # A server that started while a better directory was missing keeps its clients.
                for other in candidates[:place] + candidates[place + 1 :]:
                    if _is_live_elsewhere(other):
                        raise AddressInUse(f"another server listens on {other!r}; stop it, or use another name")
            except BaseException:
                claim.release()
                raise
            return claim
        text = f"no directory is safe for {address}: {'; '.join(refused)}; or use an explicit path, as in unix:/path"
        raise (UnsafePath(text) if unsafe is not None else ListenError(text)) from unsafe

    async def _find(self, address: Address) -> socket.socket:
        """Dial a bare name in all default directories that are safe."""
        tried: list[str] = []
        unsafe: list[UnsafePath] = []
        last: Exception | None = None
        for path in self._candidates(address):
            try:
                os.close(open_private_directory(os.path.dirname(path), create=False))
                return await _dial(path)
            except UnsafePath as error:
                unsafe.append(error)
                tried.append(str(error))
                last = error
            except OSError as error:
                tried.append(f"{path!r}: {_reason(error)}")
                last = last or error
        text = f"nobody listens on {address}; start the server. Looked for it at {'; '.join(tried)}"
        # Where a directory is only missing its server may yet come, so trying again makes sense.
        raise (UnsafePath(text) if len(unsafe) == len(tried) else ConnectError(text)) from last

    def _candidates(self, address: Address) -> list[str]:
        """The paths that a bare name stands for."""
        directories = self._directories
        if directories is None:
            directories = default_directories(os.geteuid(), self._platform)
        paths = [os.path.join(directory, address.name) for directory in directories]
        for path in paths:
            check_length(path, self._platform)
        return paths

    def _explicit_path(self, address: Address) -> str:
        if address.scheme == "node-ipc":
            # On macOS /tmp is a symbolic link, which is not followed here.
            path = f"{'/private' if self._platform == 'darwin' else ''}/tmp/app.{address.name}"
        else:
            path = address.name
        check_length(path, self._platform)
        return path

    def _abstract_name(self, address: Address) -> bytes:
        check_length(address.name, self._platform)
        return b"\0" + os.fsencode(address.name[1:])

    def _check(self, address: Address) -> None:
        """Refuse what this system does not have, and names that would lead out of their directory."""
        if self._platform == "win32" or not hasattr(socket, "AF_UNIX"):
            raise AddressError(
                f"{address} cannot be used here: this system has no Unix domain sockets; "
                "use pipe:name, or tcp://127.0.0.1:port"
            )
        if _is_abstract(address) and self._platform != "linux":
            raise AddressError(
                f"{address} cannot be used here: only Linux has abstract sockets; use a path or a bare name"
            )
        if address.scheme != "unix" and "/" in address.name:
            raise AddressError(f"{address} cannot be used: a name has no slash; write unix: in front of a path")


def unix_link(sock: socket.socket, address: str, platform: str = sys.platform) -> SocketLink:
    """Make a link of a connected Unix domain socket, with what the kernel knows about the peer.

    Args:
        sock: The socket. The link owns it, unless this fails.
        address: The address of the server, as text.
        platform: The operating system, as in ``sys.platform``.

    Raises:
        OSError: The kernel does not say who the peer is.
    """
    pid, uid, gid = peer_credentials(sock, platform=platform)
    return SocketLink(sock, Peer(address=address, pid=pid, uid=uid, gid=gid))


async def _dial(target: str | bytes) -> socket.socket:
    """Connect, waiting while the backlog of the server is full."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        pause = _FIRST_PAUSE
        while True:
            try:
                sock.connect(target if isinstance(target, bytes) else os.fsencode(target))
            except BlockingIOError:
                await trio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                return sock
    except BaseException:
        sock.close()
        raise


def _is_live_elsewhere(path: str) -> bool:
    try:
        os.close(open_private_directory(os.path.dirname(path), create=False))
        return socket_is_live(path)
    except (UnsafePath, OSError) as error:
        if isinstance(error, OSError) and error.errno in SHORTAGE:
            raise  # it could not be looked, and somebody may be there
        # Clients of ours do not go there either.
        return False


def _private_obstacle(directory: str) -> str | None:
    """Why the sockets of bare names cannot be in a directory, which a server makes if it is missing."""
    try:
        os.close(open_private_directory(directory, create=False))
    except UnsafePath as error:
        return str(error)
    except FileNotFoundError:
        above = os.path.dirname(directory)
        return None if os.access(above, os.W_OK | os.X_OK) else f"{above!r} is missing, or cannot be written by us"
    except OSError as error:
        return f"{directory!r} cannot be used: {error.strerror}"
    return None


def _obstacle(directory: str) -> str | None:
    """Why a socket with an explicit path cannot be in a directory."""
    try:
        os.close(open_socket_directory(directory))
    except ListenError as error:
        return str(error)
    return None


def _is_abstract(address: Address) -> bool:
    return address.scheme == "unix" and address.name.startswith("@")


def _permissions(address: Address, options: Mapping[str, object]) -> tuple[int, int | None]:
    """Mode and group of the socket, as the options say."""
    mode, group = options.get("mode"), options.get("group")
    if mode is None and group is None:
        return _DEFAULT_MODE, None
    if address.scheme == "local" or _is_abstract(address):
        raise TypeError(
            f"mode and group do nothing for {address}, which is not guarded by them; "
            "to let others in use an explicit path, as in unix:/run/app/app.sock"
        )
    if mode is None:
        mode = _DEFAULT_MODE_WITH_GROUP
    if isinstance(mode, bool) or not isinstance(mode, int):
        raise TypeError(f"mode must be a number such as 0o660, not {mode!r}")
    if not 0 <= mode <= 0o777:
        raise ValueError(f"mode must be between 0 and 0o777, not {mode:#o}; write it as an octal number, such as 0o660")
    if group is None or (isinstance(group, int) and not isinstance(group, bool)):
        return mode, group
    if not isinstance(group, str):
        raise TypeError(f"group must be the name or the id of a group, not {group!r}")
    import grp  # not on Windows

    try:
        return mode, grp.getgrnam(group).gr_gid
    except KeyError:
        raise ListenError(f"there is no group {group!r} on this system; make it, or name another") from None


def _reason(error: OSError) -> str:
    match error.errno:
        case errno.ENOENT:
            return "there is no such socket"
        case errno.ECONNREFUSED:
            return "its socket belongs to no running server"
        case errno.EACCES | errno.EPERM:
            return "we may not use it (its mode, or its directory's, does not let us)"
        case errno.EMFILE | errno.ENFILE:
            return "too many files are open here; close some, or raise the limit (ulimit -n)"
    return error.strerror or str(error)
