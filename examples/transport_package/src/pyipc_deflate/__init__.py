"""``deflate:host:port``: TCP for slow links, with everything compressed on the way.

Written against the public names of pyipc alone. The bytes go over a link of pyipc's own TCP transport, so what is left
to do is to turn chunks into other chunks.
"""

from __future__ import annotations

import dataclasses
import zlib
from typing import TYPE_CHECKING, Final

import trio

import pyipc
from pyipc.transports import Link, Listener, Place, Transport, transport_for

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pyipc import Address, Peer

__all__ = ["DeflateTransport"]

#: The most that `DeflateLink.receive` returns at a time. A thousand bytes can unpack to a megabyte, so what a peer
#: sent is never unpacked as a whole; pyipc looks at each piece and has limits of its own.
MAX_PIECE: Final = 64 * 1024
#: A window of 32 KiB, and neither header nor checksum: TCP has one.
WINDOW_BITS: Final = -15


class DeflateTransport(Transport):
    """Reaches and listens on ``deflate:host:port``.

    Args:
        level: How hard to compress, from 1 (fast) to 9 (small).
        plain_text: Whether addresses beyond this host are fine; compressed is not encrypted. An instance that says so
            is given to an endpoint: ``Endpoint(address, transport=DeflateTransport(plain_text=True))``.
    """

    def __init__(self, *, level: int = 6, plain_text: bool = False) -> None:
        self._level = level
        self._plain_text = plain_text

    async def connect(self, address: Address, options: Mapping[str, object]) -> Link:
        """Connect as TCP does; see `pyipc.transports.Transport.connect`."""
        return DeflateLink(await transport_for("tcp").connect(self._below(address), options), self._level)

    async def listen(self, address: Address, options: Mapping[str, object]) -> Listener:
        """Listen as TCP does; see `pyipc.transports.Transport.listen`."""
        return DeflateListener(await transport_for("tcp").listen(self._below(address), options), self._level)

    def places(self, address: Address) -> Sequence[Place]:
        """The port that an address stands for."""
        return [Place(str(self._below(address)))]

    def _below(self, address: Address) -> Address:
        """The address of the TCP transport that carries the bytes."""
        below = pyipc.parse_address(f"tcp://{address.name}")
        if below.leaves_host and not self._plain_text:
            raise pyipc.InsecureAddress(
                f"{address} would send plain text beyond this host; use a loopback address, or an endpoint with "
                "transport=DeflateTransport(plain_text=True) if that is meant"
            )
        return below


class DeflateLink(Link):
    """Compresses what is sent over another link, and unpacks what is received."""

    def __init__(self, below: Link, level: int) -> None:
        self._below = below
        self._compress = zlib.compressobj(level, zlib.DEFLATED, WINDOW_BITS)
        self._unpack = zlib.decompressobj(WINDOW_BITS)

    def __repr__(self) -> str:
        return f"<DeflateLink over {self._below!r}>"

    @property
    def peer(self) -> Peer:
        """Who is on the other side, with an address of this scheme."""
        return dataclasses.replace(self._below.peer, address=_above(self._below.peer.address))

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Compress ``data`` and send all of it, so that the peer has it without waiting for more."""
        packed = self._compress.compress(data) + self._compress.flush(zlib.Z_SYNC_FLUSH) if data else b""
        await self._below.send(packed)

    async def receive(self) -> bytes:
        """Wait for the next piece, of at most 64 KiB."""
        packed = self._unpack.unconsumed_tail
        if packed:
            await trio.lowlevel.checkpoint()  # a peer's bomb takes its turn like everybody else
        while True:
            if self._unpack.eof:
                # All that comes after it would only be collected, out of sight of every limit.
                raise pyipc.ConnectionLost(f"{self.peer.address} ended its compressed stream and kept the connection")
            if not packed and not (packed := await self._below.receive()):
                return b""
            try:
                piece = self._unpack.decompress(packed, MAX_PIECE)
            except zlib.error as error:
                raise pyipc.ConnectionLost(
                    f"{self.peer.address} sent what is not compressed; let it use a deflate: address too"
                ) from error
            if piece:
                return piece
            packed = self._unpack.unconsumed_tail

    def send_eof(self) -> bool:
        """Tell the peer that nothing more will be sent."""
        return self._below.send_eof()

    async def aclose(self) -> None:
        """Close the link below."""
        await self._below.aclose()


class DeflateListener(Listener):
    """Puts a `DeflateLink` around every link that another listener accepts."""

    def __init__(self, below: Listener, level: int) -> None:
        self._below = below
        self._level = level

    @property
    def address(self) -> Address:
        """Where it listens, with the port that was really taken."""
        return pyipc.parse_address(_above(str(self._below.address)))

    async def accept(self) -> Link:
        """Wait for the next peer."""
        return DeflateLink(await self._below.accept(), self._level)

    async def aclose(self) -> None:
        """Stop listening."""
        await self._below.aclose()


def _above(address: str) -> str:
    return f"deflate:{address.removeprefix('tcp://')}"
