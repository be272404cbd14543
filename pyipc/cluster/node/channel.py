"""One end of Node's channel: a Unix stream socket with a JSON text and a newline for each message.

Both what programs say and what is said about processes goes over it, in one order. `NodeChannel.link` is what a
connection reads and writes; everything of Node's own is kept from it, and passed to whom it concerns. Sockets go along
with messages of the kind ``NODE_HANDLE``, one at a time, each until it was acknowledged.

Neither end tells the other to wait: who does not read is waited for by the kernel's buffer being full. When the program
here is slow this end reads on for a while, for the sake of what is Node's own.
"""

from __future__ import annotations

import array
import collections
import contextlib
import logging
import socket
import sys
from typing import TYPE_CHECKING, Final

import trio

import pyipc
from pyipc.cluster.courier import CROWDED, PAUSE
from pyipc.cluster.node.channel_link import ChannelLink
from pyipc.cluster.node.handles import Handle, Handles, ancillary
from pyipc.cluster.node.lines import DELIMITER, as_frame, as_lines, line
from pyipc.transports import Peer

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyipc.cluster.node.lines import Message
    from pyipc.transports import Link

__all__ = ["NodeChannel"]

logger: logging.Logger = logging.getLogger("pyipc.cluster")

_READ_SIZE: Final = 256 * 1024
_DESCRIPTOR_SIZE: Final = array.array("i").itemsize
_MAX_DESCRIPTORS: Final = 16
_CLOSE_ON_EXEC: Final = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
# While so many bytes of answers are unwritten nothing is read, as each line that is may want another.
_MAX_UNWRITTEN: Final = 256 * 1024
# While so many bytes wait for programs nothing is read either.
_MAX_AHEAD: Final = 8 * 1024 * 1024
# Seconds that programs may take for what they have before it is read on without them.
_UNATTENDED_PAUSE: Final = 0.02

# See `pyipc.cluster.node.handles`.
_PING: Final[Message] = {"cmd": "NODE_HANDLE"}
_ACK: Final[Message] = {"cmd": "NODE_HANDLE_ACK"}
_NACK: Final[Message] = {"cmd": "NODE_HANDLE_NACK"}
# Frames of programs that are told of as well, by how they begin.
_NOTEWORTHY: Final[dict[bytes, Message]] = {
    b'{"type":"pyipc.request"': {"type": "pyipc.request"},
    b'{"type":"pyipc.hello"': {"type": "pyipc.hello"},
}
_NOTEWORTHY_STARTS: Final = tuple(_NOTEWORTHY)
_OWN_START: Final = b'{"type":"pyipc.'


class _Unwritten:
    """What is to be written, or the rest of it.

    Args:
        text: The bytes.
        sock: What goes with the first of them.
        is_own: Whether it is Node's own.
    """

    __slots__ = ("is_own", "sock", "text")

    def __init__(self, text: memoryview, sock: socket.socket | None, is_own: bool) -> None:
        self.text = text
        self.sock = sock
        self.is_own = is_own


