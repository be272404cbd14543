"""What carries sockets and pipes from the primary to a worker process on Windows, over a pipe of their own.

Windows has no way to send a handle along with bytes. The primary makes one that is valid in the other process, and
sends its number, or for a socket what Windows calls its protocol information. Messages are lines of JSON.
"""

from __future__ import annotations

import base64
import collections
import json
import logging
import socket
from typing import TYPE_CHECKING, Any, Final

import trio

import pyipc
from pyipc.cluster.courier import MAX_HEADER_SIZE, Courier, Mailbox
from pyipc.transports import PipeInstance

if TYPE_CHECKING:
    from pyipc.cluster.courier import Carrier, Header
    from pyipc.transports import Link

__all__ = ["LinkCourier", "LinkMailbox"]

logger: logging.Logger = logging.getLogger("pyipc.cluster")

# Messages that may wait to be written before `send` waits.
_MAX_WAITING: Final = 64
# A line has a header, and 628 bytes for a socket, in base 64.
_MAX_LINE_SIZE: Final = 2 * MAX_HEADER_SIZE


class LinkCourier(Courier):
    """The primary's end. It can be used once it has its link; until then there is no room."""

    def __init__(self) -> None:
        self._link: Link | None = None
        self._lines: _Lines | None = None
        self._is_attached = trio.Event()
        self._waiting: collections.deque[bytes] = collections.deque()
        self._changed = trio.Event()
        self._writing = trio.CancelScope()
        self._reading = trio.CancelScope()
        self._is_broken = False
        self._is_closed = False

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else f"waiting: {len(self._waiting)}"
        return f"<LinkCourier to {'nobody yet' if self._link is None else self._link.peer.address}, {state}>"

    def attach(self, link: Link) -> None:
        """The worker process has come for it.

        Args:
            link: The link, of whose peer the process id is known; it belongs to the courier from here on.
        """
        self._link = link
        self._lines = _Lines(link)
        self._is_attached.set()

    async def run(self) -> None:
        """Write what is sent, until the worker process is gone, or `finish` or `close` is called.

        Cancellation: what waits is not written.
        """
        with self._writing:
            await self._is_attached.wait()
            assert self._link is not None
            while True:
                while self._waiting:
                    try:
                        await self._link.send(self._waiting[0])
                    except pyipc.ConnectionLost:
                        self._is_broken = True
                        self._note_change()
                        return
                    self._waiting.popleft()
                    self._note_change()
                await self._changed.wait()

    def send_nowait(self, header: Header, carrier: Carrier | None = None) -> None:
        """As `Courier.send_nowait`."""
        if self._is_closed:
            raise trio.ClosedResourceError("the courier is closed")
        if self._is_broken:
            raise trio.BrokenResourceError("the other end of the courier is gone")
        _check_size(header)
        if self._link is None or len(self._waiting) >= _MAX_WAITING:
            raise trio.WouldBlock
        try:
            message = {"header": header, **_packed(carrier, self._link.peer.pid)}
        except OSError as error:
            raise trio.BrokenResourceError(f"the worker process cannot be given anything: {error}") from error
        self._waiting.append(_line(message))
        self._note_change()

    async def send(self, header: Header, carrier: Carrier | None = None) -> None:
        """As `Courier.send`.

        Cancellation: nothing was sent.
        """
        await trio.lowlevel.checkpoint()
        while True:
            try:
                return self.send_nowait(header, carrier)
            except trio.WouldBlock:
                await (self._changed if self._is_attached.is_set() else self._is_attached).wait()

    def _note_change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def receive(self) -> Header:
        """As `Courier.receive`. What is no note is left out, and told about.

        Cancellation: loses nothing.
        """
        await trio.lowlevel.checkpoint()
        if not self._is_closed:
            with trio.CancelScope() as self._reading:
                await self._is_attached.wait()
                if self._lines is None:
                    raise trio.EndOfChannel
                return _header_of(await self._lines.next())
        raise trio.ClosedResourceError("the courier is closed")

    def finish(self) -> None:
        """As `Courier.finish`. What the process wrote before it ended is in the pipe, which ends behind it."""
        self._is_broken = True
        self._writing.cancel()
        self._is_attached.set()
        self._note_change()

    def close(self) -> None:
        """As `Courier.close`. The link is closed by `aclose`."""
        if not self._is_closed:
            self._is_closed = True
            self.finish()
            self._reading.cancel()

    async def aclose(self) -> None:
        """Close this end and its link, at once and more than once.

        Cancellation: they are closed all the same.
        """
        self.close()
        if self._link is not None:
            await self._link.aclose()


