"""A client's side of topics: its subscriptions, through one connection after the other, and what it publishes."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
from typing import TYPE_CHECKING, Any

import trio

from pyipc.attaching import note_sent, wrap
from pyipc.errors import ConnectionClosed, ConnectionLost, PeerLacksFeature, RequestTimeout, UnsupportedByTransport
from pyipc.matching import Matches
from pyipc.message import FullMessage, Message
from pyipc.protocol.codec import ready_json
from pyipc.protocol.features import TOPICS, Publish, Published, Subscribe, Unpublished, Unsubscribe
from pyipc.protocol.messages import one_line
from pyipc.protocol.names import check_event_name, check_topic
from pyipc.protocol.parcels import NO_ATTACHMENTS, Parcel, SmallParcel, listed
from pyipc.protocol.patterns import Pattern
from pyipc.protocol.traces import check_traceparent
from pyipc.rounds import is_round
from pyipc.subscription import MAX_BUFFERED_SIZE, Held, Policy, Subscription

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence
    from contextlib import AbstractContextManager

    from pyipc.calls import Call
    from pyipc.connection import Connection
    from pyipc.options import Options
    from pyipc.protocol.features import TopicFrame
    from pyipc.protocol.parcels import Buffer, Frame
    from pyipc.reconnecting import Reconnecting

__all__ = ["Subscriptions", "TopicClient"]

logger: logging.Logger = logging.getLogger("pyipc.topics")


class Subscriptions:
    """All that one client has subscribed to, and its publishing.

    A subscription belongs to one connection at a time: from the moment on when it is asked for over another, nothing
    that still comes over the one before is for it, so that nothing comes twice.

    Args:
        up: Keeps a connection up.
        options: Limits and times.
        connected: Waits for a connection, as requests do: what for, for how long, and until when.
        check_usable: Raises if the client is closed, or has given up.

    Attributes:
        received: Messages that came.
        dropped: Messages that subscriptions dropped.
        refused: Messages that the server has refused to publish.
    """

    def __init__(
        self,
        up: Reconnecting,
        options: Options,
        *,
        connected: Callable[[str, float | None, float], Awaitable[Connection]],
        check_usable: Callable[[], None],
    ) -> None:
        self._up = up
        self._options = options
        self._connected = connected
        self._check_usable = check_usable
        self._all: dict[Subscription, None] = {}
        self._matches: Matches[Subscription] = Matches()
        self.received: int = 0
        self.dropped: int = 0
        self.refused: int = 0

    def __len__(self) -> int:
        return len(self._all)

    def make(self, pattern: str, **how: Any) -> Subscription:
        """A subscription that is not entered yet; see `Client.subscribe`."""
        check_event_name(pattern, self._options.max_event_name_size)
        parsed = Pattern(pattern)
        return Subscription(self, parsed, **how)

    # --- subscribing ---

    async def enter(self, subscription: Subscription) -> None:
        """Subscribe, and wait until the server has confirmed it. Raises what `Subscription.__aenter__` does."""
        await trio.lowlevel.checkpoint_if_cancelled()
        self._check_possible()
        timeout = self._options.request_timeout
        deadline = math.inf if timeout is None else trio.current_time() + timeout
        self._all[subscription] = None
        self._matches.add(subscription._parsed, subscription)
        try:
            while not subscription._is_live:
                connection = self._up.connection
                if connection is None or not connection.is_open:
                    connection = await self._connected(_what(subscription), timeout, deadline)
                await self._ask_over(connection, subscription, deadline)
                if not subscription._is_live:  # else what ended it since is told after what came for it
                    subscription._check_open()
        except BaseException:
            subscription._end(None)
            raise

    async def _ask_over(self, connection: Connection, subscription: Subscription, deadline: float) -> None:
        """Subscribe over one connection, and wait for the answer or until it is lost."""
        try:
            await _agree(connection)
            if subscription._connection is None:  # else it was found among those to be restored meanwhile
                self._ask(subscription, connection, deadline)
        except ConnectionLost:
            if self._options.offline != "queue":
                raise
            await trio.lowlevel.checkpoint()  # before the next is tried
            return
        with connection.waiting_for_peer():
            while subscription._connection is connection and not subscription._is_live and not subscription._ended:
                await subscription._answered.park()

    def _ask(self, subscription: Subscription, connection: Connection, deadline: float) -> None:
        """Ask the server for a subscription; the answer comes to `_on_answer`.

        Raises:
            ConnectionClosed: The connection has ended.
        """
        conversation, calls = connection._conversation, connection._calls
        number = conversation.next_call()
        frame = conversation.say(Subscribe(number, subscription.pattern, subscription._retained))
        connection._outbox.push(frame)
        self._tell_unsubscribed(subscription)
        subscription._connection, subscription._call, subscription._is_live = connection, number, False
        # Nobody waits for the answer in a task of his own: what is published right behind it is for the subscription.
        call = calls.begin(number, _what(subscription), self._options.request_timeout, deadline)
        call.wake = functools.partial(self._on_answer, subscription, connection, call)

    def _on_answer(self, subscription: Subscription, connection: Connection, call: Call) -> None:
        """The server has answered, or has not in time, or the connection has ended."""
        if subscription._connection is not connection or subscription._call != call.number:
            return  # it was closed, or asked for over another connection
        connection._calls.pass_on()
        if call.error is None:
            subscription._is_live = True
            subscription._agreements += 1
            subscription._answered.unpark_all()
        elif isinstance(call.error, ConnectionClosed):
            subscription._connection = None
            subscription._answered.unpark_all()
        else:
            if subscription._agreements:
                error = one_line(str(call.error))
                logger.warning("the subscription to %r could not be restored: %s", subscription.pattern, error)
            if not isinstance(call.error, RequestTimeout):
                subscription._connection = None  # there is nothing to take back
            subscription._end(call.error)

    def restore(self, connection: Connection) -> None:
        """Subscribe over a new connection to all that there is, without waiting for the answers."""
        timeout = self._options.request_timeout
        deadline = math.inf if timeout is None else trio.current_time() + timeout
        if not connection.is_open:
            return  # it has ended already, and the next one will restore them
        for subscription in list(self._all):
            try:
                connection._conversation.check_feature(TOPICS)
                self._ask(subscription, connection, deadline)
            except PeerLacksFeature as error:
                subscription._end(error)
            except ConnectionClosed:
                return

    def leave(self, subscription: Subscription) -> None:
        """Subscribe to it no more."""
        if subscription in self._all:
            del self._all[subscription]
            self._matches.remove(subscription._parsed, subscription)
            self._tell_unsubscribed(subscription)
            subscription._connection = None

    def _tell_unsubscribed(self, subscription: Subscription) -> None:
        """Tell the server, if it may believe that somebody still wants it."""
        connection = subscription._connection
        if connection is not None and connection.is_open:
            if connection._calls.pending.pop(subscription._call, None) is not None:
                connection._calls.pass_on()
            with contextlib.suppress(ConnectionLost):  # then it has forgotten anyway
                connection._outbox.push(connection._conversation.say(Unsubscribe(subscription._call)))

    def end_all(self, error: Exception | None) -> None:
        """Nothing more will come for any of them."""
        for subscription in list(self._all):
            subscription._end(error)

    def count_dropped(self) -> None:
        """A subscription has dropped a message."""
        self.dropped += 1

    def waiting(self) -> AbstractContextManager[None]:
        """A context around waiting for a message, which nearly always is how a subscription spends its time.

        Reading must not pause meanwhile if it is a handler of the connection that waits. Anybody else gets what he
        waits for when the handlers have taken what is before it.
        """
        connection = self._up.connection
        if connection is None or not connection._dispatcher.is_handling():
            return contextlib.nullcontext()
        return connection.waiting_for_peer()

    def message(self, held: Held) -> Message[Any]:
        """What a consumer gets."""
        topic, connection, more = held.topic, held.connection, held.more
        if more is None:
            return Message(topic, held.data(), connection)
        return FullMessage(topic, held.data(), connection, **more)

    # --- what arrives ---

    def take(self, connection: Connection, frame: TopicFrame, attachments: Sequence[bytes] = ()) -> None:
        """Deal with a frame from the server."""
        match frame:
            case Published():
                self._deliver(connection, frame, attachments)
            case Unpublished(topic, code, message):
                self.refused += 1
                if is_round(self.refused):
                    logger.warning(
                        "the server refused what was published as %r (%s: %s); it has refused %s messages so far",
                        one_line(topic),
                        one_line(code),
                        one_line(message),
                        f"{self.refused:,}",
                    )
            case _:
                pass

    def _deliver(self, connection: Connection, frame: Published, attachments: Sequence[bytes]) -> None:
        topic, call = frame.topic, frame.call
        self.received += 1
        data: Any = None
        for subscription in self._matches.find(topic):
            if not subscription._is_live or subscription._connection is not connection:
                continue
            if call is not None and call != subscription._call:
                continue
            if data is None and frame.data is not None:
                data = ready_json(frame.data, topic)
            is_kept = call is not None
            span = "" if is_kept else frame.traceparent
            subscription._put(Held(topic, data, connection, attachments, span, retained=is_kept))

    # --- publishing ---

    async def publish(
        self, topic: str, data: object, *, retain: bool, attachments: list[Buffer], traceparent: str
    ) -> None:
        """Publish something; see `Client.publish`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        check_topic(topic, self._options.max_event_name_size)
        if traceparent:
            check_traceparent(traceparent)
        body = Publish(topic, data, retain, traceparent)
        connection = self._up.connection
        if connection is not None:
            try:
                await self._send(connection, body, attachments)
            except ConnectionLost:
                pass  # it was not sent, and goes the way of all that is sent without a connection
            else:
                return
        # It gives way each time: a loop that publishes must not keep the next connection from being made.
        await trio.lowlevel.checkpoint()
        if self._up.connection not in (None, connection):
            await self.publish(topic, data, retain=retain, attachments=attachments, traceparent=traceparent)
            return
        self._check_possible()
        self._up.keep_published(body, attachments)

    async def _send(self, connection: Connection, body: Publish, attachments: list[Buffer]) -> None:
        """Send what is published, once there is room. Raises `ConnectionLost` if it was not sent."""
        if not connection.is_open:
            raise connection._gone()
        await _agree(connection)
        said = connection._conversation.say(body)
        frame: Frame = wrap(connection._conversation, said, attachments) if attachments else said
        outbox = connection._outbox
        if outbox.size + outbox.shared >= outbox.high_water_size:
            with connection.waiting_for_peer():
                await outbox.wait_for_room()
            if not connection.is_open:
                raise connection._gone()
        outbox.push_share(frame) if outbox.corked else outbox.push(frame)
        connection._events_sent += 1
        if isinstance(frame, Parcel | SmallParcel):
            note_sent(connection, frame)
        if connection._watch is not None:
            connection._watch.sent("publish", body.topic, len(frame), connection)

    def _check_possible(self) -> None:
        """Raise if topics will never work here, or not any more."""
        self._check_usable()
        template = self._up.template
        try:
            template.check_feature(TOPICS)
        except UnsupportedByTransport:
            raise
        except PeerLacksFeature:
            if not template.awaits_welcome:
                raise


