"""What servers of one address say to everybody, brought to the clients of all of them, whichever worker they are with.

Each worker with such a server has a connection with its primary for this alone: neither pulses nor what programs say to
each other wait behind it. Servers broadcast and publish without waiting, so what there is no room for is dropped and
counted, as it is for a client that is too slow.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import logging
import math
from typing import TYPE_CHECKING, Any, Final

import trio

import pyipc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterator, Sequence

    from pyipc.cluster.linking import Linking
    from pyipc.transports import Link

__all__ = ["Exchange", "Membership"]

logger: logging.Logger = logging.getLogger("pyipc.cluster")

# What is said. All data has `at`: the addresses that it is about.
_JOIN: Final = "join"
_LEAVE: Final = "leave"
_BROADCAST: Final = "broadcast"
_PUBLISH: Final = "publish"
_FORGET: Final = "forget"

# Nobody but this process's own workers can connect.
_MANY: Final = 1_000_000
# What is kept for servers that start later, of each address; every server has smaller limits of its own, usually.
_MAX_KEPT: Final = 65_536
_MAX_KEPT_SIZE: Final = 64 * 1024 * 1024
# Seconds that it is kept once nobody serves the address.
_HANDOVER_TIME: Final = 2.0
# A message between servers has their names around it.
_ENVELOPE_SIZE: Final = 64 * 1024
# What may wait to be sent; beyond that it is dropped.
_ROOM: Final = 8 * 1024 * 1024


def _options(options: dict[str, Any]) -> dict[str, Any]:
    """Those of a connection for this."""
    frame = options["max_frame_size"] + _ENVELOPE_SIZE
    room = max(_ROOM, 2 * frame)
    limits = {"max_frame_size": frame, "outbox_high_water_size": _ROOM, "max_outbox_size": room, "max_inbox_size": room}
    return options | limits | {"slow_peer": "drop"}


@dataclasses.dataclass(eq=False, slots=True)
class _Kept:
    """What is retained at one address, by topic."""

    messages: dict[str, tuple[bytes, Sequence[bytes], bool]] = dataclasses.field(default_factory=dict)
    size: int = 0
    unserved_since: float = math.inf

    def keep(self, topic: str, data: object, attachments: Sequence[bytes], *, by_peer: bool) -> bool:
        """Keep a message in the place of an earlier one; say whether there was room."""
        self.drop(topic)
        text = json.dumps(data).encode()
        size = len(text) + sum(map(len, attachments))
        if len(self.messages) >= _MAX_KEPT or self.size + size > _MAX_KEPT_SIZE:
            return False
        self.messages[topic] = (text, attachments, by_peer)
        self.size += size
        return True

    def drop(self, topic: str) -> None:
        if (before := self.messages.pop(topic, None)) is not None:
            self.size -= len(before[0]) + sum(map(len, before[1]))

    def forget(self, pattern: str) -> None:
        matching = pyipc.Router()
        matching.on(pattern, lambda message: None)
        for topic in [each for each in self.messages if matching.handlers_for(each)]:
            self.drop(topic)


class Exchange:
    """The primary's part: passes on what comes from one worker to all others that serve one of its addresses.

    Args:
        options: For connections with workers.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        router = pyipc.Router()
        router.on(_JOIN, self._join)
        router.on(_LEAVE, self._leave)
        for name in (_BROADCAST, _PUBLISH, _FORGET):
            router.on(name, self._pass_on)
        limits = {"max_connections": _MANY, "max_connections_per_peer": _MANY}
        self._server = pyipc.Server(router=router, plain_peers=False, **_options(options) | limits)
        self._server.on_disconnect(self._on_disconnect)
        self._members: dict[object, dict[str, int]] = {}
        self._kept: dict[str, _Kept] = {}

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve workers, for the length of a block."""
        async with contextlib.AsyncExitStack() as servers:
            with pyipc.hosted_by(None):  # in a worker of another cluster it is no server of that worker
                await servers.enter_async_context(self._server)
            yield

    def adopt(self, link: Link) -> None:
        """Let a worker take part.

        Raises:
            RuntimeError: It does not run.
        """
        self._server.adopt(link)

    async def _join(self, message: pyipc.Message[Any]) -> None:
        """A server serves; it gets what was retained before it was there."""
        self._tidy()
        served = self._members.setdefault(message.connection, {})
        for address in message.data["at"]:
            served[address] = served.get(address, 0) + 1
            kept = self._kept.setdefault(address, _Kept()).messages
            for topic in list(kept):
                if topic not in kept:
                    continue  # it was let go of while there was no room
                text, attachments, by_peer = kept[topic]
                told = {"at": [address], "topic": topic, "data": json.loads(text), "retain": True, "by_peer": by_peer}
                with contextlib.suppress(pyipc.ConnectionClosed):
                    await message.connection.emit(_PUBLISH, told | {"kept": True}, attachments=attachments)

    def _leave(self, message: pyipc.Message[Any]) -> None:
        """A server serves no more."""
        served = self._members.get(message.connection, {})
        for address in message.data["at"]:
            served[address] = served.get(address, 0) - 1
            if served[address] <= 0:
                del served[address]
        self._tidy()

    def _on_disconnect(self, ended: pyipc.Disconnected) -> None:
        self._members.pop(ended.connection, None)
        self._tidy()

    def _tidy(self) -> None:
        """What was retained goes with the last server, as it does without a cluster, unless another follows soon.

        Of one that takes its place it may be heard only after the last one has left, over another connection.
        """
        now = trio.current_time()
        served = {address for each in self._members.values() for address in each}
        for address, kept in list(self._kept.items()):
            if address in served:
                kept.unserved_since = math.inf
            elif now - kept.unserved_since > _HANDOVER_TIME:
                del self._kept[address]
            else:
                kept.unserved_since = min(kept.unserved_since, now)

    def _pass_on(self, message: pyipc.Message[Any]) -> None:
        data, places = message.data, set(message.data["at"])
        for address in places & self._kept.keys():
            kept = self._kept[address]
            if message.event == _FORGET:
                kept.forget(data["pattern"])
            elif data.get("retain") and not kept.keep(
                data["topic"], data["data"], message.attachments, by_peer=data["by_peer"]
            ):
                logger.warning("%s: there is no room to keep %r for servers that start later", address, data["topic"])
        self._server.broadcast_nowait(
            message.event,
            data,
            attachments=message.attachments,
            exclude=message.connection,
            where=lambda other: not places.isdisjoint(self._members.get(other, ())),
        )


class Membership:
    """A worker's part: says what its servers say, and hands them what those of other workers have said.

    Args:
        links: Connects to the primary's `Exchange`; ``None`` if that has none, and servers speak to their own clients.
        options: For connections with the primary.
    """

    def __init__(self, links: Linking | None, options: dict[str, Any]) -> None:
        router = pyipc.Router()
        router.on(_BROADCAST, self._take_broadcast)
        router.on(_PUBLISH, self._take_published)
        router.on(_FORGET, self._take_forgotten)
        self._primary = None if links is None else functools.partial(links.to_primary, router, _options(options))
        self._client: pyipc.Client | None = None
        self._servers: dict[pyipc.Server, list[str]] = {}
        # Of which topics a server here has had something retained.
        self._own: set[str] = set()
        self._dropped = 0

    async def open(self) -> None:
        """Connect, if that was not done yet.

        Raises:
            ConnectionClosed: The primary is gone.

        Cancellation: there may be no connection.
        """
        if self._client is None and self._primary is not None:
            self._client = await self._primary().client()

    # --- what servers say ---

    def join(self, server: pyipc.Server, places: Collection[str]) -> None:
        """A server serves at some addresses of the cluster."""
        self._servers[server] = sorted(places)
        self._say(server, _JOIN, {})

    def leave(self, server: pyipc.Server) -> None:
        """A server serves no more."""
        self._say(server, _LEAVE, {})
        self._servers.pop(server, None)

    def broadcast(
        self, server: pyipc.Server, event: str, data: object, attachments: Sequence[Any], traceparent: str
    ) -> None:
        """See `pyipc.Host.broadcast`."""
        told = {"event": event, "data": data, "traceparent": traceparent}
        self._say(server, _BROADCAST, told, attachments)

    def publish(
        self,
        server: pyipc.Server,
        topic: str,
        data: object,
        attachments: Sequence[Any],
        *,
        retain: bool,
        by_peer: bool,
        traceparent: str,
    ) -> None:
        """See `pyipc.Host.publish`."""
        if retain:
            self._own.add(topic)
        told = {"topic": topic, "data": data, "retain": retain, "by_peer": by_peer, "traceparent": traceparent}
        self._say(server, _PUBLISH, told, attachments)

    def forget(self, server: pyipc.Server, pattern: str) -> None:
        """See `pyipc.Host.forget`."""
        self._say(server, _FORGET, {"pattern": pattern})

    def _say(self, server: pyipc.Server, event: str, data: dict[str, Any], attachments: Sequence[Any] = ()) -> None:
        places = self._servers.get(server)
        if not places or self._client is None:
            return
        try:
            self._client.emit_nowait(event, {"at": places} | data, attachments=attachments)
        except (trio.WouldBlock, pyipc.ConnectionClosed, pyipc.LocalProtocolError) as error:
            self._dropped += 1
            if str(self._dropped).strip("0") == "1":  # 1, 10, 100 and so on
                why = str(error) or "the primary does not keep up"
                logger.warning(
                    "what was said to clients of other workers is dropped (%s so far): %s", self._dropped, why
                )

    # --- what others have said ---

    def _at(self, message: pyipc.Message[Any]) -> list[pyipc.Server]:
        places = set(message.data["at"])
        return [server for server, own in self._servers.items() if not places.isdisjoint(own)]

    def _take_broadcast(self, message: pyipc.Message[Any]) -> None:
        data = message.data
        for server in self._at(message):
            with _told():
                server.hand_in_broadcast(
                    data["event"], data["data"], attachments=message.attachments, traceparent=data["traceparent"]
                )

    def _take_published(self, message: pyipc.Message[Any]) -> None:
        data = message.data
        if data.get("kept") and data["topic"] in self._own:
            return  # what this worker has said since is newer
        for server in self._at(message):
            with _told():
                server.hand_in_published(
                    data["topic"],
                    data["data"],
                    attachments=message.attachments,
                    retain=data["retain"],
                    by_peer=data["by_peer"],
                    traceparent=data.get("traceparent", ""),
                )

    def _take_forgotten(self, message: pyipc.Message[Any]) -> None:
        for server in self._at(message):
            server.hand_in_forgotten(message.data["pattern"])


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """What one server cannot send, such as more than its clients take, is told, and hurts nobody else."""
    try:
        yield
    except pyipc.LocalProtocolError as error:
        logger.warning("what a server of another worker has said cannot be said here: %s", error)