class LinkMailbox(Mailbox):
    """The worker's end.

    Args:
        link: The link with the primary; it belongs to the mailbox from here on.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._lines = _Lines(link)
        self._reading = trio.CancelScope()
        self._turn = trio.Lock()
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<LinkMailbox from {self._link.peer.address}{', closed' if self._is_closed else ''}>"

    async def receive(self) -> tuple[Header, Carrier | None]:
        """As `Mailbox.receive`. What is no message is left out, and told about.

        Cancellation: loses nothing.
        """
        await trio.lowlevel.checkpoint()
        if not self._is_closed:
            with trio.CancelScope() as self._reading:
                message = await self._lines.next()
                return _header_of(message), _unpacked(message)
        raise trio.ClosedResourceError("the mailbox is closed")

    def send_nowait(self, header: Header) -> None:
        """As `Mailbox.send_nowait`; but there is never room for what is written without waiting: see `PipeLink`."""
        if self._is_closed:
            raise trio.ClosedResourceError("the mailbox is closed")
        _check_size(header)
        raise trio.WouldBlock

    async def send(self, header: Header) -> None:
        """As `Mailbox.send`.

        Cancellation: nothing was sent.
        """
        _check_size(header)
        await trio.lowlevel.checkpoint()
        async with self._turn:
            if self._is_closed:
                raise trio.ClosedResourceError("the mailbox is closed")
            try:
                with trio.CancelScope(shield=True):  # half a note would be the end of all others
                    await self._link.send(_line({"header": header}))
            except pyipc.ConnectionLost as error:
                raise trio.BrokenResourceError("the primary is gone") from error

    def close(self) -> None:
        """As `Mailbox.close`. The link is closed by `aclose`."""
        self._is_closed = True
        self._reading.cancel()

    async def aclose(self) -> None:
        """Close this end and its link, at once and more than once.

        Cancellation: they are closed all the same.
        """
        self.close()
        await self._link.aclose()


class _Lines:
    """JSON objects with a header, as they come over a link.

    Args:
        link: The link.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._buffer = bytearray()

    async def next(self) -> dict[str, Any]:
        """The next one.

        Raises:
            trio.EndOfChannel: There is no more.

        Cancellation: loses nothing.
        """
        while True:
            line, found, _ = self._buffer.partition(b"\n")
            if not found:
                await self._fill()
                continue
            del self._buffer[: len(line) + 1]
            try:
                message = json.loads(line)
            except (ValueError, RecursionError):
                message = None
            if isinstance(message, dict) and isinstance(message.get("header"), dict):
                return message
            logger.error("what came between primary and worker is no message, and is dropped (%s bytes)", len(line))

    async def _fill(self) -> None:
        if len(self._buffer) > _MAX_LINE_SIZE:
            logger.error("a message between primary and worker is longer than %s bytes; it is the last", _MAX_LINE_SIZE)
            raise trio.EndOfChannel
        try:
            chunk = await self._link.receive()
        except pyipc.ConnectionLost:
            chunk = b""
        if not chunk:
            raise trio.EndOfChannel
        self._buffer += chunk


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def _check_size(header: Header) -> None:
    size = len(json.dumps(header, separators=(",", ":")))
    if size > MAX_HEADER_SIZE:
        raise ValueError(f"a header takes {size} bytes; {MAX_HEADER_SIZE} are allowed")


def _header_of(message: dict[str, Any]) -> Header:
    header: Header = message["header"]
    return header


def _packed(carrier: Carrier | None, pid: int | None) -> dict[str, Any]:
    """A carrier for another process, as JSON.

    Raises:
        OSError: There is no such process.
    """
    if carrier is None:
        return {}
    if pid is None:
        raise OSError("its process id is not known")
    if isinstance(carrier, PipeInstance):
        return {"pipe": carrier.duplicate_into(pid)}
    shared: Any = carrier  # type checkers on other systems do not know `share`
    return {"socket": base64.b64encode(shared.share(pid)).decode()}


def _unpacked(message: dict[str, Any]) -> Carrier | None:
    try:
        match message:
            case {"pipe": int(handle)}:
                return PipeInstance(handle)
            case {"socket": str(information)}:
                module: Any = socket
                shared: socket.socket = module.fromshare(base64.b64decode(information))
                return shared
    except (OSError, ValueError) as error:
        logger.error("what the primary has sent cannot be opened: %s", error)
    return None
