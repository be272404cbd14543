"""Joining two links, so that each side meets the other as if nothing were between them.

Bytes arrive unchanged and in order. Each direction ends on its own, as half-closed connections do.
No more is read from one side than the other takes, so whoever reads slowly holds back whoever
writes, and what is under way here is one chunk in each direction.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import trio

import pyipc

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pyipc.transports import Link

__all__ = ["Break", "Direction", "Watcher", "relay"]

#: Seconds in which a side that takes nothing any more may still be heard.
_LAST_WORDS_TIMEOUT: Final = 5.0


class Direction(enum.Enum):
    """Which way bytes go; the value is its arrow."""

    TO_SERVER = "->"
    TO_CLIENT = "<-"

    @property
    def source(self) -> str:
        """Which side the bytes come from."""
        return "client" if self is Direction.TO_SERVER else "server"

    @property
    def target(self) -> str:
        """Which side they go to."""
        return "server" if self is Direction.TO_SERVER else "client"


#: Is shown every chunk after it was passed on, and ``b""`` for the end of a direction. The next
#: chunk of that direction is read when it returns.
Watcher: TypeAlias = "Callable[[Direction, bytes], Awaitable[None]]"


class Break(NamedTuple):
    """A side that went without a proper end."""

    side: str
    error: pyipc.ConnectionLost


async def relay(client: Link, server: Link, watch: Watcher) -> Break | None:
    """Pass on what two links say to each other until both directions have ended, or one link breaks.

    Args:
        client: Where ``Direction.TO_SERVER`` comes from.
        server: Where it goes.
        watch: Sees what was passed on.

    Both links are closed in the end.

    Returns:
        Which link broke first, if one did.

    Cancellation: closes both links; what was read but not yet passed on is lost.
    """
    broken: dict[str, pyipc.ConnectionLost] = {}
    try:
        async with trio.open_nursery() as nursery:
            ends = nursery.cancel_scope
            nursery.start_soon(_forward, Direction.TO_SERVER, client, server, watch, ends, broken)
            nursery.start_soon(_forward, Direction.TO_CLIENT, server, client, watch, ends, broken)
    finally:
        # A link is closed before it gives way, so cancellation leaves none open.
        with trio.CancelScope(shield=True):
            await client.aclose()
            await server.aclose()
    return next((Break(side, error) for side, error in broken.items()), None)


async def _forward(
    direction: Direction,
    source: Link,
    target: Link,
    watch: Watcher,
    conversation: trio.CancelScope,
    broken: dict[str, pyipc.ConnectionLost],
) -> None:
    """Pass on one direction to its end."""
    while True:
        try:
            chunk = await source.receive()
        except pyipc.ConnectionLost as error:
            # It is gone without a proper end: the other side is to find the same. Reading tells best why.
            broken[direction.source] = error
            conversation.cancel()
            return
        if not chunk:
            break
        try:
            await _send(target, chunk)
        except pyipc.ConnectionLost as error:
            broken.setdefault(direction.target, error)
            # What it said before it went may still be on its way.
            conversation.deadline = min(conversation.deadline, trio.current_time() + _LAST_WORDS_TIMEOUT)
            return
        await watch(direction, chunk)
    if not target.send_eof():
        # A transport without half-closing knows one end only, which is that of both directions.
        conversation.cancel()
    await watch(direction, b"")


async def _send(target: Link, chunk: bytes) -> None:
    # Nearly always there is room, and asking for it costs a turn of the scheduler.
    taken = target.send_nowait(chunk)
    if taken < len(chunk):
        with memoryview(chunk) as view, view[taken:] as rest:
            await target.send(rest)