async def _agree(connection: Connection) -> None:
    """Wait until it is clear that the server knows topics.

    Raises:
        PeerLacksFeature: It does not.
        ConnectionClosed: The connection ended meanwhile.
    """
    conversation = connection._conversation
    if TOPICS not in conversation.features:
        if conversation.awaits_welcome:
            await connection.know_peer()
        conversation.check_feature(TOPICS)


def _what(subscription: Subscription) -> str:
    return f"subscribe {subscription.pattern}"


class TopicClient:
    """What a client can do with topics."""

    _topics: Subscriptions

    def subscribe(
        self,
        pattern: str,
        *,
        max_buffered: int = 1_024,
        max_buffered_size: int = MAX_BUFFERED_SIZE,
        policy: Policy = "drop_oldest",
        retained: bool = True,
    ) -> Subscription:
        """What is published under names that match, for the length of an ``async with`` block.

        ::

            async with client.subscribe("orders.*") as orders:
                async for message in orders:
                    print(message.event, message.data)

        Entering waits until the server has confirmed it, and nothing that is published from then on is missed while the
        connection lasts. A connection that is lost is made again, and so is the subscription; what was published
        meanwhile was missed, which ``statistics().restored`` tells of.

        Args:
            pattern: A name, or a pattern as for handlers.
            max_buffered: Messages that may wait in it. The server is not held back, so no other subscription is either.
            max_buffered_size: Bytes of JSON and attachments that they may have in all; a single one may have more.
            policy: What happens when there would be more: ``"drop_oldest"``, ``"drop_newest"``, or ``"close"``, which
                ends the subscription with `SubscriptionOverflow`.
            retained: Whether to begin with the last message of each topic of which the server keeps it, now and after
                each reconnect; their ``message.retained`` is true.

        Raises:
            InvalidEventName: The pattern is not valid.
            ValueError: Another argument is not.
        """
        return self._topics.make(
            pattern,
            max_buffered=max_buffered,
            max_buffered_size=max_buffered_size,
            policy=policy,
            retained=retained,
        )

    async def publish(
        self,
        topic: str,
        data: object = None,
        *,
        retain: bool = False,
        attachments: Iterable[Buffer] = NO_ATTACHMENTS,
        traceparent: str = "",
    ) -> None:
        """Send something to whoever has subscribed to its name, at most once; nobody answers.

        It goes to the server in order with what is emitted, and waits for room as `emit` does. While there is no
        connection it is queued, refused or dropped, as the option ``offline`` says; subscriptions are restored before
        what was queued goes. If the server refuses it, that is logged and counted (``publishes_refused``).

        Args:
            topic: The name.
            data: Anything that has a JSON form.
            retain: Whether the server is to keep it, in the place of an earlier one, for those who subscribe later.
            attachments: Buffers of bytes; see `Connection.emit`. Subscribers that take none do not get it.
            traceparent: Which span of a trace it comes from, as W3C Trace Context writes it. It is not kept with it.

        Raises:
            LocalProtocolError: The name, the data or the attachments cannot be sent; nothing was.
            PeerLacksFeature: The server knows no topics, or takes no attachments; nothing was sent.
            ConnectionClosed: The client is closed, or not connected and cannot queue; nothing was sent.

        Cancellation: a cancelled publish has sent nothing.
        """
        buffers = [] if attachments is NO_ATTACHMENTS else listed(attachments)
        await self._topics.publish(topic, data, retain=retain, attachments=buffers, traceparent=traceparent)
