"""A Node program as the parent of this process: what it is told, which is little, and what it is spared."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import trio

from pyipc.cluster.errors import ClusterError
from pyipc.cluster.node.channel import NodeChannel
from pyipc.cluster.node.mailbox import NodeMailbox
from pyipc.cluster.node.patience import PatientLink
from pyipc.cluster.superior import Grant, Superior
from pyipc.transports import transport_for

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    import pyipc
    from pyipc.cluster.node.lines import Message
    from pyipc.transports import Claim

__all__ = ["NodeParent"]

logger: logging.Logger = logging.getLogger("pyipc.cluster")


class NodeParent(Superior):
    """The parent of a child that is no worker of Node's cluster. It shares no addresses: the child listens by itself.

    Args:
        sock: The channel; it belongs to this object from here on.
        max_message_size: The largest message that is taken, in bytes.

    Attributes:
        name: What it is called in the log.
        channel: The channel.
        link: For the connection that programs talk over.
        mailbox: Where what is listened on comes in.
    """

    name = "the Node parent"

    def __init__(self, sock: socket.socket, max_message_size: int) -> None:
        self.channel: NodeChannel = NodeChannel(
            sock, self.name, self.received, max_message_size=max_message_size, pid=os.getppid()
        )
        self.link: PatientLink = PatientLink(self.channel.link)
        self.mailbox: NodeMailbox = NodeMailbox(self.answer)
        self._claims: dict[str, Claim] = {}
        self._nursery: trio.Nursery | None = None

    def received(self, message: Message, sock: socket.socket | None) -> None:
        """Something has come that is no program's."""
        logger.debug("nothing here is about %r", message.get("cmd"))
        if sock is not None:
            sock.close()

    def answer(self, number: int, is_taken: bool) -> None:
        """Say whether a connection is served here.

        Raises:
            trio.BrokenResourceError: The parent is gone.
        """
        raise trio.BrokenResourceError

    def lost(self) -> None:
        """The parent is gone, or has closed the channel."""
        self.mailbox.end()

    # --- as for any superior ---

    @property
    def is_connected(self) -> bool:
        return not self.channel.is_closed

    async def online(self) -> None:
        await trio.lowlevel.checkpoint()

    async def keep_in_touch(self) -> None:
        try:
            async with trio.open_nursery() as self._nursery:
                await trio.sleep_forever()
        finally:
            self._nursery = None
            with trio.CancelScope(shield=True):
                while self._claims:
                    await self._claims.popitem()[1].aclose()

    def ready(self) -> None:
        self.link.settle()

    async def flush(self) -> None:
        await trio.lowlevel.checkpoint()

    async def failed(self, why: str) -> None:
        await trio.lowlevel.checkpoint()  # it has nowhere to put that; the program's traceback is on standard error

    def taking(self, event: str) -> None:
        self.link.taking(event)

    async def asking(self) -> None:
        await trio.lowlevel.checkpoint()

    def shares(self, address: pyipc.Address) -> bool:
        return False

    async def listen(self, address: pyipc.Address, turn: int, options: Mapping[str, object]) -> Grant:
        claim = await transport_for(address.scheme).claim(address, options)
        if not claim.sockets:
            await claim.aclose()
            raise ClusterError(f"what listens on {address} are no sockets; listen there with a pyipc.Server")
        key = f"{address}#{turn}"
        self._claims[key] = claim
        for sock in claim.sockets:
            self.mailbox.put({"listening": key}, sock.dup())
        return Grant(key, claim.address, len(claim.sockets))

    async def listening(self, grant: Grant) -> None:
        await trio.lowlevel.checkpoint()

    def unlisten(self, claim: str) -> None:
        if self._nursery is not None and claim in self._claims:
            self._nursery.start_soon(self._claims.pop(claim).aclose)

    async def leave(self, messages: pyipc.Client, *, for_good: bool) -> None:
        await messages.wait_handled()
