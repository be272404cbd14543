"""Who comes to a command that listens by itself: it has a time to prove who it is, and may not be allowed."""

from __future__ import annotations

import pytest
import trio
import trio.testing

import pyipc
from pyipc.cli.peers import check_peer
from pyipc.transports import Link


class Comer(Link):
    """Somebody who came.

    Args:
        error: What its handshake ends with; it never ends if there is none.
        needed: Whether there is one.
    """

    def __init__(self, error: Exception | None = None, *, needed: bool = True) -> None:
        self.needs_handshake = needed
        self.closed = False
        self._error = error

    @property
    def peer(self) -> pyipc.Peer:
        return pyipc.Peer(address="tls://192.0.2.1:9", host="192.0.2.1")

    async def handshake(self) -> None:
        if self._error is None:
            await trio.sleep_forever()
        else:
            raise self._error

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        raise AssertionError("nothing is to be said")

    async def receive(self) -> bytes:
        raise AssertionError("nothing is to be heard")

    async def aclose(self) -> None:
        self.closed = True
        await trio.lowlevel.checkpoint()


ENDPOINT = pyipc.Endpoint("memory:anywhere", allow=pyipc.ANYONE)


async def test_who_proves_nothing_in_time_is_turned_away(autojump_clock: trio.testing.MockClock) -> None:
    comer = Comer()
    with pytest.raises(pyipc.HandshakeFailed, match="no handshake within 5 s") as caught:
        await check_peer(ENDPOINT, comer)
    assert (caught.value.code, comer.closed) == ("timeout", True)


async def test_who_fails_is_turned_away() -> None:
    error = pyipc.HandshakeFailed("not-tls", "it speaks something else")
    comer = Comer(error)
    with pytest.raises(pyipc.HandshakeFailed) as caught:
        await check_peer(ENDPOINT, comer)
    assert caught.value is error
    assert comer.closed


async def test_who_is_not_allowed_is_turned_away() -> None:
    comer = Comer(needed=False)
    with pytest.raises(pyipc.PeerNotAllowed):
        await check_peer(pyipc.Endpoint("memory:anywhere", allow=lambda peer: False), comer)
    assert comer.closed


async def test_who_is_allowed_stays() -> None:
    comer = Comer(needed=False)
    await check_peer(ENDPOINT, comer)
    assert not comer.closed


async def test_a_cancelled_handshake_leaves_nothing_open() -> None:
    comer = Comer()
    with trio.CancelScope() as scope:
        scope.cancel()
        await check_peer(ENDPOINT, comer)
    assert scope.cancelled_caught
    assert comer.closed
