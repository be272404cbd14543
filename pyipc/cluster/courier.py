"""What carries sockets from the primary to a worker process, and notes about them both ways.

On POSIX it is a socket pair of its own that keeps the borders of messages, with one descriptor a message: so none is
ever taken for another's, whatever else the two say to each other. A message is a small JSON object. Neither end reads
anything of what the sockets that are carried say.
"""

from __future__ import annotations

import array
import contextlib
import errno
import json
import logging
import socket
import sys
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import trio

from pyipc.transports import Carrier

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "CROWDED",
    "MAX_HEADER_SIZE",
    "PAUSE",
    "Carrier",
    "Courier",
    "Header",
    "Mailbox",
    "SocketCourier",
    "SocketMailbox",
]

logger: logging.Logger = logging.getLogger("pyipc.cluster")

#: What a message says: a JSON object.
Header: TypeAlias = dict[str, Any]

#: Bytes of a header, as JSON.
MAX_HEADER_SIZE: Final = 4_096

# macOS has no SOCK_SEQPACKET for Unix sockets, and datagrams that are as good between two ends.
_KIND: Final = socket.SOCK_DGRAM if sys.platform == "darwin" else getattr(socket, "SOCK_SEQPACKET", 0)
_CLOSE_ON_EXEC: Final = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
# As a number, which is compared in a tenth of the time.
_TRUNCATED: Final = int(getattr(socket, "MSG_TRUNC", 0))
_DESCRIPTOR_SIZE: Final = array.array("i").itemsize
# There is room for more than the one that belongs there, so that what does not is seen, and closed.
_MAX_DESCRIPTORS: Final = 16

_encode: Final = json.JSONEncoder(separators=(",", ":")).encode
# How many messages are read before other tasks run: a turn of the scheduler costs more than reading one does.
_READ_A_TURN: Final = 16

#: The kernel has no room for the message, or too many descriptors are under way, and says nothing when that ends.
CROWDED: Final = frozenset({errno.ENOBUFS, errno.ENOMEM, getattr(errno, "ETOOMANYREFS", errno.ENOBUFS)})
#: Seconds until it is tried again then.
PAUSE: Final = 0.02
# The other end is gone.
_GONE: Final = frozenset({errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.ECONNREFUSED, errno.EDESTADDRREQ})


class Courier(ABC):
    """The primary's end, one for each worker process. Any number of tasks may send, one may receive."""

    @abstractmethod
    def send_nowait(self, header: Header, carrier: Carrier | None = None) -> None:
        """Send a message, and a copy of what it is about. The caller keeps its own, and closes it when it likes.

        Args:
            header: The message.
            carrier: What to carry.

        Raises:
            trio.WouldBlock: There is no room now.
            trio.BrokenResourceError: The worker process is gone.
            trio.ClosedResourceError: `close` was called.
            ValueError: The header is too large.
        """

    @abstractmethod
    async def send(self, header: Header, carrier: Carrier | None = None) -> None:
        """Send a message when there is room. Always a schedule point.

        Raises:
            trio.BrokenResourceError, trio.ClosedResourceError, ValueError: As for `send_nowait`.

        Cancellation: nothing was sent.
        """

    @abstractmethod
    async def receive(self) -> Header:
        """Wait for the next note of the worker. A schedule point at least once for every sixteen.

        Raises:
            trio.EndOfChannel: The worker process is gone, and all that it wrote was read.
            trio.ClosedResourceError: `close` was called.

        Cancellation: loses nothing.
        """

    @abstractmethod
    def finish(self) -> None:
        """Tell that the worker process has ended: `receive` returns what it wrote, and then there is no more.

        That is seen without being told, unless the process has left its end to another.
        """

    @abstractmethod
    def close(self) -> None:
        """Close this end, at once and more than once. Wakes whoever waits."""


