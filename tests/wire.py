"""A peer that is nothing but bytes, for tests of what really goes over the wire; and handlers that wait."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import trio

from pyipc.transports import memory_link_pair

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyipc import Server
    from pyipc.transports import Link, Peer


def frame(event: str, data: Any = None) -> bytes:
    return json.dumps({"type": event, "data": data}, separators=(",", ":")).encode() + b"\f"


def request(call: int, event: str, data: Any = None) -> bytes:
    return frame("pyipc.request", {"call": call, "event": event, "data": data})


def hello(heartbeat: float | None = None) -> bytes:
    return frame("pyipc.hello", {"versions": [1], "heartbeat": heartbeat})


class WirePeer:
    """The other end of a link: sends bytes as they are, and reads frames."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.received = bytearray()
        self._taken = 0

    async def send(self, *frames: bytes) -> None:
        await self.link.send(b"".join(frames))

    async def read(self) -> tuple[str, Any] | None:
        """The next frame; ``None`` at the end of the stream."""
        while (end := self.received.find(b"\f", self._taken)) < 0:
            chunk = await self.link.receive()
            if not chunk:
                assert self._taken == len(self.received), "the stream ended within a frame"
                return None
            self.received += chunk
        message = json.loads(self.received[self._taken : end])
        self._taken = end + 1
        return message["type"], message.get("data")

    async def read_until(self, *events: str) -> Any:
        """The data of the next frame of one of these names; others are skipped."""
        while True:
            read = await self.read()
            assert read is not None, f"the stream ended before {events}"
            if read[0] in events:
                return read[1]

    async def read_all(self, *, without: Sequence[str] = ()) -> list[tuple[str, Any]]:
        """All frames up to the end of the stream."""
        frames = []
        while (read := await self.read()) is not None:
            if read[0] not in without:
                frames.append(read)
        return frames


def join(server: Server, peer: Peer | None = None, *, buffer_size: int = 65_536) -> WirePeer:
    """A new peer of a running server."""
    ours, theirs = memory_link_pair(right=peer, buffer_size=buffer_size)
    server.adopt(theirs)
    return WirePeer(ours)


def lone(broken: Callable[[Any], None] = lambda error: None) -> Any:
    """What stands for the connection of an outbox that is tested alone.

    Args:
        broken: Called with the error when the link takes nothing more.
    """
    return SimpleNamespace(
        _on_write_failure=broken,
        _owner=SimpleNamespace(weigh=lambda connection: None),
        _vigil=SimpleNamespace(watch_writing=lambda: None),
    )


async def stay(about: object) -> None:
    """A handler that never ends by itself."""
    await trio.sleep_forever()


async def give_way(about: object) -> None:
    """A handler that waits for nothing, but lets others run."""
    await trio.lowlevel.checkpoint()
