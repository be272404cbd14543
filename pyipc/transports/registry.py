"""Which transport serves which scheme.

Owns the table of built-in transports and the search for those of third parties. Imports a
transport when it is first asked for, so that what a system lacks hurts nobody who does not use it.
"""

from __future__ import annotations

import functools
import importlib
import sys
from typing import TYPE_CHECKING, Final

from pyipc.errors import AddressError
from pyipc.transports.port import Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from importlib.metadata import EntryPoints

__all__ = ["ENTRY_POINT_GROUP", "transport_for"]

#: Where an installed distribution names its transports: the scheme, and ``module:object``.
ENTRY_POINT_GROUP: Final = "pyipc.transports"

_PIPE: Final = "pyipc.transports.pipe:PipeTransport"
_UNIX: Final = "pyipc.transports.unix:UnixTransport"
# What means another thing on each system.
_LOCAL: Final = _PIPE if sys.platform == "win32" else _UNIX

_BUILT_IN: Final[Mapping[str, str]] = {
    "local": _LOCAL,
    "unix": _UNIX,
    "node-ipc": _LOCAL,
    "pipe": _PIPE,
    "tcp": "pyipc.transports.tcp:TcpTransport",
    "udp": "pyipc.transports.udp:UdpTransport",
    "tls": "pyipc.transports.tls:TlsTransport",
    "memory": "pyipc.transports.memory:MemoryTransport",
    "fd": "pyipc.transports.inherited:InheritedTransport",
    "systemd": "pyipc.transports.inherited:InheritedTransport",
}
#: Schemes that are pyipc's although this version has no transport for them. They are kept from
#: third parties, whose transport would silently give way on the day pyipc brings its own.
_RESERVED: Final = frozenset({"amqp", "amqps"})


@functools.cache
def transport_for(scheme: str) -> Transport:
    """The transport that serves ``scheme``; the same object each time.

    Built-in transports come first. For any other scheme the entry points of the group
    ``pyipc.transports`` are searched: the name of an entry point is the scheme, and what it loads
    is a `Transport`, or a class of transports that is called without arguments.

    Args:
        scheme: What ``address.scheme`` says.

    Raises:
        AddressError: There is no such transport, or it cannot be loaded; the message says which
            schemes there are.
    """
    if scheme in _BUILT_IN:
        return _load(scheme, _BUILT_IN[scheme], functools.partial(_import, _BUILT_IN[scheme]))
    if scheme in _RESERVED:
        raise AddressError(f"{scheme!r} addresses are not available in this version of pyipc; {_what_there_is()}")
    found = {entry.value: entry for entry in _entry_points().select(name=scheme)}
    if not found:
        raise AddressError(f"there is no transport for {scheme!r} addresses; {_what_there_is()}")
    if len(found) > 1:
        # The order of installation must not decide where somebody's bytes go.
        raise AddressError(
            f"several installed distributions serve {scheme!r} addresses ({', '.join(sorted(found))}); "
            "uninstall all but one of them"
        )
    [(value, entry)] = found.items()
    return _load(scheme, value, entry.load)


def _entry_points() -> EntryPoints:
    # It brings a good part of the standard library along, and few programs get here.
    from importlib import metadata

    return metadata.entry_points(group=ENTRY_POINT_GROUP)


def _import(value: str) -> object:
    module, _, name = value.partition(":")
    return getattr(importlib.import_module(module), name)


def _load(scheme: str, value: str, load: Callable[[], object]) -> Transport:
    try:
        loaded = load()
        if isinstance(loaded, type) and issubclass(loaded, Transport):
            loaded = loaded()
    except Exception as error:  # somebody else's module may raise anything while it is imported
        raise AddressError(
            f"the transport for {scheme!r} addresses, {value}, cannot be loaded here "
            f"({type(error).__name__}: {error}); {_what_there_is()}"
        ) from error
    if not isinstance(loaded, Transport):
        raise AddressError(
            f"the entry point for {scheme!r} addresses, {value}, is neither a pyipc Transport nor a class of them; "
            f"{_what_there_is()}"
        )
    return loaded


def _what_there_is() -> str:
    """Names the schemes that have a transport, installed ones included, without loading any."""
    known = sorted({*_BUILT_IN, *(_entry_points().names - _RESERVED)})
    return f"the schemes with a transport are {', '.join(known)}"
