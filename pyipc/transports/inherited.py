"""The transport of sockets that somebody else opened: ``fd:`` and ``systemd:``.

Owns the finding, checking and taking over of descriptors. What a socket is, Unix or TCP, listening or connected, is
asked of the socket; from there on it is like one of ours, but nobody here unlinks it, and it cannot be opened anew.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import sys
from typing import TYPE_CHECKING, Final

import trio

from pyipc.errors import AddressError, ConnectionClosed
from pyipc.protocol.addresses import parse_address
from pyipc.transports.activation import passed_descriptors
from pyipc.transports.port import Listener, Place, Transport
from pyipc.transports.sockets import SocketListener, refuse_unknown_options
from pyipc.transports.tcp import tcp_link
from pyipc.transports.unix import unix_link

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pyipc.protocol.addresses import Address
    from pyipc.transports.port import Link

__all__ = ["InheritedTransport"]

#: What was taken in this process. A descriptor that is closed may be used for something else, so a number is never
#: taken again: whoever reconnects to ``fd:5`` must not get hold of a stranger's file.
_TAKEN: Final[set[int]] = set()

_UNIX: Final = getattr(socket, "AF_UNIX", None)  # not on Windows
_FAMILIES: Final = (_UNIX, socket.AF_INET, socket.AF_INET6)


class InheritedTransport(Transport):
    """Listens on inherited sockets, and talks over inherited connections.

    Args:
        taken: The descriptors that were taken already; by default, those of the whole process.
        environment: Where systemd's variables are; by default, the environment of the process.
        platform: The operating system, as in ``sys.platform``.
    """

    def __init__(
        self,
        *,
        taken: set[int] = _TAKEN,
        environment: Mapping[str, str] = os.environ,
        platform: str = sys.platform,
    ) -> None:
        self._taken = taken
        self._environment = environment
        self._platform = platform

    async def connect(self, address: Address, options: Mapping[str, object]) -> Link:
        """Talk over a connected socket that was inherited.

        That works once. A client that wants to connect again is told so, and gives up.

        Raises:
            AddressError: There is no such socket, or it is not one for a client.
            TypeError: An option does not exist.

        Cancellation: nothing stays open.
        """
        refuse_unknown_options(options, (), f"connecting to {address}")
        await trio.lowlevel.checkpoint()
        with self._taking(address) as sockets:
            if len(sockets) != 1 or _is_listening(sockets[0]):
                raise AddressError(
                    f"{address} cannot be connected to: it is for a server, which listens on it; use the address that "
                    "the server's clients use"
                )
            return _link(sockets[0], address)

    async def listen(self, address: Address, options: Mapping[str, object]) -> Listener:
        """Listen on the sockets that were inherited. On one that is connected already, there is one peer.

        Raises:
            AddressError: There is no such socket, or it is not one for a server.
            TypeError: An option does not exist.

        Cancellation: nothing stays open.
        """
        refuse_unknown_options(options, (), f"listening on {address}")
        await trio.lowlevel.checkpoint()
        with self._taking(address) as sockets:
            if len(sockets) == 1 and not _is_listening(sockets[0]):
                return _SinglePeerListener(address, _link(sockets[0], address))
            reached_at = _local_address(sockets[0]) or address
            return SocketListener(sockets, reached_at, adopt=lambda sock: _accepted(sock, reached_at))

    def places(self, address: Address) -> Sequence[Place]:
        """The sockets that ``address`` stands for, and what is wrong with them if anything is.

        Raises:
            AddressError: There are none.
        """
        return tuple(self._place(address, descriptor) for descriptor in self._descriptors(address))

    def _place(self, address: Address, descriptor: int) -> Place:
        try:
            sock = self._open(address, descriptor)
        except AddressError as error:
            return Place(f"descriptor {descriptor}", str(error))
        where = _local_address(sock) or "a socket without an address"
        kind = "listening on" if _is_listening(sock) else "connected from"
        sock.detach()
        return Place(f"descriptor {descriptor}, {kind} {where}")

    def _descriptors(self, address: Address) -> list[int]:
        if self._platform == "win32" or _UNIX is None:
            raise AddressError(
                f"{address} cannot be used here: on Windows sockets are not inherited by their number; use a bare "
                "name, or tcp://127.0.0.1:port"
            )
        if address.scheme == "systemd":
            return passed_descriptors(address.name, self._environment, os.getpid())
        return [int(address.name)]

    @contextlib.contextmanager
    def _taking(self, address: Address) -> Iterator[list[socket.socket]]:
        """Look at the sockets of an address; they are ours if the block says nothing against it, and untouched else."""
        sockets: list[socket.socket] = []
        try:
            for descriptor in self._descriptors(address):
                sockets.append(self._open(address, descriptor))  # noqa: PERF401 - these are let go if the next fails
            if len(sockets) > 1:
                _check_all_listen(address, sockets)
            yield sockets
        except BaseException:
            for sock in sockets:
                sock.detach()
            raise
        self._taken.update(sock.fileno() for sock in sockets)
        for sock in sockets:
            # Programs that this one starts must not keep it open.
            sock.set_inheritable(False)

    def _open(self, address: Address, descriptor: int) -> socket.socket:
        """An object for a descriptor. To give it up unharmed, detach it."""
        if descriptor in self._taken:
            raise AddressError(
                f"{address} cannot be used again: this process has taken descriptor {descriptor} already, and an "
                "inherited socket works once"
            )
        try:
            is_socket = stat.S_ISSOCK(os.fstat(descriptor).st_mode)
        except OSError as error:
            raise AddressError(
                f"{address} cannot be used: descriptor {descriptor} is not open ({error.strerror}); let whoever "
                "starts this program pass it on, in Python with pass_fds="
            ) from error
        if not is_socket:
            raise AddressError(f"{address} cannot be used: descriptor {descriptor} is not a socket; pass one on")
        sock = socket.socket(fileno=descriptor)
        if reason := _unfit(sock):
            sock.detach()
            raise AddressError(f"{address} cannot be used: the socket on descriptor {descriptor} {reason}")
        return sock


class _SinglePeerListener(Listener):
    """Hands out one link, and waits from then on."""

    def __init__(self, address: Address, link: Link) -> None:
        self._address = address
        self._link: Link | None = link
        self._closed = trio.Event()

    def __repr__(self) -> str:
        state = "closed" if self._closed.is_set() else "taken" if self._link is None else "waiting"
        return f"<SinglePeerListener on {self._address}, {state}>"

    @property
    def address(self) -> Address:
        return self._address

    async def accept(self) -> Link:
        await trio.lowlevel.checkpoint()
        if self._link is None:
            await self._closed.wait()
        if self._closed.is_set():
            raise ConnectionClosed(f"the listener on {self._address} is closed")
        link, self._link = self._link, None
        assert link is not None
        return link

    async def aclose(self) -> None:
        self._closed.set()
        link, self._link = self._link, None
        if link is None:
            await trio.lowlevel.checkpoint()
        else:
            await link.aclose()


def _unfit(sock: socket.socket) -> str | None:
    """Why a socket cannot be used, as the end of a sentence."""
    if sock.type == socket.SOCK_DGRAM:
        return "is for datagrams; pass a stream socket on (ListenStream=), or use udp://host:port"
    if sock.type != socket.SOCK_STREAM or sock.family not in _FAMILIES:
        return f"is neither a Unix nor a TCP stream socket ({sock.family!r}, {sock.type!r}); pass one of these on"
    if not _is_listening(sock) and not _is_connected(sock):
        return "neither listens nor is connected; call listen() on it before it is passed on"
    return None


def _check_all_listen(address: Address, sockets: Sequence[socket.socket]) -> None:
    for sock in sockets:
        if not _is_listening(sock):
            raise AddressError(
                f"{address} cannot be used: of its {len(sockets)} sockets that on descriptor {sock.fileno()} does not "
                "listen; give those that do a name of their own (FileDescriptorName=)"
            )


def _is_listening(sock: socket.socket) -> bool:
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _is_connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def _link(sock: socket.socket, address: Address) -> Link:
    """A link over a socket that was inherited when it was connected already."""
    try:
        return _accepted(sock, address)
    except OSError as error:
        raise AddressError(f"{address} cannot be used: its connection is broken ({error.strerror})") from error


def _accepted(sock: socket.socket, address: Address) -> Link:
    if sock.family == _UNIX:
        return unix_link(sock, str(address))
    return tcp_link(sock)


def _local_address(sock: socket.socket) -> Address | None:
    """Where a socket is, as an address for clients; ``None`` if they could not use it."""
    name = sock.getsockname()
    if sock.family != _UNIX:
        host, port = name[:2]
        return parse_address(f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}")
    # The kernel gives an abstract name as bytes with a zero in front, and a path as it was written.
    text = f"@{os.fsdecode(name[1:])}" if isinstance(name, bytes) else name
    try:
        return parse_address(f"unix:{text}")
    except AddressError:
        return None