class Mailbox(ABC):
    """The worker's end. Any number of tasks may send, one may receive."""

    @abstractmethod
    async def receive(self) -> tuple[Header, Carrier | None]:
        """Wait for the next message and what it is about. A schedule point at least once for every sixteen.

        Returns:
            The message, and what was carried, which the caller owns; ``None`` if there was nothing, or if this process
            has no descriptor left for it.

        Raises:
            trio.EndOfChannel: The primary is gone.
            trio.ClosedResourceError: `close` was called.

        Cancellation: loses nothing.
        """

    @abstractmethod
    def send_nowait(self, header: Header) -> None:
        """Write a note to the primary. Once this returns, the primary reads it even if this process is killed.

        Raises:
            trio.WouldBlock: There is no room now.
            trio.BrokenResourceError: The primary is gone.
            trio.ClosedResourceError: `close` was called.
            ValueError: The header is too large.
        """

    @abstractmethod
    async def send(self, header: Header) -> None:
        """Write a note to the primary when there is room. Always a schedule point.

        Raises:
            trio.BrokenResourceError, trio.ClosedResourceError, ValueError: As for `send_nowait`.

        Cancellation: nothing was sent.
        """

    @abstractmethod
    def close(self) -> None:
        """Close this end, at once and more than once. Wakes whoever waits."""


class _Datagrams:
    """One end of the socket pair.

    Args:
        sock: The socket, which belongs to this from here on.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._is_closed = False
        self._is_finished = False
        self._read_this_turn = 0
        # Trio lets one task wait for room.
        self._turn = trio.Lock()

    def __repr__(self) -> str:
        return "closed" if self._is_closed else f"fd {self._socket.fileno()}"

    def send_nowait(self, header: Header, carrier: Carrier | None = None) -> None:
        try:
            self._write(_encoded(header), carrier)
        except BlockingIOError:
            raise trio.WouldBlock from None

    async def send(self, header: Header, carrier: Carrier | None = None) -> None:
        data = _encoded(header)
        await trio.lowlevel.checkpoint()
        async with self._turn:
            while True:
                try:
                    return self._write(data, carrier)
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(self._socket)
                except trio.WouldBlock:
                    await trio.sleep(PAUSE)

    def _write(self, data: bytes, carrier: Carrier | None) -> None:
        """Send a message.

        Raises:
            BlockingIOError: There is no room; the socket tells when there is.
            trio.WouldBlock: There is no room, and nothing tells when there is.
        """
        if self._is_closed:
            raise trio.ClosedResourceError("the courier is closed")
        try:
            self._socket.sendmsg([data], _ancillary(carrier))
        except BlockingIOError:
            raise
        except OSError as error:
            if error.errno in CROWDED:
                raise trio.WouldBlock from None
            if error.errno in _GONE:
                raise trio.BrokenResourceError("the other end of the courier is gone") from error
            raise

    async def receive(self) -> tuple[bytes, list[int]]:
        """The next message and the descriptors with it. Too long ones are left out, and told about."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            if self._is_closed:
                raise trio.ClosedResourceError("the courier is closed")
            try:
                data, descriptors, flags = self._read()
            except BlockingIOError:
                if self._is_finished:
                    raise trio.EndOfChannel from None
                self._read_this_turn = 0
                await self._something()
                continue
            except ConnectionError:
                # The other end is gone and has not read all, which is said before what it wrote can be read.
                self._is_finished = True
                continue
            if not data:
                raise trio.EndOfChannel
            if flags & _TRUNCATED:
                _close_all(descriptors)
                logger.error("a message between primary and worker is longer than %s bytes; dropped", MAX_HEADER_SIZE)
                continue
            self._read_this_turn += 1
            if self._read_this_turn >= _READ_A_TURN:
                self._read_this_turn = 0
                await trio.lowlevel.cancel_shielded_checkpoint()
            return data, descriptors

    def _read(self) -> tuple[bytes, list[int], int]:
        room = socket.CMSG_SPACE(_MAX_DESCRIPTORS * _DESCRIPTOR_SIZE)
        data, ancillary, flags, _ = self._socket.recvmsg(MAX_HEADER_SIZE, room, _CLOSE_ON_EXEC)
        descriptors = array.array("i")
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors.frombytes(content[: len(content) - len(content) % _DESCRIPTOR_SIZE])
        return data, list(descriptors), flags

    async def _something(self) -> None:
        # Whoever closes or finishes it wakes this, and the loop looks why.
        with contextlib.suppress(trio.ClosedResourceError):
            await trio.lowlevel.wait_readable(self._socket)

    def finish(self) -> None:
        if not (self._is_closed or self._is_finished):
            self._is_finished = True
            trio.lowlevel.notify_closing(self._socket)

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()


