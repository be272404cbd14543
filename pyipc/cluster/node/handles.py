"""Sockets that go along with messages, one at a time, each until it was acknowledged; and pings, which go the same way.

A message of the kind ``NODE_HANDLE`` that comes without a handle is answered with a NACK at once, behind everything
that was sent before: by Node itself, whatever its program does. So it serves as a ping. It must not be under way
together with a handle: read in one go, it would be taken for the message that the handle is of.
"""

from __future__ import annotations

import array
import collections
import socket
from typing import TYPE_CHECKING, Any, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Handle", "Handles", "ancillary"]

# Node gives up after so many as well.
_MAX_ATTEMPTS: Final = 4


class Handle:
    """What is acknowledged.

    Args:
        text: The line.
        sock: The socket; ``None`` for a ping.
        lost: Called if the other end cannot take the socket.
        keeps: Whether the socket is somebody else's, and not to be closed in the end.

    Attributes:
        answered: Is set when it was acknowledged, or will not be.
        attempts: How often it was sent.
    """

    __slots__ = ("_keeps", "answered", "attempts", "lost", "sock", "text")

    def __init__(
        self, text: bytes, sock: socket.socket | None, lost: Callable[[], None], *, keeps: bool = False
    ) -> None:
        self.text: bytes = text
        self.sock: socket.socket | None = sock
        self.lost: Callable[[], None] = lost
        self._keeps = keeps
        self.attempts: int = 0
        self.answered: trio.Event = trio.Event()

    def close(self) -> None:
        """It has arrived, or will not."""
        if self.sock is not None and not self._keeps:
            self.sock.close()
        self.answered.set()


class Handles:
    """Those that wait, and the one that is under way.

    Args:
        write: Writes a line with a socket.
    """

    def __init__(self, write: Callable[[bytes, socket.socket | None], None]) -> None:
        self._write = write
        self._waiting: collections.deque[Handle] = collections.deque()
        self._under_way: Handle | None = None

    def add(self, handle: Handle) -> None:
        """Send it when those before it were acknowledged."""
        self._waiting.append(handle)
        if self._under_way is None:
            self._send_next()

    def acknowledged(self, *, arrived: bool) -> None:
        """The other end has answered what is under way."""
        handle = self._under_way
        if handle is None:
            return
        if handle.sock is not None and not arrived:
            if handle.attempts < _MAX_ATTEMPTS:
                self._waiting.appendleft(handle)
                self._send_next()
                return
            handle.lost()
        handle.close()
        self._send_next()

    def _send_next(self) -> None:
        self._under_way = handle = self._waiting.popleft() if self._waiting else None
        if handle is not None:
            handle.attempts += 1
            self._write(handle.text, handle.sock)

    def close(self) -> None:
        """Nothing is sent any more."""
        if self._under_way is not None:
            self._under_way.close()
            self._under_way = None
        while self._waiting:
            self._waiting.popleft().close()


def ancillary(sock: socket.socket | None) -> list[tuple[int, int, Any]]:
    """What goes along with the first byte of a line, for ``sendmsg``."""
    if sock is None or sock.fileno() < 0:  # acknowledged before it was sent, which no Node does
        return []
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [sock.fileno()]))]
