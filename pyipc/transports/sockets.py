"""Links and listeners over stream sockets of the operating system.

Owns the reading, writing, accepting and closing of sockets that are open already, for `unix` and
`tcp` alike. Must not know addresses beyond passing them on, nor who may talk: how a socket came to
be is the transports' business, what the bytes mean is for the layers above.

The sockets are those of the standard library with trio's readiness calls, because that costs half
of what ``trio.SocketStream`` does.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
from typing import TYPE_CHECKING, Final

import trio

from pyipc.errors import ConnectionClosed, ConnectionLost
from pyipc.transports.port import Link, Listener

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pyipc.protocol.addresses import Address
    from pyipc.transports.port import Peer

__all__ = ["BACKLOG", "SHORTAGE", "SocketLink", "SocketListener", "refuse_unknown_options"]

logger: logging.Logger = logging.getLogger("pyipc.transports")

#: What is reported when this process, or this machine, has no descriptors left: nothing is wrong with the other side.
SHORTAGE: Final = frozenset({errno.EMFILE, errno.ENFILE})

#: Connections that the kernel keeps ready between two calls of `SocketListener.accept`.
BACKLOG: Final = 1024
# More than any backlog: who listens on a socket that others use too must come to an end with its line.
_LONGEST_LINE: Final = 8_192

_SMALLEST_READ: Final = 64 * 1024
_LARGEST_READ: Final = 256 * 1024

#: How many peers `SocketListener.accept` takes before it lets other tasks run. A turn of the
#: scheduler costs more than accepting does, and whoever listens is often called by many at once.
_ACCEPTS_PER_TURN: Final = 16

#: What accept(2) reports about a peer that is gone already, rather than about ourselves. Linux
#: passes on errors of the new connection's network as well.
_PEER_IS_GONE: Final = frozenset(
    getattr(errno, name)
    for name in (
        "ECONNABORTED",
        "ECONNRESET",
        "EHOSTDOWN",
        "EHOSTUNREACH",
        "ENETDOWN",
        "ENETUNREACH",
        "ENONET",
        "ENOPROTOOPT",
        "ENOTCONN",
        "EPERM",
        "EPROTO",
    )
    if hasattr(errno, name)
)


class SocketLink(Link):
    """A connected stream socket.

    Args:
        sock: The socket; the link owns it from here on and makes it non-blocking.
        peer: Who is on the other side.
    """

    __slots__ = ("_descriptor", "_is_woken", "_peer", "_read_size", "_socket")

    can_wake_receiver = True

    def __init__(self, sock: socket.socket, peer: Peer) -> None:
        sock.setblocking(False)
        self._socket = sock
        #: -1 once closed. Kept here because asking the socket costs a call for every read.
        self._descriptor = sock.fileno()
        self._peer = peer
        self._read_size = _SMALLEST_READ
        self._is_woken = False

    def __repr__(self) -> str:
        state = "closed" if self._descriptor < 0 else f"fd {self._descriptor}"
        return f"<SocketLink to {self._peer.address}, {state}>"

    @property
    def peer(self) -> Peer:
        """Who is on the other side."""
        return self._peer

    def send_nowait(self, data: bytes | bytearray | memoryview) -> int:
        """Write once, as much as the socket's buffer takes.

        Returns:
            How many bytes were taken, from the front; ``0`` if the buffer is full.

        Raises:
            ConnectionLost: The link is broken or closed.
        """
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise self._lost(error) from error

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Write all of ``data``, waiting for room as often as it takes. Always a schedule point.

        Raises:
            ConnectionLost: The link is broken, or `aclose` was called meanwhile.

        Cancellation: an unknown part of ``data`` may have been sent, so the link can then only
        be closed.
        """
        with memoryview(data) as whole, whole.cast("B") as view:
            if not view:
                await trio.lowlevel.checkpoint()
            sent = 0
            while sent < len(view):
                try:
                    if (descriptor := self._descriptor) < 0:
                        raise trio.ClosedResourceError
                    await trio.lowlevel.wait_writable(descriptor)
                    with view[sent:] as rest:
                        sent += self._socket.send(rest)
                except BlockingIOError:
                    continue
                except trio.ClosedResourceError as error:
                    if self._descriptor < 0:
                        raise self._lost(error) from error
                    # It was the receiver who was to be woken.
                except OSError as error:
                    raise self._lost(error) from error

    async def receive(self) -> bytes:
        """Wait until something can be read, and read once. Always a schedule point.

        Returns:
            At least one byte, or ``b""`` when the peer has finished sending.

        Raises:
            ConnectionLost: The link is broken, or `aclose` was called meanwhile.
            trio.WouldBlock: `wake_receiver` was called meanwhile.

        Cancellation: loses nothing.
        """
        self._is_woken = False
        while True:
            try:
                if (descriptor := self._descriptor) < 0:
                    raise trio.ClosedResourceError
                await trio.lowlevel.wait_readable(descriptor)
                data = self._socket.recv(self._read_size)
            except BlockingIOError:
                # The kernel may wake a task for nothing, and then `wake_receiver` has found nobody asleep.
                if self._is_woken:
                    raise trio.WouldBlock from None
            except trio.ClosedResourceError as error:
                if self._descriptor >= 0:
                    raise trio.WouldBlock from None
                raise self._lost(error) from error
            except OSError as error:
                raise self._lost(error) from error
            else:
                # Few calls while much comes in, little memory while not.
                if len(data) == self._read_size:
                    self._read_size = min(2 * self._read_size, _LARGEST_READ)
                elif len(data) <= _SMALLEST_READ:
                    self._read_size = _SMALLEST_READ
                return data

    def wake_receiver(self) -> None:
        """Let a task that waits in `receive` raise `trio.WouldBlock` instead, having lost nothing."""
        self._is_woken = True
        # Trio has no other way to wake a task that waits for a socket. Nothing is closed by it.
        trio.lowlevel.notify_closing(self._socket)

    def send_eof(self) -> bool:
        """Shut down the sending side.

        Returns:
            ``True``. Errors are ignored: the peer may be gone already.
        """
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            logger.debug("cannot shut down %r: %s", self, error)
        return True

    async def aclose(self) -> None:
        """Close the socket, at once and more than once. Wakes whoever is in `send` or `receive`.

        Cancellation: the socket is closed all the same.
        """
        if self._descriptor >= 0:
            self._descriptor = -1
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()
        await trio.lowlevel.checkpoint()

    def _lost(self, error: Exception) -> ConnectionLost:
        # What was written before may have arrived; nobody down here can tell.
        if self._descriptor < 0:
            return ConnectionLost(f"the link to {self._peer.address} is closed on this side", maybe_handled=True)
        reason = getattr(error, "strerror", None) or str(error)
        return ConnectionLost(f"the link to {self._peer.address} is broken: {reason}", maybe_handled=True)