class SocketCourier(Courier):
    """The primary's end on POSIX.

    Args:
        sock: One of the two sockets of `pair`; it belongs to the courier from here on.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._datagrams = _Datagrams(sock)

    def __repr__(self) -> str:
        return f"<SocketCourier, {self._datagrams}>"

    @classmethod
    def pair(cls) -> tuple[SocketCourier, socket.socket]:
        """A courier, and the socket of which the worker makes its `SocketMailbox`.

        Raises:
            OSError: There are no descriptors left.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, _KIND)
        return cls(ours), theirs

    def send_nowait(self, header: Header, carrier: Carrier | None = None) -> None:
        """As `Courier.send_nowait`."""
        self._datagrams.send_nowait(header, carrier)

    async def send(self, header: Header, carrier: Carrier | None = None) -> None:
        """As `Courier.send`.

        Cancellation: nothing was sent.
        """
        await self._datagrams.send(header, carrier)

    async def receive(self) -> Header:
        """As `Courier.receive`. What is no note is left out, and told about.

        Cancellation: loses nothing.
        """
        while True:
            data, descriptors = await self._datagrams.receive()
            _close_all(descriptors)  # a worker has nothing to carry
            if (header := _decoded(data)) is not None:
                return header

    def finish(self) -> None:
        """As `Courier.finish`."""
        self._datagrams.finish()

    def close(self) -> None:
        """As `Courier.close`."""
        self._datagrams.close()


class SocketMailbox(Mailbox):
    """The worker's end on POSIX.

    Args:
        sock: The second of `SocketCourier.pair`; it belongs to the mailbox from here on.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._datagrams = _Datagrams(sock)

    def __repr__(self) -> str:
        return f"<SocketMailbox, {self._datagrams}>"

    async def receive(self) -> tuple[Header, Carrier | None]:
        """As `Mailbox.receive`. What is no message is left out with what came along, and told about.

        Cancellation: loses nothing.
        """
        while True:
            data, descriptors = await self._datagrams.receive()
            header = _decoded(data)
            if header is not None and len(descriptors) <= 1:
                return header, _opened(descriptors)
            _close_all(descriptors)
            if header is not None:
                logger.error("a message of the primary came with %s descriptors instead of one", len(descriptors))
                return header, None

    def send_nowait(self, header: Header) -> None:
        """As `Mailbox.send_nowait`."""
        self._datagrams.send_nowait(header)

    async def send(self, header: Header) -> None:
        """As `Mailbox.send`.

        Cancellation: nothing was sent.
        """
        await self._datagrams.send(header)

    def close(self) -> None:
        """As `Mailbox.close`."""
        self._datagrams.close()


def _encoded(header: Mapping[str, Any]) -> bytes:
    data = _encode(header).encode()
    if len(data) > MAX_HEADER_SIZE:
        raise ValueError(f"a header takes {len(data)} bytes; {MAX_HEADER_SIZE} are allowed")
    return data


def _decoded(data: bytes) -> Header | None:
    try:
        header = json.loads(data.decode())
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        logger.error("what came between primary and worker is no message, and is dropped (%s bytes)", len(data))
        return None
    return header


def _ancillary(carrier: Carrier | None) -> list[tuple[int, int, bytes]]:
    if carrier is None:
        return []
    if not isinstance(carrier, socket.socket):
        raise TypeError(f"only sockets can be carried here, and not {carrier!r}")
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [carrier.fileno()]).tobytes())]


def _opened(descriptors: Sequence[int]) -> socket.socket | None:
    for descriptor in descriptors:
        try:
            return socket.socket(fileno=descriptor)
        except OSError as error:
            _close_all(descriptors)
            logger.error("what the primary has sent is no socket: %s", error)
    return None


def _close_all(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        socket.close(descriptor)
