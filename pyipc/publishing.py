"""What the program of a server can do with topics, of which the server is the hub."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from pyipc.attaching import frozen
from pyipc.errors import PeerLacksFeature, UnsupportedByTransport
from pyipc.identity import AGENT
from pyipc.protocol.conversation import Role
from pyipc.protocol.features import TOPICS
from pyipc.protocol.parcels import NO_ATTACHMENTS, listed
from pyipc.subscription import MAX_BUFFERED_SIZE
from pyipc.transports.registry import transport_for

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyipc.draining import ServerOwner
    from pyipc.endpoint import Endpoint
    from pyipc.hub import Hub
    from pyipc.options import Options
    from pyipc.protocol.parcels import Buffer
    from pyipc.statistics import BroadcastReport
    from pyipc.subscription import Policy, Subscription

__all__ = ["TopicServer"]


class TopicServer:
    """What a server can do with topics."""

    _hub: Hub
    _owner: ServerOwner
    _endpoints: list[Endpoint]
    _options: Options
    # Whether a peer of this server can take part in topics, once that was looked up.
    _has_topics: bool = False

    async def publish(
        self,
        topic: str,
        data: object = None,
        *,
        retain: bool = False,
        attachments: Iterable[Buffer] = NO_ATTACHMENTS,
        traceparent: str = "",
    ) -> BroadcastReport:
        """Send something to every client that has subscribed to its name, on every address.

        It is encoded once, and nobody waits for the slowest: a client whose outbox is full is closed, or misses this
        message, as the option ``slow_peer`` says. A client gets it once, however many of its subscriptions match.

        Args:
            topic: The name.
            data: Anything that has a JSON form.
            retain: Whether to keep it, in the place of an earlier one, for those who subscribe later; see `forget`.
            attachments: Buffers of bytes; see `Connection.emit`. Clients that take none do not get it, which is counted
                as dropped.
            traceparent: Which span of a trace it comes from, as W3C Trace Context writes it. It is not kept with it.

        Returns:
            To how many clients it was sent, and for how many it was dropped.

        Raises:
            LocalProtocolError: The name, the data or the attachments cannot be sent, or there is no room to keep them;
                nothing was sent.
            UnsupportedByTransport: The server has only addresses over which there are no topics.

        Cancellation: a cancelled publish has sent nothing. Always a schedule point.
        """
        await trio.lowlevel.checkpoint()
        return self.publish_nowait(topic, data, retain=retain, attachments=attachments, traceparent=traceparent)

    def publish_nowait(
        self,
        topic: str,
        data: object = None,
        *,
        retain: bool = False,
        attachments: Iterable[Buffer] = NO_ATTACHMENTS,
        traceparent: str = "",
    ) -> BroadcastReport:
        """Like `publish`, for plain functions: without giving way to other tasks.

        Raises:
            LocalProtocolError: As `publish`.
        """
        self._check_topics()
        if self._owner.watch is not None and not traceparent:
            traceparent = self._owner.watch.traceparent()
        records = () if attachments is NO_ATTACHMENTS else frozen(listed(attachments))
        return self._hub.publish(topic, data, records, retain=retain, traceparent=traceparent)

    def hand_in_published(
        self,
        topic: str,
        data: object,
        *,
        attachments: Iterable[Buffer] = NO_ATTACHMENTS,
        retain: bool = False,
        by_peer: bool = False,
        traceparent: str = "",
    ) -> BroadcastReport:
        """Publish what was published at another server: for the `Host` of both.

        Like `publish_nowait`, except that the host is not told of it again.

        Args:
            topic: The name.
            data: Anything that has a JSON form.
            attachments: Buffers of bytes.
            retain: Whether to keep it for those who subscribe later.
            by_peer: Whether a client of the other server did it. What clients have kept leaves room for all that the
                program itself may.
            traceparent: Which span of a trace it comes from.

        Raises:
            LocalProtocolError: The name, the data or the attachments cannot be sent, or there is no room to keep them;
                nothing was sent.
        """
        records = frozen(listed(attachments))
        return self._hub.publish(
            topic, data, records, retain=retain, traceparent=traceparent, is_own=not by_peer, is_new=False
        )

    def subscribe(
        self,
        pattern: str,
        *,
        max_buffered: int = 1_024,
        max_buffered_size: int = MAX_BUFFERED_SIZE,
        policy: Policy = "drop_oldest",
        retained: bool = True,
    ) -> Subscription:
        """What is published under names that match, for the length of an ``async with`` block, for this program itself.

        As `Client.subscribe`, without a wire between: what clients publish and what this program does. A message's
        ``connection`` is that of the client which published it; ``None`` where this program did, and of what was
        retained.

        Args:
            pattern: A name, or a pattern as for handlers.
            max_buffered: Messages that may wait in it.
            max_buffered_size: Bytes of JSON and attachments that they may have in all; a single one may have more.
            policy: What happens when there would be more: ``"drop_oldest"``, ``"drop_newest"``, or ``"close"``.
            retained: Whether to begin with the last message of each topic of which it is kept.

        Raises:
            InvalidEventName: The pattern is not valid.
            ValueError: Another argument is not.
            UnsupportedByTransport: The server has only addresses over which there are no topics.
        """
        self._check_topics()
        return self._hub.make(
            pattern,
            max_buffered=max_buffered,
            max_buffered_size=max_buffered_size,
            policy=policy,
            retained=retained,
        )

    def forget(self, pattern: str) -> int:
        """Let go of retained messages: whoever subscribes from now on does not get them.

        Args:
            pattern: A topic, or a pattern for many; ``"**"`` for all.

        Returns:
            How many there were.

        Raises:
            InvalidEventName: The pattern is not valid.
        """
        return self._hub.forget(pattern)

    def hand_in_forgotten(self, pattern: str) -> int:
        """Let go of what another server's program has let go of: for the `Host` of both.

        Like `forget`, except that the host is not told of it again.

        Args:
            pattern: A topic, or a pattern for many.

        Returns:
            How many retained messages there were.

        Raises:
            InvalidEventName: The pattern is not valid.
        """
        return self._hub.forget(pattern, is_new=False)

    def _check_topics(self) -> None:
        """Raise if no peer of this server can ever take part in topics."""
        if self._has_topics:
            return
        refusal: UnsupportedByTransport | None = None
        for endpoint in self._endpoints:
            transport = endpoint.transport or transport_for(endpoint.parsed.scheme)
            max_size = transport.max_chunk_size(endpoint.parsed)
            try:
                endpoint.converse(Role.SERVER, self._options, agent=AGENT, max_size=max_size).check_feature(TOPICS)
            except UnsupportedByTransport as error:
                refusal = error
            except PeerLacksFeature:
                refusal = None  # one that introduces itself may have it
                break
        if refusal is not None:
            raise refusal
        self._has_topics = True
