"""What both ends of a datagram transport share: a socket that nothing can break, and links over it.

Owns sending and receiving single datagrams and everything the operating system may complain about meanwhile. Whoever
sends a datagram learns of its fate from an error that belongs to some earlier one, or never; so no complaint ends
anything here. It is counted, and the next datagram is sent.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import sys
from typing import TYPE_CHECKING, Any, Final

import trio

from pyipc.errors import ConnectionLost
from pyipc.transports.port import Link

if TYPE_CHECKING:
    from pyipc.transports.port import Peer

__all__ = ["MAX_DATAGRAM_SIZE", "DatagramLink", "DatagramSocket"]

logger: logging.Logger = logging.getLogger("pyipc.transports")

#: The most bytes that one datagram carries over IPv4. IPv6 could take twenty more; a program should not depend on them.
MAX_DATAGRAM_SIZE: Final = 65_507

#: More than any datagram has without jumbograms: what fills it may have been cut.
_READ_SIZE: Final = 65_536
#: What to ask of the kernel for datagrams that wait. It gives what it allows.
_BUFFER_SIZE: Final = 1024 * 1024
#: A peer can cause complaints as fast as datagrams; after so many in a row others have their turn.
_COMPLAINTS_A_TURN: Final = 64


class DatagramSocket:
    """A socket for datagrams, bound or connected.

    Args:
        sock: The socket, which this object owns from here on.

    Attributes:
        dropped: Datagrams that were received and refused, because they may have been cut.
        complaints: Errors that the system reported about earlier datagrams, such as that nobody listens there.
    """

    __slots__ = ("_socket", "_turn", "closed", "complaints", "dropped")

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            # On macOS this is also what lets a datagram have more than 9 KiB; and it refuses what Linux cuts down.
            with contextlib.suppress(OSError):
                if sock.getsockopt(socket.SOL_SOCKET, option) < _BUFFER_SIZE:
                    sock.setsockopt(socket.SOL_SOCKET, option, _BUFFER_SIZE)
        self._socket = sock
        # Several links may wait to send, and trio lets one task at a time wait for a socket.
        self._turn = trio.Lock()
        self.closed: bool = False
        self.dropped: int = 0
        self.complaints: int = 0

    @property
    def family(self) -> socket.AddressFamily:
        """Of which family its addresses are."""
        return self._socket.family

    def send(self, data: bytes | bytearray | memoryview, where: Any = None) -> bool:
        """Send one datagram.

        Args:
            data: All of it.
            where: To which address; ``None`` for the one that the socket is connected to.

        Returns:
            Whether the kernel took it; if not, try again when `wait_writable` returns.

        Raises:
            OSError: It will not be sent.
        """
        try:
            return self._send(data, where)
        except ConnectionError:
            # That was about an earlier datagram. Telling so, the kernel did not send this one.
            self.complaints += 1
            return self._send(data, where)

    def _send(self, data: bytes | bytearray | memoryview, where: Any) -> bool:
        try:
            if where is None:
                self._socket.send(data)
            else:
                self._socket.sendto(data, where)
        except BlockingIOError:
            return False
        return True

    def receive(self) -> tuple[bytes, Any] | None:
        """Take the next datagram that waits, and where it came from; ``None`` if there is none for now."""
        for _ in range(_COMPLAINTS_A_TURN):
            try:
                data, where = self._socket.recvfrom(_READ_SIZE)
            except BlockingIOError:
                return None
            except OSError as error:
                if self.closed:
                    return None
                logger.debug("%r: %s", self, error)
                if sys.platform == "win32" and error.errno == errno.EMSGSIZE:
                    self.dropped += 1  # there a datagram that is too large is an error, and elsewhere it is cut
                else:
                    # What became of something that was sent: Windows tells it always, others on connected sockets.
                    self.complaints += 1
                continue
            if len(data) < _READ_SIZE:
                return data, where
            self.dropped += 1
        return None

    async def wait_readable(self) -> None:
        """Wait until there may be a datagram, or somebody closes the socket or wakes. Always a schedule point.

        Raises:
            trio.BusyResourceError: Another task waits for one.
        """
        await _until_woken(trio.lowlevel.wait_readable, self._socket)

    async def wait_writable(self) -> None:
        """Wait until the kernel may take a datagram, or somebody closes the socket or wakes. A schedule point."""
        async with self._turn:
            await _until_woken(trio.lowlevel.wait_writable, self._socket)

    def wake(self) -> None:
        """Wake whoever waits for the socket; nothing is closed by it."""
        trio.lowlevel.notify_closing(self._socket)

    def close(self) -> None:
        """Close the socket, and wake whoever waits for it. May be called more than once."""
        if not self.closed:
            self.closed = True
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()

    def __repr__(self) -> str:
        return f"<DatagramSocket {'closed' if self.closed else f'fd {self._socket.fileno()}'}>"


async def _until_woken(wait: Any, sock: socket.socket) -> None:
    if sock.fileno() < 0:
        await trio.lowlevel.checkpoint()
        return
    try:
        await wait(sock)
    except trio.ClosedResourceError:
        return


class DatagramLink(Link):
    """Sends single datagrams to one peer.

    Args:
        sock: Through which socket.
        peer: Who is there.
        where: Its address, for a socket that is not connected to it.
    """

    reliable: bool = False
    keeps_sent: bool = True
    max_chunk_size: int | None = MAX_DATAGRAM_SIZE

    def __init__(self, sock: DatagramSocket, peer: Peer, where: Any = None) -> None:
        self._socket = sock
        self._peer = peer
        self._where = where
        self._closed = False
        self._why = ""
        self._lost = 0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} to {self._peer.address}, {'closed' if self._closed else 'open'}>"

    @property
    def peer(self) -> Peer:
        """Who is on the other side, as far as its address tells."""
        return self._peer

    @property
    def dropped(self) -> int:
        """How many datagrams were lost: the system refused them, or they came too fast."""
        return self._lost

    def send_nowait(self, data: bytes | bytearray | memoryview) -> int:
        """Send a datagram, all of it or none.

        Returns:
            Its size, also where it was lost because the system refused it, which is counted; or ``0`` if it is to be
            offered again. One without bytes is never to be: it was sent, or it is lost and counted.

        Raises:
            ConnectionLost: The link is closed.
        """
        self._check_open()
        if self._hand_over(data):
            return len(data)
        self._lost += not data  # for 0 says nothing to whoever has no bytes to send
        return 0

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Send a datagram, waiting until it may go. Always a schedule point.

        Raises:
            ConnectionLost: The link is closed.

        Cancellation: it was not sent.
        """
        await trio.lowlevel.checkpoint()
        self._check_open()
        while not self._hand_over(data):
            await self._wait_to_send(len(data))
            self._check_open()

    def _hand_over(self, data: bytes | bytearray | memoryview) -> bool:
        try:
            return self._socket.send(data, self._where)
        except OSError as error:
            self._lost += 1
            logger.debug("a datagram of %d bytes to %s is lost: %s", len(data), self._peer.address, error)
            return True

    async def _wait_to_send(self, size: int) -> None:
        await self._socket.wait_writable()

    def _check_open(self) -> None:
        if self._closed:
            why = self._why or "it is closed on this side"
            raise ConnectionLost(f"the link to {self._peer.address} is gone: {why}", maybe_handled=True)
