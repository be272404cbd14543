"""The ``memory`` transport: links inside this process.

Owns a bounded pair of byte streams that behaves as a pair of Unix sockets does, and the names that
listeners take. Knows neither sockets nor files, and nothing of what the bytes mean.

Names belong to one run of trio: a name that a listener of another thread's run has taken is not
seen here, and nothing is left of it when that run ends. Tasks can only be woken from their own run.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, NoReturn, final

import trio

from pyipc.errors import AddressError, AddressInUse, ConnectError, ConnectionClosed, ConnectionLost
from pyipc.transports.port import Link, Listener, Peer, Transport

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pyipc.protocol.addresses import Address

__all__ = ["MemoryTransport", "memory_link_pair"]

#: What one `receive` returns at most, in bytes.
_MAX_RECEIVE_SIZE: Final = 65_536
#: Connections that wait for `accept`; as many as a listening socket usually holds.
_BACKLOG: Final = 128


class _Pipe:
    """One direction: a bounded run of bytes from one writer to one reader."""

    __slots__ = ("abandoned", "data", "ended", "readable", "reading", "reset", "room", "writable", "writing")

    def __init__(self, size: int) -> None:
        self.data: bytearray = bytearray()
        self.room: int = size
        self.ended: bool = False  # the writer will write no more
        self.reset: bool = False  # and it closed without reading all that it had been sent
        self.abandoned: bool = False  # the reader has gone
        self.reading: bool = False
        self.writing: bool = False
        self.readable: trio.lowlevel.ParkingLot = trio.lowlevel.ParkingLot()
        self.writable: trio.lowlevel.ParkingLot = trio.lowlevel.ParkingLot()

    def put(self, view: memoryview) -> int:
        taken = min(self.room, len(view))
        if taken:
            self.data += view[:taken]
            self.room -= taken
            self.readable.unpark_all()
        return taken

    def take(self) -> bytes:
        chunk = bytes(self.data[:_MAX_RECEIVE_SIZE])
        del self.data[:_MAX_RECEIVE_SIZE]
        self.room += len(chunk)
        self.writable.unpark_all()
        return chunk

    def end(self) -> None:
        self.ended = True
        self.readable.unpark_all()
        self.writable.unpark_all()

    def abandon(self) -> None:
        self.abandoned = True
        self.data.clear()
        self.readable.unpark_all()
        self.writable.unpark_all()

    @contextmanager
    def one_reader(self) -> Iterator[None]:
        if self.reading:
            raise trio.BusyResourceError("another task is receiving from this link")
        self.reading = True
        try:
            yield
        finally:
            self.reading = False

    @contextmanager
    def one_writer(self) -> Iterator[None]:
        self.refuse_second_writer()
        self.writing = True
        try:
            yield
        finally:
            self.writing = False

    def refuse_second_writer(self) -> None:
        if self.writing:
            raise trio.BusyResourceError("another task is sending on this link")


@final
class MemoryLink(Link):
    """One end of a pair. Made by `memory_link_pair` and by `MemoryTransport`."""

    def __init__(self, peer: Peer, inbound: _Pipe, outbound: _Pipe) -> None:
        self._peer = peer
        self._inbound = inbound
        self._outbound = outbound
        self._closed = False

    @property
    def peer(self) -> Peer:
        """Who is on the other side: this process, as far as the operating system is concerned."""
        return self._peer

    def __repr__(self) -> str:
        if self._closed:
            state = "closed"
        elif self._outbound.abandoned:
            state = "peer gone"
        else:
            state = "half-closed" if self._outbound.ended else "open"
        return f"<MemoryLink {self._peer.address} {state}, {len(self._inbound.data)} bytes unread>"

    def send_nowait(self, data: bytes | bytearray | memoryview) -> int:
        """Hand over as much of ``data`` as there is room for.

        Returns:
            How many bytes were taken, from the front.

        Raises:
            ConnectionLost: This side has closed or half-closed the link, or the peer has closed it.
            trio.BusyResourceError: Another task is in `send`.
        """
        self._outbound.refuse_second_writer()
        self._check_sendable()
        with memoryview(data) as view, view.cast("B") as octets:
            return self._outbound.put(octets)

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Hand over all of ``data``, waiting for room as often as it takes. Always a schedule point.

        Raises:
            ConnectionLost: This side has closed or half-closed the link, or the peer has closed it.
            trio.BusyResourceError: Another task is in `send`.

        Cancellation: an unknown part of ``data`` may have been sent, so the link can then only be
        closed. Nothing was sent if the caller had been canceled before.
        """
        outbound = self._outbound
        with outbound.one_writer():
            await trio.lowlevel.checkpoint()
            self._check_sendable()
            with memoryview(data) as view, view.cast("B") as octets:
                sent = outbound.put(octets)
                while sent < len(octets):
                    await outbound.writable.park()
                    self._check_sendable()
                    sent += outbound.put(octets[sent:])

    async def receive(self) -> bytes:
        """Wait for the next bytes. Always a schedule point.

        Returns:
            What is there, 64 KiB at most, or ``b""`` when the peer has closed or half-closed the
            link.

        Raises:
            ConnectionLost: This side has closed the link, or the peer has closed it without
                reading all that it had been sent.
            trio.BusyResourceError: Another task is in `receive`.

        Cancellation: loses nothing.
        """
        inbound = self._inbound
        with inbound.one_reader():
            if inbound.data or inbound.ended or self._closed:
                await trio.lowlevel.checkpoint()
            while True:
                # After the last wait nothing can be canceled, so bytes that are taken out are returned.
                if self._closed:
                    self._refuse_closed()
                if inbound.data:
                    return inbound.take()
                if inbound.reset:
                    raise ConnectionLost("the peer closed the link and left unread what it had been sent")
                if inbound.ended:
                    return b""
                await inbound.readable.park()

    def send_eof(self) -> bool:
        """Tell the peer that nothing more will be sent, while still receiving.

        A `send` that is waiting for room is given up, as on a socket that is shut down.

        Returns:
            ``True``, also when the link is closed already.
        """
        self._outbound.end()
        return True

    async def aclose(self) -> None:
        """Close the link, at once and more than once. Wakes whoever waits on either side.

        The peer still receives what was sent before, then ``b""``, or `ConnectionLost` if this side
        had not read everything.

        Cancellation: the link is closed all the same.
        """
        self._close()
        await trio.lowlevel.checkpoint()

    def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._outbound.reset = bool(self._inbound.data)
        self._outbound.end()
        self._inbound.abandon()

    def _check_sendable(self) -> None:
        if self._closed:
            self._refuse_closed()
        if self._outbound.ended:
            raise ConnectionLost("send_eof() has said that nothing more will be sent; open another link")
        if self._outbound.abandoned:
            raise ConnectionLost("the peer has closed the link")

    def _refuse_closed(self) -> NoReturn:
        raise ConnectionLost("this side has closed the link; open another one")


