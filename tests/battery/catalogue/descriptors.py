"""File descriptors that nobody asked for, passed over a Unix socket: none of them is ever taken."""

from __future__ import annotations

import array
import contextlib
import os
import socket
import struct
import tempfile
from typing import TYPE_CHECKING, Any, Final

import trio

import pyipc
from tests.battery.catalogue.cases import (
    PLAIN,
    Case,
    Chapter,
    closed,
    control,
    cut_off,
    frame,
    kept,
    record,
    request,
    says,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["CHAPTER", "PassingLink", "open_count"]

#: As many as the kernel of Linux lets one message have.
MOST: Final = 253
GOOD = frame("e", 1)
HEARD = (("e", 1),)


def passed(name: str, *sends: bytes, what: tuple[str, ...], **outcome: Any) -> Case:
    return kept(name, *sends, passes=what, **{"hears": HEARD, **outcome} if sends == (GOOD,) else outcome)


CASES = (
    passed("a file", GOOD, what=("file",)),
    passed("a directory", GOOD, what=("directory",)),
    passed("the root directory", GOOD, what=("root",)),
    passed("/dev/zero, which never ends", GOOD, what=("zero",)),
    passed("the end of a pipe to read", GOOD, what=("pipe to read",)),
    passed("the end of a pipe to write", GOOD, what=("pipe to write",)),
    passed("a pipe whose other end is closed", GOOD, what=("broken pipe",)),
    passed("a socket", GOOD, what=("socket",)),
    passed("a socket that listens", GOOD, what=("listener",)),
    passed("the socket of the connection itself", GOOD, what=("itself",)),
    passed("the same file twice", GOOD, what=("file", "file")),
    passed("one of each kind", GOOD, what=("file", "directory", "pipe to read", "pipe to write", "socket")),
    passed("253 files, which is the most", GOOD, what=("file",) * MOST),
    passed("253 times the connection itself", GOOD, what=("itself",) * MOST),
    passed("credentials instead", GOOD, what=("credentials",)),
    passed("before the hello", control("hello", versions=[1]), what=("file",), first=PLAIN, told=(says("welcome"),)),
    passed("from a plain peer", GOOD, what=("file",), first=PLAIN),
    passed("with a request", request(1), what=("file",), told=(says("reply", call=1, data=None),)),
    passed("with the first byte of a frame", GOOD[:1], GOOD[1:], what=("file",), hears=HEARD),
    passed("with the last byte of a frame", GOOD[:-1], GOOD[-1:], what=("file",), hears=HEARD),
    passed("with an attachment", record(b"x") + GOOD, what=("file",), hears=(("e", 1, b"x"),)),
    closed("with what is no JSON", "json", b"x\f", passes=("file",)),
    cut_off("with half a frame, and the end of the stream", GOOD[:9], passes=("file",)),
)

CHAPTER = Chapter(
    "File descriptors",
    "Over a Unix socket a peer can pass descriptors to a process that does not expect them. The server reads "
    "without room for any, so the kernel closes them again: none is open in the server afterwards, and the bytes "
    "beside them count as ever.",
    {"Passed": CASES},
)


def open_count() -> int:
    """How many descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))


class PassingLink:
    """A peer that passes descriptors beside the first bytes that it sends after its hello.

    Args:
        sock: A connected Unix socket.
        what: The descriptors.
        first: What goes before them.
    """

    def __init__(self, sock: trio.socket.SocketType, what: tuple[str, ...], first: bytes) -> None:
        self._sock = sock
        self._what = what
        self._first = first

    async def send(self, data: bytes) -> None:
        if data == self._first or not self._what:
            await trio.SocketStream(self._sock).send_all(data)
            return
        what, self._what = self._what, ()
        with contextlib.ExitStack() as opened:
            if what == ("credentials",):
                ids = struct.pack("3i", os.getpid(), os.getuid(), os.getgid())
                note = [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, ids)]
            else:
                numbers = [opened.enter_context(_opened(each, self._sock.fileno())) for each in what]
                note = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", numbers).tobytes())]
            assert await self._sock.sendmsg([data], note) == len(data)

    async def receive(self) -> bytes:
        try:
            return await self._sock.recv(65_536)
        except OSError as error:
            raise pyipc.ConnectionLost(str(error)) from error

    def send_eof(self) -> bool:
        self._sock.shutdown(socket.SHUT_WR)
        return True

    async def aclose(self) -> None:
        self._sock.close()
        await trio.lowlevel.checkpoint()


@contextlib.contextmanager
def _opened(what: str, itself: int) -> Iterator[int]:
    """A descriptor of a kind, as long as it takes to pass it on."""
    paths = {"directory": tempfile.gettempdir(), "root": "/", "zero": "/dev/zero"}
    with contextlib.ExitStack() as opened:
        if what == "itself":
            yield itself
        elif what in paths:
            number = os.open(paths[what], os.O_RDONLY)
            opened.callback(os.close, number)
            yield number
        elif what == "file":
            yield opened.enter_context(tempfile.TemporaryFile()).fileno()
        elif what in ("socket", "listener"):
            sock = opened.enter_context(socket.socket())
            if what == "listener":
                sock.bind(("127.0.0.1", 0))
                sock.listen()
            yield sock.fileno()
        else:
            read, write = os.pipe()
            passed_on, other = (write, read) if what == "pipe to write" else (read, write)
            opened.callback(os.close, passed_on)
            if what == "broken pipe":
                os.close(other)
            else:
                opened.callback(os.close, other)
            yield passed_on
