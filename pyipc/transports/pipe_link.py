"""Links over named pipes.

Owns reading, writing and closing a pipe that is open already. Must not know how it was opened, nor who may talk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from pyipc.errors import ConnectionLost, HandshakeFailed
from pyipc.transports.port import Link
from pyipc.transports.windows_api import error_code

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyipc.transports.port import Peer
    from pyipc.transports.windows_api import WindowsApi

__all__ = ["PipeLink"]

#: The buffer of a link stays with Windows while nothing comes, so that of a quiet link is small.
_SMALLEST_READ: Final = 4 * 1024
_LARGEST_READ: Final = 256 * 1024
#: What one call hands to Windows, which keeps all of it in the kernel's memory until the peer has read it.
_LARGEST_WRITE: Final = 256 * 1024

_ERROR_BROKEN_PIPE: Final = 109


class PipeLink(Link):
    """One end of a named pipe.

    Windows has no way to take back what was begun to write, nor to close one direction. So nothing is sent without
    waiting, and there is no end of the stream but closing. What was written before that stays readable for the peer.

    Args:
        windows: The calls of Windows.
        handle: The pipe, registered with trio already; the link owns it from here on.
        peer: Who is on the other side, as far as is known.
        identify: Finds out who is there once something was read; ``None`` if it is known. It is asked in `handshake`.
        closed: Is called once the handle is closed.
    """

    __slots__ = (
        "_buffer",
        "_closed",
        "_first",
        "_handle",
        "_identify",
        "_peer",
        "_reading",
        "_tell_closed",
        "_windows",
        "_writing",
    )

    keeps_sent = True

    def __init__(
        self,
        windows: WindowsApi,
        handle: int,
        peer: Peer,
        identify: Callable[[int], Peer | None] | None = None,
        closed: Callable[[], None] | None = None,
    ) -> None:
        self._windows = windows
        self._handle = handle
        self._peer = peer
        self._buffer = bytearray(_SMALLEST_READ)
        self._reading = self._writing = self._closed = False
        self._identify = identify
        self._tell_closed = closed
        self.needs_handshake: bool = identify is not None
        self._first = b""  # what was read in order to identify the peer

    def __repr__(self) -> str:
        return f"<PipeLink to {self._peer.address}, {'closed' if self._closed else f'handle {self._handle}'}>"

    @property
    def peer(self) -> Peer:
        """Who is on the other side."""
        return self._peer

    async def handshake(self) -> None:
        """Wait until the peer says something: only by that does Windows know who some clients are.

        Raises:
            HandshakeFailed: It has gone without a word, or `aclose` was called meanwhile.

        Cancellation: the link can then only be closed.
        """
        if self._identify is None:
            await trio.lowlevel.checkpoint()
            return
        try:
            self._first = await self.receive()
        except ConnectionLost as error:
            raise HandshakeFailed("closed", str(error)) from error
        if not self._first:
            raise HandshakeFailed(
                "closed", f"the client of {self._peer.address} left before it said anything, so nobody knows who it was"
            )
        self._peer = self._identify(self._handle) or self._peer
        self._identify = None
        self.needs_handshake = False

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Write all of ``data``, waiting for room as often as it takes. Always a schedule point.

        Raises:
            ConnectionLost: The link is broken, or `aclose` was called meanwhile.
            trio.BusyResourceError: Another task is in `send`.

        Cancellation: an unknown part of ``data`` may have been sent, so the link can then only
        be closed.
        """
        if self._writing:
            raise trio.BusyResourceError("another task is sending on this link")
        self._writing = True
        try:
            with memoryview(data) as whole, whole.cast("B") as view:
                if not view:
                    # Writing nothing would reach the peer as a read of nothing.
                    await trio.lowlevel.checkpoint()
                sent = 0
                while sent < len(view):
                    self._refuse_closed()
                    with view[sent : sent + _LARGEST_WRITE] as part:
                        sent += await self._windows.write(self._handle, part)
        except (OSError, trio.ClosedResourceError) as error:
            raise self._lost(error) from error
        finally:
            self._writing = False
            self._release()

    async def receive(self) -> bytes:
        """Wait until something can be read, and read once. Always a schedule point.

        Returns:
            At least one byte, or ``b""`` when the peer has closed the pipe and all that it sent was read.

        Raises:
            ConnectionLost: The link is broken, or `aclose` was called meanwhile.
            trio.BusyResourceError: Another task is in `receive`.

        Cancellation: loses nothing.
        """
        if self._reading:
            raise trio.BusyResourceError("another task is receiving from this link")
        self._reading = True
        try:
            if self._first:
                await trio.lowlevel.checkpoint()
                self._refuse_closed()
                first, self._first = self._first, b""
                return first
            while True:
                self._refuse_closed()
                # Nothing may be awaited after this, or cancellation could lose what was read.
                count = await self._windows.read(self._handle, self._buffer)
                if count:  # else the peer has written nothing, which is not the end
                    return self._take(count)
        except (OSError, trio.ClosedResourceError) as error:
            if isinstance(error, OSError) and error_code(error) == _ERROR_BROKEN_PIPE and not self._closed:
                # Where the peer had gone already, the read failed without waiting.
                await trio.lowlevel.checkpoint()
                return b""
            raise self._lost(error) from error
        finally:
            self._reading = False
            self._release()

    async def aclose(self) -> None:
        """Close the pipe, at once and more than once. Wakes whoever is in `send` or `receive`.

        Cancellation: the pipe is closed all the same.
        """
        if not self._closed:
            self._closed = True
            if self._reading or self._writing:
                self._windows.cancel_io(self._handle)
            self._release()
        await trio.lowlevel.checkpoint()

    def _take(self, count: int) -> bytes:
        """What was read. The next buffer is larger while much comes in."""
        with memoryview(self._buffer) as view:
            data = bytes(view[:count])
        size = len(self._buffer)
        if count == size and size < _LARGEST_READ:
            self._buffer = bytearray(2 * size)
        elif count <= _SMALLEST_READ < size:
            self._buffer = bytearray(_SMALLEST_READ)
        return data

    def _release(self) -> None:
        """Give the handle back, once the link is closed and nothing is under way on it.

        Trio cancels what is under way by its handle, which must not be closed by then, or be another pipe's already.
        """
        if self._closed and not self._reading and not self._writing and self._handle >= 0:
            handle, self._handle = self._handle, -1
            self._windows.close_handle(handle)
            if self._tell_closed is not None:
                self._tell_closed()

    def _refuse_closed(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError

    def _lost(self, error: Exception) -> ConnectionLost:
        # What was written before may have arrived; nobody down here can tell. Which error our own closing causes
        # depends on the system.
        if self._closed:
            return ConnectionLost(f"the link to {self._peer.address} is closed on this side", maybe_handled=True)
        reason = getattr(error, "strerror", None) or str(error)
        return ConnectionLost(f"the link to {self._peer.address} is broken: {reason}", maybe_handled=True)