def memory_link_pair(
    left: Peer | None = None, right: Peer | None = None, *, buffer_size: int = 65_536
) -> tuple[Link, Link]:
    """Make two links that are joined to each other.

    Args:
        left: What ``peer`` of the first link says; this process if left out.
        right: What ``peer`` of the second link says; this process if left out.
        buffer_size: How many bytes may be under way in each direction before the sender waits.

    Raises:
        ValueError: ``buffer_size`` is not above zero.
    """
    if buffer_size < 1:
        raise ValueError(f"buffer_size must be above zero, not {buffer_size!r}")
    return _pair(left or _this_process("memory:"), right or _this_process("memory:"), buffer_size)


def _pair(left: Peer, right: Peer, buffer_size: int) -> tuple[MemoryLink, MemoryLink]:
    there, back = _Pipe(buffer_size), _Pipe(buffer_size)
    return MemoryLink(left, back, there), MemoryLink(right, there, back)


def _this_process(address: str) -> Peer:
    if sys.platform == "win32":
        return Peer(address=address, pid=os.getpid())
    # The effective ids are those that a kernel reports for a Unix socket.
    return Peer(address=address, pid=os.getpid(), uid=os.geteuid(), gid=os.getegid())


@final
class MemoryListener(Listener):
    """Waits for `MemoryTransport.connect` on one name."""

    def __init__(self, address: Address, names: dict[str, MemoryListener]) -> None:
        self._address = address
        self._names = names
        self._newcomers, self._waiting = trio.open_memory_channel[MemoryLink](_BACKLOG)
        self._closed = False
        names[address.name] = self

    @property
    def address(self) -> Address:
        """The address that `MemoryTransport.listen` was given."""
        return self._address

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{self._waiting.statistics().current_buffer_used} waiting"
        return f"<MemoryListener {self._address} {state}>"

    async def accept(self) -> Link:
        """Wait for the next peer. Several tasks may wait at a time.

        Raises:
            ConnectionClosed: `aclose` was called.

        Cancellation: loses no peer.
        """
        try:
            return await self._waiting.receive()
        except trio.ClosedResourceError:
            raise ConnectionClosed(f"the listener on {self._address} is closed") from None

    async def connect(self, peer: Peer) -> Link:
        """The link of a peer that has just dialed. Waits while the backlog is full."""
        ours, theirs = _pair(peer, peer, 65_536)
        # Does not fail when the listener is closed meanwhile: `aclose` takes in whoever waits, to refuse them all.
        await self._newcomers.send(theirs)
        return ours

    def retire(self) -> Sequence[Link]:
        """Free the name, and hand out the peers that wait in line."""
        return self._retire()

    def _retire(self) -> list[MemoryLink]:
        links: list[MemoryLink] = []
        if not self._closed:
            self._closed = True
            del self._names[self._address.name]
            with suppress(trio.WouldBlock):
                while True:
                    # Each one taken out lets one in that waited, so this empties the whole queue.
                    links.append(self._waiting.receive_nowait())
            self._waiting.close()
            self._newcomers.close()
        return links

    async def aclose(self) -> None:
        """Stop listening and free the name, at once and more than once.

        Peers that were not accepted find their link closed.

        Cancellation: the listener is closed all the same.
        """
        for link in self._retire():
            link._close()
        await trio.lowlevel.checkpoint()


