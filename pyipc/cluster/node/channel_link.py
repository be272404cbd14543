"""Node's channel as a link, for a connection of pyipc."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import trio

from pyipc.transports import Link

if TYPE_CHECKING:
    from pyipc.cluster.node.channel import NodeChannel
    from pyipc.transports import Peer

__all__ = ["ChannelLink"]


@final
class ChannelLink(Link):
    """The channel, as a connection sees it.

    Args:
        channel: The channel.
        peer: Who is at its other end.
    """

    def __init__(self, channel: NodeChannel, peer: Peer) -> None:
        self._channel = channel
        self._peer = peer

    @property
    def peer(self) -> Peer:
        """Who is on the other side."""
        return self._peer

    def send_nowait(self, data: bytes | bytearray | memoryview) -> int:
        """Take all of ``data``, or nothing while something is unwritten.

        Raises:
            ConnectionLost: The channel is closed.
        """
        return self._channel.send_nowait(bytes(data))

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Take all of ``data``, and wait until it is written.

        Raises:
            ConnectionLost: The channel is closed.

        Cancellation: the channel can then only be closed.
        """
        await self._channel.send(bytes(data))

    async def receive(self) -> bytes:
        """Wait for the next message of a program.

        Raises:
            ConnectionLost: The channel is broken, or closed.

        Cancellation: loses nothing.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        return await self._channel.receive()

    def send_eof(self) -> bool:
        """Tell the other end that nothing follows."""
        self._channel.end_writing()
        return True

    async def aclose(self) -> None:
        """Close the channel.

        Cancellation: it is closed all the same.
        """
        self._channel.close()
        await trio.lowlevel.checkpoint()