class SocketListener(Listener):
    """Listening sockets that all belong to one address.

    Args:
        sockets: At least one listening socket; the listener owns them from here on.
        address: Where they listen, as the user knows it.
        adopt: Makes a link of a socket that was just accepted. If it raises `OSError` the peer is
            turned away and the next one is waited for.
        release: Called once, before the sockets are closed: gives back what goes with them.
    """

    __slots__ = ("_accepted", "_address", "_adopt", "_closed", "_next", "_release", "_sockets")

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        address: Address,
        *,
        adopt: Callable[[socket.socket], Link],
        release: Callable[[], None] | None = None,
    ) -> None:
        for sock in sockets:
            sock.setblocking(False)
        self._sockets = tuple(sockets)
        self._address = address
        self._adopt = adopt
        self._release = release
        self._closed = False
        self._next = 0
        self._accepted = 0

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"sockets: {len(self._sockets)}"
        return f"<SocketListener on {self._address}, {state}>"

    @property
    def address(self) -> Address:
        """Where it listens, with the port that was really taken."""
        return self._address

    async def accept(self) -> Link:
        """Wait for the next peer. A schedule point at least once for every sixteen peers.

        Raises:
            ConnectionClosed: `aclose` was called.
            OSError: Accepting failed for now (out of descriptors, say); wait a little and go on.

        Cancellation: loses no peer.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            if self._closed:
                raise ConnectionClosed(f"the listener on {self._address} is closed")
            if self._accepted < _ACCEPTS_PER_TURN and (link := self._accept_nowait()) is not None:
                self._accepted += 1
                return link
            self._accepted = 0
            await self._wait()

    def retire(self) -> list[Link]:
        """Take no newcomers, as far as the system lets us say so, and hand out the peers that wait in line.

        A Unix socket is shut first: Linux then refuses whoever comes, and keeps those that came before. What listens on
        TCP cannot be shut without resetting them; so a peer that comes between the last look and `aclose` is reset.
        What was inherited is not shut, since others may listen on it.
        """
        links: list[Link] = []
        if self._closed:
            return links
        if self._release is not None:
            self._release()
            self._release = None
            for sock in self._sockets:
                with contextlib.suppress(OSError):  # macOS does not let what listens be shut
                    sock.shutdown(socket.SHUT_RDWR)
        for sock in self._sockets:
            # Nobody is left in the line, or there are no descriptors left.
            with contextlib.suppress(OSError):
                for _ in range(_LONGEST_LINE):
                    link = self._accept_from(sock)
                    if link is not None:
                        links.append(link)
        return links

    async def aclose(self) -> None:
        """Stop listening and release the address, at once and more than once. Wakes whoever is in `accept`.

        Cancellation: everything is closed all the same.
        """
        if not self._closed:
            self._closed = True
            try:
                if self._release is not None:
                    self._release()
            finally:
                for sock in self._sockets:
                    trio.lowlevel.notify_closing(sock)
                    sock.close()
        await trio.lowlevel.checkpoint()

    def _accept_nowait(self) -> Link | None:
        """The next peer that waits on any of the sockets; each socket gets its turn."""
        for _ in self._sockets:
            sock = self._sockets[self._next]
            self._next = (self._next + 1) % len(self._sockets)
            with contextlib.suppress(BlockingIOError):
                link = self._accept_from(sock)
                if link is not None:
                    return link
        return None

    def _accept_from(self, sock: socket.socket) -> Link | None:
        """The next peer that waits on a socket; ``None`` if it is gone by now, or turned away.

        Raises:
            BlockingIOError: Nobody waits.
            OSError: Accepting failed.
        """
        try:
            connection, _address = sock.accept()
        except OSError as error:
            if error.errno in _PEER_IS_GONE:
                return None
            raise
        try:
            return self._adopt(connection)
        except OSError as error:
            connection.close()
            logger.warning("turned away a peer on %s, because it cannot be identified: %s", self._address, error)
        except BaseException:
            connection.close()
            raise
        return None

    async def _wait(self) -> None:
        """Wait until a socket can be read, or is closed."""
        if len(self._sockets) == 1:
            await _readable(self._sockets[0])
            return

        async def wait_for(sock: socket.socket) -> None:
            await _readable(sock)
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for sock in self._sockets:
                nursery.start_soon(wait_for, sock)


async def _readable(sock: socket.socket) -> None:
    try:
        await trio.lowlevel.wait_readable(sock)
    except trio.ClosedResourceError:
        # `SocketListener.accept` looks why it was woken.
        return


def refuse_unknown_options(options: Mapping[str, object], known: Sequence[str], what: str) -> None:
    """Refuse options that a transport does not have.

    Args:
        options: What the endpoint said.
        known: The names that are fine.
        what: What the options are for, such as ``"listening on tcp://127.0.0.1:0"``.

    Raises:
        TypeError: The sentence names the option and those that exist.
    """
    for name in options:
        if name not in known:
            there_is = f"the options are {', '.join(known)}" if known else "it takes none; leave it out"
            raise TypeError(f"{what} has no option {name!r}; {there_is}")
