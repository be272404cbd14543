"""Where what a Node primary hands over comes in, in the words of any mailbox of a worker."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import trio

from pyipc.cluster.courier import Mailbox

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyipc.cluster.courier import Carrier, Header

__all__ = ["NodeMailbox"]


class NodeMailbox(Mailbox):
    """Takes connections off the channel. There are few at a time: Node hands over one of each address, and waits.

    Args:
        answer: Tells the primary whether a connection is served here, by its number. Raises
            `trio.BrokenResourceError` if the primary is gone.
    """

    def __init__(self, answer: Callable[[int, bool], None]) -> None:
        self._answer = answer
        self._sender, self._receiver = trio.open_memory_channel[tuple["Header", "Carrier"]](math.inf)

    def put(self, header: Header, carrier: Carrier) -> None:
        """Something was handed over."""
        try:
            self._sender.send_nowait((header, carrier))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            carrier.close()

    def end(self) -> None:
        """Nothing more comes: the primary is gone."""
        self._sender.close()

    async def receive(self) -> tuple[Header, Carrier | None]:
        return await self._receiver.receive()

    def send_nowait(self, header: Header) -> None:
        match header:
            case {"taken": int(number)}:
                self._answer(number, True)
            case {"refused": list(numbers)}:
                for number in numbers:
                    self._answer(int(number), False)
            case _:
                pass  # Node does not want to hear how long a connection lasts

    async def send(self, header: Header) -> None:
        await trio.lowlevel.checkpoint()
        self.send_nowait(header)

    def close(self) -> None:
        self.end()
        while True:
            try:
                _, carrier = self._receiver.receive_nowait()
            except (trio.WouldBlock, trio.EndOfChannel, trio.ClosedResourceError):
                break
            carrier.close()
        self._receiver.close()
