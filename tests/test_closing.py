"""Closing over a link that has no end of the stream but its closing, as pipes have none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
import trio.testing

import pyipc
from pyipc.transports import Link, memory_link_pair

if TYPE_CHECKING:
    from pyipc.transports import Peer


class Whole(Link):
    """A link that cannot close one direction.

    Args:
        inner: A link that can.
        keeps_sent: Whether it says that nothing is lost by closing it.
    """

    def __init__(self, inner: Link, *, keeps_sent: bool) -> None:
        self.inner = inner
        self.keeps_sent = keeps_sent

    @property
    def peer(self) -> Peer:
        return self.inner.peer

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        await self.inner.send(data)

    async def receive(self) -> bytes:
        return await self.inner.receive()

    async def aclose(self) -> None:
        await self.inner.aclose()


async def close(*, keeps_sent: bool) -> tuple[bytes, float]:
    """Emit to a plain peer that never closes, and close; what it received, and how long that took."""
    ours, theirs = memory_link_pair()
    async with pyipc.Server("memory:closing", close_timeout=7.0) as server:
        server.adopt(Whole(ours, keeps_sent=keeps_sent))
        await trio.testing.wait_all_tasks_blocked()
        (connection,) = server.connections
        for number in range(3):
            await connection.emit("e", number)
        before = trio.current_time()
        await connection.aclose()
        took = trio.current_time() - before
    received = bytearray()
    while chunk := await theirs.receive():
        received += chunk
    return bytes(received), took


ALL = b'{"type":"e","data":0}\f{"type":"e","data":1}\f{"type":"e","data":2}\f'


async def test_nobody_waits_for_a_peer_that_is_not_told_of_the_end(autojump_clock: trio.testing.MockClock) -> None:
    assert await close(keeps_sent=True) == (ALL, 0.0)


async def test_a_link_that_could_lose_what_was_sent_is_read_until_the_peer_closes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    assert await close(keeps_sent=False) == (ALL, 7.0)
