"""Links as trio's own checks want to see a stream."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

import trio

from pyipc.errors import ConnectionLost

if TYPE_CHECKING:
    from pyipc.transports import Link

__all__ = ["HalfCloseableLinkStream", "LinkStream"]


class LinkStream(trio.abc.Stream):
    """A stream over a link.

    Args:
        link: The link; the stream owns it.
    """

    def __init__(self, link: Link) -> None:
        self.link = link
        self.unread = b""
        self.sending = self.closed = self.finished = False

    def translated(self) -> Exception:
        """What a stream raises where a link raises `ConnectionLost`."""
        return trio.ClosedResourceError() if self.closed else trio.BrokenResourceError()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self.closed or self.finished:
            await trio.lowlevel.checkpoint()
            raise trio.ClosedResourceError
        self.sending = True
        try:
            await self.link.send(data)
        except ConnectionLost as error:
            raise self.translated() from error
        finally:
            self.sending = False

    async def wait_send_all_might_not_block(self) -> None:
        # Links have no such thing; while nothing is clogged, this will do.
        await self.send_all(b"")

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if max_bytes is not None and operator.index(max_bytes) < 1:
            raise ValueError
        if not self.unread:
            try:
                self.unread = await self.link.receive()
            except ConnectionLost as error:
                raise self.translated() from error
        else:
            await trio.lowlevel.checkpoint()
        chunk = self.unread[:max_bytes]
        self.unread = self.unread[len(chunk) :]
        return chunk

    async def aclose(self) -> None:
        self.closed = True
        await self.link.aclose()


class HalfCloseableLinkStream(LinkStream, trio.abc.HalfCloseableStream):
    """The same over a link that can close one direction."""

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.sending:
            raise trio.BusyResourceError
        self.finished = True
        assert self.link.send_eof()
