"""Links and listeners over stream sockets of the operating system.

Owns the reading, writing and closing of sockets that are connected already, for `unix` and `tcp` alike; accepting is
for `claims`. Must not know addresses beyond passing them on, nor who may talk: how a socket came to
be is the transports' business, what the bytes mean is for the layers above.

The sockets are those of the standard library with trio's readiness calls, because that costs half
of what ``trio.SocketStream`` does.
"""

from __future__ import annotations

import errno
import logging
import socket
from typing import TYPE_CHECKING, Final

import trio

from pyipc.errors import ConnectionLost
from pyipc.transports.claims import ClaimListener, SocketClaim, socket_adopter
from pyipc.transports.port import Link

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pyipc.protocol.addresses import Address
    from pyipc.transports.port import Peer

__all__ = ["BACKLOG", "SHORTAGE", "SocketLink", "SocketListener", "refuse_unknown_options"]

logger: logging.Logger = logging.getLogger("pyipc.transports")

#: What is reported when this process, or this machine, has no descriptors left: nothing is wrong with the other side.
SHORTAGE: Final = frozenset({errno.EMFILE, errno.ENFILE})

#: Connections that the kernel keeps ready between two calls of `Claim.accept`.
BACKLOG: Final = 1024

_SMALLEST_READ: Final = 64 * 1024
_LARGEST_READ: Final = 256 * 1024


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


class SocketListener(ClaimListener):
    """Listening sockets that all belong to one address.

    Args:
        sockets: At least one listening socket; the listener owns them from here on.
        address: Where they listen, as the user knows it.
        adopt: Makes a link of a socket that was just accepted. If it raises `OSError` the peer is
            turned away and the next one is waited for.
        release: Called once, before the sockets are closed: gives back what goes with them.
    """

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        address: Address,
        *,
        adopt: Callable[[socket.socket], Link],
        release: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(SocketClaim(sockets, address, release=release), socket_adopter(adopt, address))


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
