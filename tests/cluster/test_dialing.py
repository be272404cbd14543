"""How a worker process that inherits nothing comes to its primary, and how nobody else does. On every system."""

from __future__ import annotations

import secrets
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

import pyipc
from pyipc.cluster.dialing import Channel, Introduced, Reception
from pyipc.transports import transport_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pyipc.transports import Link

MEMORY = transport_for("memory")


class Door:
    """A reception, and what came through it."""

    def __init__(self, address: pyipc.Address, reception: Reception) -> None:
        self.address = address
        self.reception = reception
        self.adopted: dict[Channel, Link] = {}
        self.order: list[str] = []
        self.is_over = trio.Event()

    def adopt(self, channel: Channel, link: Link) -> None:
        assert channel not in self.adopted
        self.adopted[channel] = link
        self.order.append(f"adopted {channel.name}")

    async def run(self) -> None:
        await self.reception.receive(self.adopt)
        self.is_over.set()

    async def dial(self, channel: Channel, token: str | None = None) -> Link:
        """Come as a worker does."""
        transport = Introduced(MEMORY, channel, self.reception.token if token is None else token)
        link = await transport.connect(self.address, {})
        self.order.append(f"welcome {channel.name}")
        return link

    async def say(self, words: bytes) -> bytes:
        """Come as somebody else does; returns what is answered."""
        link = await MEMORY.connect(self.address, {})
        try:
            if words:
                await link.send(words)
            return await link.receive()
        finally:
            await link.aclose()


@asynccontextmanager
async def door() -> AsyncIterator[Door]:
    address = pyipc.parse_address(f"memory:{secrets.token_hex(8)}")
    open_door = Door(address, Reception(await MEMORY.listen(address, {})))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(open_door.run)
        yield open_door
        nursery.cancel_scope.cancel()
    for link in open_door.adopted.values():
        await link.aclose()


async def test_a_process_comes_once_for_each_of_its_connections() -> None:
    async with door() as at:
        links = [await at.dial(channel) for channel in Channel]
        await at.is_over.wait()
        assert set(at.adopted) == set(Channel)
        for channel, link in zip(Channel, links, strict=True):
            await link.send(channel.value * 3)
            assert await at.adopted[channel].receive() == channel.value * 3
            await link.aclose()
        # It is the primary's before the process may speak: what it says and then ends is heard.
        assert at.order == [f"{what} {channel.name}" for channel in Channel for what in ("adopted", "welcome")]
        with pytest.raises(pyipc.ConnectError):
            await MEMORY.connect(at.address, {})


@pytest.mark.parametrize("number", range(6))
async def test_nobody_else_is_let_in(
    number: int, caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    async with door() as at:
        token = bytes.fromhex(at.reception.token)
        words = [b"", b"c", b"c" + token[:-1], b"x" + token, b"c" + token + b"more", b"c" + bytes(len(token))][number]
        assert await at.say(words) == b""
        assert not at.adopted
        assert "somebody else than the worker" in caplog.text
        link = await at.dial(Channel.CONTROL)  # who came first spoils nothing
        await link.aclose()
        assert list(at.adopted) == [Channel.CONTROL]


async def test_a_token_is_good_for_one_connection_of_each_kind() -> None:
    async with door() as at:
        first = await at.dial(Channel.CONTROL)
        with pytest.raises(pyipc.ConnectError, match="does not take this process"):
            await at.dial(Channel.CONTROL)
        with pytest.raises(pyipc.ConnectError, match="does not take this process"):
            await at.dial(Channel.MESSAGES, "00" * 32)
        second = await at.dial(Channel.MESSAGES)
        for link in (first, second):
            await link.aclose()
        assert set(at.adopted) == {Channel.CONTROL, Channel.MESSAGES}


async def test_words_may_come_in_parts() -> None:
    async with door() as at:
        link = await MEMORY.connect(at.address, {})
        for byte in b"m" + bytes.fromhex(at.reception.token):
            await link.send(bytes([byte]))
            await trio.testing.wait_all_tasks_blocked()
        assert await link.receive() == b"\x06"
        await link.aclose()
        assert list(at.adopted) == [Channel.MESSAGES]


async def test_one_who_is_silent_keeps_nobody_waiting() -> None:
    async with door() as at:
        silent = await MEMORY.connect(at.address, {})
        for channel in Channel:
            await (await at.dial(channel)).aclose()
        await at.is_over.wait()
        assert await silent.receive() == b"", "it is sent away when the door is closed"
        await silent.aclose()


async def test_the_door_closes_with_whoever_keeps_it() -> None:
    async with door() as at:
        pass
    with pytest.raises(pyipc.ConnectError):
        await MEMORY.connect(at.address, {})


async def test_nobody_listens_where_a_primary_is_reached() -> None:
    with pytest.raises(pyipc.AddressError):
        await Introduced(MEMORY, Channel.CONTROL, "00").listen(pyipc.parse_address("memory:x"), {})
