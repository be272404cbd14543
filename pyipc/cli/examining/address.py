"""What ``pyipc doctor`` finds out about an address without talking to anybody."""

from __future__ import annotations

import os
import stat
import sys
from typing import TYPE_CHECKING, Any, Final

from pyipc.cli.examining.findings import Finding, Level, ok, problem, warning
from pyipc.cli.peers import own_uid
from pyipc.transports import transport_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyipc
    from pyipc.transports import Place

__all__ = ["examine_place", "examine_socket", "user_name"]

#: Bytes of a path in ``struct sockaddr_un``, without the zero at its end.
_PATH_LIMIT: Final = 107 if sys.platform == "linux" else 103

_WRITABLE_BY_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH
#: What stands before the name of each named pipe of Windows.
_PIPES: Final = "\\\\.\\pipe\\"
_ON_THIS_MACHINE: Final = frozenset({"local", "unix", "node-ipc", "pipe"})


def examine_place(address: pyipc.Address) -> Iterator[Finding]:
    """What an address means here, and what is there.

    Raises:
        AddressError: It cannot be used on this system.
    """
    if address.scheme in _ON_THIS_MACHINE:
        yield from _paths(address)
    elif address.scheme in ("tcp", "udp", "tls"):
        yield _network(address)
    else:
        # An inherited socket, or anything that a third party has a transport for.
        for place in transport_for(address.scheme).places(address):
            if place.obstacle is None:
                yield ok("place", f"means {place.name}", place=place.name, usable=True)
            else:
                yield problem("place", place.obstacle, place=place.name, usable=False)


def _network(address: pyipc.Address) -> Finding:
    facts: dict[str, Any] = {"host": address.host, "port": address.port, "loopback": address.is_local}
    where = f"means port {address.port} of {address.host}"
    if address.is_local:
        return ok("place", f"{where}, which only programs on this machine can reach", **facts)
    if address.scheme == "tls":
        return ok("place", f"{where}, beyond this machine; encrypted, and the server proves who it is", **facts)
    return warning(
        "place",
        f"{where}, beyond this machine; plain text, and nobody proves who it is",
        "use tls://, a loopback address or a Unix socket, unless the network is yours alone",
        **facts,
    )


def _paths(address: pyipc.Address) -> Iterator[Finding]:
    places = transport_for(address.scheme).places(address)
    for place in places:
        if place.name.startswith("@"):
            yield ok("place", f"means the abstract socket {place.name}, which is no file", path=place.name)
            continue
        if place.name.startswith(_PIPES):
            yield _pipe(place)
            continue
        size = len(os.fsencode(place.name))
        meaning = f"means {place.name} ({size} of {_PATH_LIMIT} bytes)" if len(places) == 1 else place.name
        facts: dict[str, Any] = {
            "path": place.name,
            "size": size,
            "limit": _PATH_LIMIT,
            "usable": place.obstacle is None,
        }
        if place.obstacle is None:
            yield ok("place", f"{meaning}: servers may listen there", **facts)
        elif len(places) > 1 and not os.path.lexists(os.path.dirname(place.name)):
            # Most machines lack one of the places; that is what the others are for.
            yield ok("place", f"{meaning}: not used, since {place.obstacle}", **facts)
        else:
            yield warning("place", f"{meaning}: not used, since {place.obstacle}", **facts)
        yield from examine_socket(place.name)
    usable = [place.name for place in places if place.obstacle is None]
    if not usable:
        yield problem(
            "place", f"nobody can listen on {address}", "mend one of these directories, or use another address"
        )
    elif len(places) > 1:
        path = usable[0]
        text = f"a server that starts now listens at {path} ({len(os.fsencode(path))} of {_PATH_LIMIT} bytes)"
        yield ok("path", text, path=path)


def _pipe(place: Place) -> Finding:
    facts: dict[str, Any] = {"path": place.name, "usable": place.obstacle is None}
    meaning = f"means the named pipe {place.name}"
    if place.obstacle is None:
        return ok("place", f"{meaning}, which only programs on this machine can reach", **facts)
    return warning("place", f"{meaning}: not used, since {place.obstacle}", **facts)


def examine_socket(path: str) -> Iterator[Finding]:
    """The file of a socket, if there is one: its owner, its permissions, its lock."""
    try:
        info = os.lstat(path)
    except FileNotFoundError:
        return
    except OSError as error:
        yield problem(
            "socket", f"{path} cannot be looked at: {error.strerror}", "use an address of your own", path=path
        )
        return
    mode = stat.S_IMODE(info.st_mode)
    locked = os.path.lexists(f"{path}.lock")
    facts: dict[str, Any] = {
        "path": path,
        "mode": f"{mode:04o}",
        "uid": info.st_uid,
        "gid": info.st_gid,
        "lock_file": locked,
    }
    if not stat.S_ISSOCK(info.st_mode):
        yield problem("socket", f"{path} is no socket", "remove it, or use another address", **facts)
        return
    lock = "with a lock file, as servers of pyipc have it" if locked else "without a lock file, so not of pyipc"
    text = f"{path} is a socket of user {user_name(info.st_uid)}, mode {mode:04o}, {lock}"
    if info.st_uid != own_uid():
        remedy = f"say allow={{{info.st_uid}}} in the program if that is meant"
        yield warning("socket", f"{text}; that is not us", remedy, **facts)
    elif mode & _WRITABLE_BY_OTHERS and not locked:
        yield warning(
            "socket", f"{text}; others may connect", "chmod 600, or let its server check who connects", **facts
        )
    else:
        yield Finding(Level.OK, "socket", text, None, facts)


def user_name(uid: int) -> str:
    """A user id with the name of the user, where it has one."""
    if sys.platform == "win32":
        return str(uid)
    import pwd  # not on Windows

    try:
        return f"{uid} ({pwd.getpwuid(uid).pw_name})"
    except KeyError:
        return str(uid)
