"""Handing connections to a Node worker, in the words of Node's ``cluster`` module.

Node takes one handle at a time and answers each with whether its server has taken the connection. It never tells when a
connection has ended; so here one counts as open until the worker is next heard of.
"""

from __future__ import annotations

import collections
import functools
import math
import socket
from typing import TYPE_CHECKING, Final

import trio

import pyipc
from pyipc.cluster.courier import Courier

if TYPE_CHECKING:
    from pyipc.cluster.courier import Carrier, Header
    from pyipc.cluster.node.channel import NodeChannel
    from pyipc.cluster.node.lines import Message

__all__ = ["NodeCourier"]

# Seconds that the last words of a process may take to be read once it has ended.
_LAST_WORDS: Final = 5.0


class NodeCourier(Courier):
    """The primary's end.

    Args:
        channel: What carries the connections.
    """

    def __init__(self, channel: NodeChannel) -> None:
        self._channel = channel
        self._notes: collections.deque[Header] = collections.deque()
        self._has_news = trio.Event()
        self._taken: list[int] = []
        # Another name of a claim, under which Node knows it, where one server of Node's has two addresses of ours.
        self._names: dict[str, str] = {}
        self._listening: dict[str, list[socket.socket | None]] = {}
        self._end_at = math.inf
        self._is_closed = False

    # --- for whoever hands over ---

    def send_nowait(self, header: Header, carrier: Carrier | None = None) -> None:
        """As `Courier.send_nowait`. There is room for as many as policies let be under way, and descriptors."""
        if self._is_closed:
            raise trio.ClosedResourceError("the courier is closed")
        if self._channel.is_closed:
            raise trio.BrokenResourceError("the channel of the worker is closed")
        if not isinstance(carrier, socket.socket):
            raise TypeError(f"only sockets can be carried here, and not {carrier!r}")
        match header:
            case {"claim": str(claim), "number": int(number)}:
                message = {
                    "cmd": "NODE_CLUSTER",
                    "act": "newconn",
                    "key": self._names.get(claim, claim),
                    "seq": number,
                }
                try:
                    self._channel.hand(message, carrier, lost=functools.partial(self._note, {"refused": [number]}))
                except OSError as error:  # no descriptor is left for a copy; others may close theirs
                    raise trio.WouldBlock from error
            case {"listening": str(claim)}:
                self._listening.setdefault(claim, []).append(_copy(carrier))
                self._wake()

    async def send(self, header: Header, carrier: Carrier | None = None) -> None:
        """As `Courier.send`.

        Cancellation: nothing was sent.
        """
        await trio.lowlevel.checkpoint()
        self.send_nowait(header, carrier)

    async def receive(self) -> Header:
        """As `Courier.receive`.

        Cancellation: loses nothing.
        """
        await trio.lowlevel.checkpoint()
        while not self._notes:
            if self._is_closed:
                raise trio.ClosedResourceError("the courier is closed")
            if trio.current_time() >= self._end_at:
                raise trio.EndOfChannel
            with trio.move_on_at(self._end_at):
                await self._has_news.wait()
        return self._notes.popleft()

    def finish(self) -> None:
        """As `Courier.finish`. What the worker has written of connections is in its channel, behind its last words."""
        self._end_at = min(self._end_at, trio.current_time() + _LAST_WORDS)
        self._wake()

    def end(self) -> None:
        """The channel was read to its end: there are no more notes."""
        self._end_at = -math.inf
        self._wake()

    def close(self) -> None:
        """As `Courier.close`."""
        self._is_closed = True
        for sockets in self._listening.values():
            for sock in sockets:
                if sock is not None:
                    sock.close()
        self._listening.clear()
        self._wake()

    # --- for the process ---

    def answered(self, message: Message) -> None:
        """The worker says what has become of a connection."""
        number = message.get("ack")
        if type(number) is int:  # and not a truth value
            if message.get("accepted") is True:
                self._taken.append(number)
                self._note({"taken": number})
            else:
                self._note({"refused": [number]})

    def heard_of(self) -> None:
        """The worker was heard of: what it has taken before may have come to its end."""
        if self._taken:
            taken, self._taken = self._taken, []
            self._note({"closed": taken})

    def rename(self, claim: str, name: str) -> None:
        """Have connections of one claim handed over under the name of another, or of that itself again."""
        self._names[claim] = name

    async def listening(self, claim: str, count: int) -> list[socket.socket]:
        """The listening sockets of a claim, once they are there; they are the caller's then.

        Raises:
            ListenError: There were not enough descriptors left for them.

        Cancellation: they are closed with the courier.
        """
        await trio.lowlevel.checkpoint()
        while len(self._listening.get(claim, ())) < count:
            await self._has_news.wait()
        came = self._listening.pop(claim, [])
        sockets = [sock for sock in came if sock is not None]
        if len(sockets) < len(came):
            for sock in sockets:
                sock.close()
            raise pyipc.ListenError("there are no descriptors left; raise the limit of open files")
        return sockets

    def _note(self, note: Header) -> None:
        self._notes.append(note)
        self._wake()

    def _wake(self) -> None:
        self._has_news.set()
        self._has_news = trio.Event()


def _copy(sock: socket.socket) -> socket.socket | None:
    """A copy, if there is a descriptor left for it."""
    try:
        return sock.dup()
    except OSError:
        return None