class NodeChannel:
    """One end.

    Args:
        sock: The socket; it belongs to the channel from here on.
        name: Who is at the other end, for people.
        received: Called with each message that no program is to hear of, and the socket that came along, which is
            the called one's then; and with the bare type of each request, and of a hello, before that is handled. Must
            not raise.
        max_message_size: The largest message that is taken, in bytes.
        pid: The process at the other end, if it is known.

    Attributes:
        link: For the connection that programs talk over. It owns the channel: when it is closed, so is that.
    """

    def __init__(
        self,
        sock: socket.socket,
        name: str,
        received: Callable[[Message, socket.socket | None], None],
        *,
        max_message_size: int,
        pid: int | None = None,
    ) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._received = received
        self._max_message_size = max_message_size
        self._is_closed = False
        self._is_last = False
        # What was read and is for programs, and whether somebody takes it.
        self._ahead: list[bytes] = []
        self._ahead_size = 0
        self._is_attended = False
        self._unattended = trio.Event()
        self._is_at_end = False
        # What is read, and is no whole line yet; and the socket that came along with something there.
        self._partial: list[bytes] = []
        self._partial_size = 0
        self._carried: socket.socket | None = None
        # Of a frame that is to be sent, what there is until it is whole.
        self._unsent: list[bytes] = []
        # What is to be written: first the rest of what was begun, then whole lines.
        self._unwritten: collections.deque[_Unwritten] = collections.deque()
        self._own_size = 0
        self._has_news = trio.Event()
        self._has_room = trio.Event()
        self._handles = Handles(self._write_own)
        self.link: Link = ChannelLink(self, Peer(address=name, pid=pid))

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else f"fd {self._socket.fileno()}"
        return f"<NodeChannel to {self.link.peer.address}, {state}>"

    @property
    def is_closed(self) -> bool:
        """Whether this end is closed."""
        return self._is_closed

    @property
    def is_at_end(self) -> bool:
        """Whether all that the other end wrote was read, though programs here may not have taken it."""
        return self._is_at_end

    @property
    def is_behind(self) -> bool:
        """Whether so much waits for programs here that nothing more is read."""
        return self._ahead_size > _MAX_AHEAD

    # --- Node's own messages ---

    def tell(self, message: Message) -> None:
        """Send a message that is no program's, behind everything that was sent before. Once closed, nothing."""
        self._write_own(line(message))

    def hand(self, message: Message, sock: socket.socket, *, lost: Callable[[], None], keeps: bool = False) -> None:
        """Send a message with a socket, when those before it were acknowledged.

        Args:
            message: The message.
            sock: The socket, which stays the caller's.
            lost: Called if it does not arrive although the other end is there.
            keeps: Whether the caller keeps the socket open until it has arrived or is lost; otherwise a copy is made.

        Raises:
            OSError: There is no descriptor left for the copy.
        """
        if self._is_closed:
            return
        text = line({"cmd": "NODE_HANDLE", "type": "net.Native", "msg": message})
        self._handles.add(Handle(text, sock if keeps else sock.dup(), lost, keeps=keeps))

    def ping(self) -> trio.Event:
        """Find out when the other end has read all that was sent before.

        Returns:
            What is set then, or when this end is closed.
        """
        ping = Handle(line(_PING), None, lambda: None)
        if self._is_closed:
            ping.answered.set()
        else:
            self._handles.add(ping)
        return ping.answered

    # --- writing ---

    def _write_own(self, text: bytes, sock: socket.socket | None = None) -> None:
        if not (self._is_closed or self._is_last):
            self._own_size += len(text)
            self._write(_Unwritten(memoryview(text), sock, is_own=True))

    def _write(self, unwritten: _Unwritten) -> None:
        """Write as much as goes without waiting, and leave the rest to `run`."""
        self._unwritten.append(unwritten)
        try:
            self._write_some()
        except trio.WouldBlock:
            pass
        except OSError:
            self._give_up_writing()  # whoever reads sees the end
        if self._unwritten:
            self._has_news.set()

    def _write_some(self) -> None:
        """Write until there is nothing left, or no room.

        Raises:
            OSError: The other end is gone.
            trio.WouldBlock: There is no room, and nothing tells when there is.
        """
        while self._unwritten:
            first = self._unwritten[0]
            try:
                sent = self._socket.sendmsg([first.text], ancillary(first.sock))
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in CROWDED:
                    raise trio.WouldBlock from None
                raise
            if first.is_own:
                self._own_size -= sent
            if sent == len(first.text):
                self._unwritten.popleft()
            else:
                first.text, first.sock = first.text[sent:], None
        if self._is_last:
            self._socket.shutdown(socket.SHUT_WR)
        self._has_room.set()
        self._has_room = trio.Event()

    def end_writing(self) -> None:
        """Tell the other end that nothing follows, once all is written. Node reads it all, and closes its end."""
        self._is_last = True
        if not self._unwritten:
            with contextlib.suppress(OSError):
                self._write_some()

    def _give_up_writing(self) -> None:
        self._unwritten.clear()
        self._own_size = 0
        self._has_room.set()
        self._has_room = trio.Event()

    async def run(self) -> None:
        """Write what could not be written at once, and read while nobody receives, until this end is closed.

        Cancellation: what is unwritten stays so; what is there to be read is read by who receives it.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read_ahead)
            await self._write_on()
            nursery.cancel_scope.cancel()

    async def _write_on(self) -> None:
        while not self._is_closed:
            if not self._unwritten:
                self._has_news = trio.Event()
                await self._has_news.wait()
                continue
            try:
                await trio.lowlevel.wait_writable(self._socket)
                self._write_some()
            except trio.ClosedResourceError:
                return
            except trio.WouldBlock:
                await trio.sleep(PAUSE)
            except OSError:
                self._give_up_writing()

    # --- for the link ---

    def send_nowait(self, data: bytes) -> int:
        """Take all of the next bytes of frames, or nothing while something is unwritten.

        Raises:
            ConnectionLost: This end is closed.
        """
        if self._is_closed:
            raise self._lost("is closed on this side")
        if self._unwritten:
            return 0
        self._send_frames(data)
        return len(data)

    def _send_frames(self, data: bytes) -> None:
        """Write the frames that are whole by now; a large one may come in parts."""
        end = data.rfind(DELIMITER) + 1
        if not end:
            self._unsent.append(data)
            return
        frames = b"".join((*self._unsent, data[:end]))
        self._unsent = [data[end:]] if end < len(data) else []
        if text := as_lines(frames):
            self._write(_Unwritten(memoryview(text), None, is_own=False))

    async def send(self, data: bytes) -> None:
        """Take the next bytes of frames, and wait until what was whole is written.

        Raises:
            ConnectionLost: This end is closed.

        Cancellation: an unknown part may have been sent.
        """
        await trio.lowlevel.checkpoint()
        if self._is_closed:
            raise self._lost("is closed on this side")
        self._send_frames(data)
        while self._unwritten and not self._is_closed:
            await self._has_room.wait()
        if self._is_closed:
            raise self._lost("is closed on this side")

    async def receive(self) -> bytes:
        """The next frames of programs; empty at the end. What is Node's own is dealt with on the way.

        Raises:
            ConnectionLost: The channel is broken, or this end is closed.

        Cancellation: loses nothing.
        """
        self._is_attended = True
        try:
            while True:
                if self._ahead or self._is_at_end:
                    frames = b"".join(self._ahead)
                    self._ahead.clear()
                    self._ahead_size = 0
                    return frames
                while self._is_choked and not self._is_closed:
                    await self._has_room.wait()
                if self._is_closed:
                    raise self._lost("is closed on this side")
                try:
                    await trio.lowlevel.wait_readable(self._socket)
                except trio.ClosedResourceError:
                    continue
                self._read_some()
        finally:
            self._is_attended = False
            self._unattended.set()

    @property
    def _is_choked(self) -> bool:
        return self._own_size > _MAX_UNWRITTEN

    async def _read_ahead(self) -> None:
        """Read on while nobody receives: behind what programs say comes what must not wait for them."""
        while True:
            await self._unattended.wait()
            await trio.sleep(_UNATTENDED_PAUSE)
            if self._is_attended:
                self._unattended = trio.Event()
            while not (self._is_attended or self._is_choked or self.is_behind or self._is_at_end):
                try:
                    if not self._read_some():
                        break
                except pyipc.ConnectionLost:
                    break  # whoever receives finds out

    def _read_some(self) -> bool:
        """Read once, if there is something; say whether there was.

        Raises:
            ConnectionLost: The channel is broken.
        """
        try:
            data = self._read()
        except BlockingIOError:
            return False
        except ConnectionResetError:
            data = b""  # it has ended without having read everything
        except OSError as error:
            raise self._lost(f"is broken: {error.strerror}") from error
        if not data:
            self._is_at_end = True
        elif frames := self._take_in(data):
            self._ahead.append(frames)
            self._ahead_size += len(frames)
        return True

    def _read(self) -> bytes:
        room = socket.CMSG_SPACE(_MAX_DESCRIPTORS * _DESCRIPTOR_SIZE)
        data, ancillary, _, _ = self._socket.recvmsg(_READ_SIZE, room, _CLOSE_ON_EXEC)
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                self._carry(array.array("i", content[: len(content) - len(content) % _DESCRIPTOR_SIZE]))
        return data

    def _carry(self, descriptors: array.array[int]) -> None:
        for descriptor in descriptors:
            self._drop_carried()
            try:
                self._carried = socket.socket(fileno=descriptor)
            except OSError:
                socket.close(descriptor)

    def _drop_carried(self) -> None:
        if self._carried is not None:
            self._carried.close()
            self._carried = None

    def _take_in(self, data: bytes) -> bytes:
        """Frames of programs among what was read."""
        if b"\n" not in data:
            return self._keep(data)
        *lines, rest = data.split(b"\n")
        if self._partial:
            lines[0] = b"".join((*self._partial, lines[0]))
            self._partial.clear()
            self._partial_size = 0
        frames = []
        for text in lines:
            frame = as_frame(text)
            if isinstance(frame, bytes):
                frames.append(frame)
                if text.startswith(_NOTEWORTHY_STARTS):
                    self._received(_NOTEWORTHY[text[: text.index(b'"', len(_OWN_START)) + 1]], None)
            elif (wrapped := self._take_own(frame)) is not None:
                frames.append(wrapped)
        if rest:
            frames.append(self._keep(rest))
        return b"".join(frames)

    def _keep(self, data: bytes) -> bytes:
        """Keep part of a line. If that is longer than may be, it is a frame as it is, for others to refuse."""
        self._partial.append(data)
        self._partial_size += len(data)
        if self._partial_size <= self._max_message_size:
            return b""
        text = b"".join(self._partial)
        self._partial.clear()
        self._partial_size = 0
        return text

    def _take_own(self, message: Message) -> bytes | None:
        """Deal with what is Node's own; a frame if a program's message was wrapped in it."""
        match message:
            case {"cmd": "NODE_HANDLE_ACK"}:
                self._handles.acknowledged(arrived=True)
            case {"cmd": "NODE_HANDLE_NACK"}:
                self._handles.acknowledged(arrived=False)
            case {"cmd": "NODE_HANDLE"}:
                return self._take_handle(message)
            case {"cmd": "NODE_SOCKET_NOTIFY_CLOSE", "key": key}:
                self.tell({"cmd": "NODE_SOCKET_ALL_CLOSED", "key": key})
            case {"cmd": "NODE_SOCKET_GET_COUNT", "key": key}:
                self.tell({"cmd": "NODE_SOCKET_COUNT", "key": key, "count": 0})
            case {"type": "pyipc.event"}:
                logger.warning("%s has sent an event without a good name; it is left out", self.link.peer.address)
            case _:
                self._received(message, None)
        return None

    def _take_handle(self, message: Message) -> bytes | None:
        sock, self._carried = self._carried, None
        if sock is None:
            self.tell(_NACK)
            return None
        self.tell(_ACK)
        frame = as_frame(line(message.get("msg"))[:-1])
        if isinstance(frame, bytes):
            sock.close()
            logger.warning(
                "%s has sent a handle with a message; it is closed, as messages carry none here. The message is "
                "delivered without it",
                self.link.peer.address,
            )
            return frame
        self._received(frame, sock)
        return None

    def _lost(self, how: str) -> pyipc.ConnectionLost:
        return pyipc.ConnectionLost(f"the channel to {self.link.peer.address} {how}", maybe_handled=True)

    def hang_up(self) -> None:
        """Write no more, as the process at the other end is gone. What it wrote can be read, and then comes the end."""
        self._give_up_writing()
        # Elsewhere what was not read yet would be thrown away by it.
        if sys.platform == "linux":
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        # What it has said of connections must not wait until programs here have taken what it has said to them.
        with contextlib.suppress(pyipc.ConnectionLost):
            while not (self._is_closed or self._is_at_end or self.is_behind) and self._read_some():
                pass

    def close(self) -> None:
        """Close this end, at once and more than once. Wakes whoever waits."""
        if self._is_closed:
            return
        self._is_closed = True
        trio.lowlevel.notify_closing(self._socket)
        self._socket.close()
        self._drop_carried()
        self._give_up_writing()
        self._has_news.set()
        self._handles.close()