_names: Final = trio.lowlevel.RunVar[dict[str, MemoryListener]]("pyipc memory names")


@final
class MemoryTransport(Transport):
    """Reaches and listens on ``memory:name``. It has no options."""

    async def connect(self, address: Address, options: Mapping[str, object]) -> Link:
        """Open a link to whoever listens on the name.

        Raises:
            ConnectError: Nobody listens there.
            AddressError: An option was given.

        Cancellation: nothing stays open.
        """
        _refuse_options(address, options)
        listener = _taken_names().get(address.name)
        if listener is None:
            await trio.lowlevel.checkpoint()
            raise ConnectError(
                f"nobody listens on {address} in this run of trio; start the server before, and in the same process"
            )
        return await listener.connect(_this_process(str(address)))

    async def listen(self, address: Address, options: Mapping[str, object]) -> Listener:
        """Take the name.

        Raises:
            AddressInUse: A listener that is not closed has it.
            AddressError: An option was given.

        Cancellation: nothing stays open.
        """
        _refuse_options(address, options)
        await trio.lowlevel.checkpoint()
        names = _taken_names()
        if address.name in names:
            raise AddressInUse(
                f"{address} is taken by another listener of this process; close it or choose another name"
            )
        return MemoryListener(address, names)


def _taken_names() -> dict[str, MemoryListener]:
    try:
        return _names.get()
    except LookupError:
        names: dict[str, MemoryListener] = {}
        _names.set(names)
        return names


def _refuse_options(address: Address, options: Mapping[str, object]) -> None:
    if options:
        given = ", ".join(sorted(options))
        raise AddressError(f"{address} takes no options and was given {given}; leave that out")
