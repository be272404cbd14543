"""The server's side of topics: who has subscribed to what, and sending it there."""

from __future__ import annotations

import collections
import contextlib
import logging
from typing import TYPE_CHECKING, Any, Final, cast

import trio

from pyipc.arrival import Arrival
from pyipc.attaching import send_parcel
from pyipc.broadcasting import note_unsuited
from pyipc.connection import Connection
from pyipc.errors import ConnectionClosed, InvalidEventName, LocalProtocolError, RemoteProtocolError
from pyipc.matching import Matches, Shape, shape_of
from pyipc.message import FullMessage, Message
from pyipc.protocol import codec
from pyipc.protocol.features import Publish, Published, Subscribe, Unpublished, Unsubscribe
from pyipc.protocol.messages import Malformed
from pyipc.protocol.names import check_event_name, check_topic
from pyipc.protocol.parcels import pack
from pyipc.protocol.patterns import Pattern
from pyipc.protocol.traces import check_traceparent, usable_traceparent
from pyipc.retaining import Retention
from pyipc.rounds import is_round
from pyipc.router import Handler
from pyipc.subscription import Held, Subscription

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import AbstractContextManager

    from pyipc.attaching import Records
    from pyipc.broadcasting import Audience
    from pyipc.hosting import Hosting
    from pyipc.options import Options
    from pyipc.protocol.features import TopicFrame
    from pyipc.protocol.parcels import Frame
    from pyipc.statistics import BroadcastReport
    from pyipc.transports.port import Peer

__all__ = ["Hub"]

logger: logging.Logger = logging.getLogger("pyipc.topics")

# In how many different ways the patterns of one connection may have wildcards: each way costs a look into a table for
# every new topic.
_MAX_SHAPES: Final = 64
# How many segments a pattern of a peer may have, if some are wildcards: each costs when a name is looked up.
_MAX_SEGMENTS: Final = 64
# After so much work for peers, others get their turn: copies that were sent, and retained topics or ways to have
# wildcards that were looked at.
_WORK_A_TURN: Final = 2_048
# What it is to send one message that is kept, compared with looking at its name.
_WORK_OF_SENDING: Final = 4
# Where a message comes from that this program has published itself.
_NOBODY: Final = cast("Connection", None)


class _OwnMessage(FullMessage[Any]):
    """A message for a subscription of this program. One that the program itself has published has no connection."""

    __slots__ = ()

    def __repr__(self) -> str:
        publisher = "this program" if self.connection is _NOBODY else self.connection.peer.address
        return f"<Message {self.event!r} from {publisher}>"


class _Subscriber:
    """What one connection has subscribed to."""

    __slots__ = ("patterns", "shapes")

    def __init__(self) -> None:
        # No more than their texts: all that can be made of one takes ten times the memory.
        self.patterns: dict[int, str] = {}
        # How many of the patterns with wildcards have them where.
        self.shapes: collections.Counter[Shape] = collections.Counter()


class _Load:
    """What was done for one connection since bytes of it were read last, and what of it has to wait its turn.

    Attributes:
        read_at: When that was, in trio's time.
        work: How much was done.
        deferred: Frames that wait among its events.
    """

    __slots__ = ("deferred", "read_at", "work")

    def __init__(self) -> None:
        self.read_at: float = 0.0
        self.work: int = 0
        self.deferred: int = 0


class Hub:
    """Brings what is published to those who have subscribed to it: connections, and this program's own subscriptions.

    Args:
        audience: The connections, and how to send them something.
        options: Limits.
        may_subscribe: Whether a peer may subscribe to a pattern; everybody to everything, if it is left out.
        may_publish: Whether a peer may publish under a topic, likewise.

    Attributes:
        publishes: Messages published.
        dropped: Copies of them that slow subscribers did not get.
        subscriptions: Subscriptions now.
        subscriptions_refused: Subscriptions that peers did not get.
        publishes_refused: Messages that peers could not publish.
        retained: The messages that are kept.
        hosting: Is told what was published here, for others to have it too.
    """

    def __init__(
        self,
        audience: Audience,
        options: Options,
        *,
        may_subscribe: Callable[[Peer, str], bool] | None,
        may_publish: Callable[[Peer, str], bool] | None,
    ) -> None:
        for name, function in (("may_subscribe", may_subscribe), ("may_publish", may_publish)):
            if function is not None and not callable(function):
                raise TypeError(f"{name} must be a function of a peer and a name, not {function!r}")
        self._audience = audience
        self._options = options
        self._may_subscribe = may_subscribe
        self._may_publish = may_publish
        self._failures = 0
        self._matches: Matches[Connection | Subscription] = Matches()
        # What each connection has subscribed to, by the numbers of its calls.
        self._subscribers: dict[Connection, _Subscriber] = {}
        self._own: set[Subscription] = set()
        self._loads: dict[Connection, _Load] = {}
        self._work = 0
        self._is_closed = False
        handler = Handler(call=self._serve, pattern=Pattern("**"), once=False, order=0)
        self._handlers = (handler.resolve(),)
        self.publishes: int = 0
        self.dropped: int = 0
        self.subscriptions: int = 0
        self.subscriptions_refused: int = 0
        self.publishes_refused: int = 0
        self.retained: Retention = Retention(options)
        self.hosting: Hosting | None = None

    # --- what peers ask for ---

    def take(self, connection: Connection, frame: TopicFrame, attachments: Sequence[bytes] = ()) -> Arrival | None:
        """Deal with a frame from a peer.

        What is published waits its turn among the events, and holds them back. A subscription does not wait for
        handlers of events, which may be waiting for what the peer does once it has subscribed; but where none is at
        work, or where the peer asks for very much at once, it takes its turn as well, so that others get theirs.
        """
        match frame:
            case Publish():
                return Arrival(frame.type, frame, attachments=attachments, handlers=self._handlers)
            case Subscribe() | Unsubscribe() if connection.is_open:  # else nothing could be sent to it any more
                load = self._load_of(connection)
                is_busy = connection._dispatcher.is_lane_busy
                if is_busy and not load.deferred and load.work < _WORK_A_TURN:
                    self._change(connection, frame)
                    return None
                load.deferred += is_busy
                return Arrival(frame.type, frame, handlers=self._handlers)
            case _:
                return None

    def _load_of(self, connection: Connection) -> _Load:
        load = self._loads.get(connection)
        if load is None:
            load = self._loads[connection] = _Load()
        if load.read_at != connection._reader.time:
            load.read_at, load.work = connection._reader.time, 0
        return load

    def _serve(self, message: Message[Any]) -> Awaitable[None] | None:
        """Deal with a frame whose turn it is; what is returned gives way to others, when that is due."""
        connection, frame = message.connection, message.data
        if isinstance(frame, Publish):
            before = self._matches.work
            self._work += 1 + self._publish_for(message) + self._matches.work - before
        elif connection.is_open:
            load = self._load_of(connection)
            load.deferred = max(0, load.deferred - 1)
            self._change(connection, frame)
        if self._work < _WORK_A_TURN:
            return None
        self._work = 0
        return _give_way()

    def _change(self, connection: Connection, frame: Subscribe | Unsubscribe) -> None:
        work = 1
        if isinstance(frame, Unsubscribe):
            self._unsubscribe(connection, frame.call)
        else:
            work += self._subscribe(connection, frame)
        self._work += work
        if (load := self._loads.get(connection)) is not None:
            load.work += work

    def _subscribe(self, connection: Connection, frame: Subscribe) -> int:
        """Subscribe for a peer, or tell it why not; say how much work it was beyond that."""
        subscriber = self._subscribers.get(connection) or _Subscriber()
        if frame.call in subscriber.patterns:
            error = RemoteProtocolError("control", f"the peer used the number of subscription {frame.call} twice")
            connection._settle(Malformed(error, fatal=True))
            return 0
        try:
            check_event_name(frame.pattern, self._options.max_event_name_size)
            pattern = Pattern(frame.pattern)
        except InvalidEventName as error:
            self._refuse(connection, frame.call, "bad-pattern", str(error))
            return 0
        if why := self._why_too_many(subscriber, pattern):
            self._refuse(connection, frame.call, "too-many", why)
        elif not self._is_allowed(self._may_subscribe, connection, pattern.text):
            self._refuse(connection, frame.call, "not-allowed", f"this peer may not subscribe to {pattern.text!r}")
        else:
            subscriber.patterns[frame.call] = pattern.text
            if not pattern.is_literal:
                subscriber.shapes[shape_of(pattern)] += 1
            self._subscribers[connection] = subscriber
            self._matches.add(pattern, connection)
            self.subscriptions += 1
            connection._answer(connection._conversation.reply(frame.call, None))
            if frame.retained:
                return self._send_retained(connection, frame.call, pattern)
        return 0

    def _why_too_many(self, subscriber: _Subscriber, pattern: Pattern) -> str:
        """Why a connection may not subscribe to one pattern more; empty if it may."""
        limit = self._options.max_subscriptions
        if len(subscriber.patterns) >= limit:
            return f"there are {limit:,} subscriptions on this connection already (max_subscriptions)"
        if not pattern.is_literal and len(pattern.segments) > _MAX_SEGMENTS:
            return f"a pattern with wildcards has no more than {_MAX_SEGMENTS} segments here"
        is_new = not pattern.is_literal and shape_of(pattern) not in subscriber.shapes
        if is_new and len(subscriber.shapes) >= _MAX_SHAPES:
            return f"the patterns of this connection have wildcards in {_MAX_SHAPES} different ways already"
        return ""

    def _refuse(self, connection: Connection, call: int, code: str, why: str) -> None:
        self.subscriptions_refused += 1
        connection._answer(connection._conversation.failure(call, code, why))

    def _is_allowed(self, function: Callable[[Peer, str], bool] | None, connection: Connection, name: str) -> bool:
        if function is None:
            return True
        try:
            return bool(function(connection.peer, name))
        except Exception:
            self._failures += 1
            if is_round(self._failures):
                logger.exception("whether %s may have %r could not be found out: denied", connection.peer.address, name)
            return False

    def _unsubscribe(self, connection: Connection, call: int) -> None:
        subscriber = self._subscribers.get(connection)
        text = None if subscriber is None else subscriber.patterns.pop(call, None)
        if subscriber is None or text is None:
            return  # it was refused
        pattern = Pattern(text)
        self._matches.remove(pattern, connection)
        self.subscriptions -= 1
        if not pattern.is_literal:
            shape = shape_of(pattern)
            subscriber.shapes[shape] -= 1
            if not subscriber.shapes[shape]:
                del subscriber.shapes[shape]
        if not subscriber.patterns:
            del self._subscribers[connection]

    def forget_connection(self, connection: Connection) -> None:
        """A connection has ended."""
        self._loads.pop(connection, None)
        subscriber = self._subscribers.get(connection)
        for call in list(subscriber.patterns) if subscriber is not None else ():
            self._unsubscribe(connection, call)

    def _send_retained(self, connection: Connection, call: int, pattern: Pattern) -> int:
        """Send what is kept to who has just subscribed; say how much work it was."""
        say = connection._conversation.say
        found = self.retained.find(pattern)
        work = len(found) if pattern.is_literal else len(self.retained)
        for count, (topic, kept) in enumerate(found):
            work += _WORK_OF_SENDING
            try:
                said = say(Published(topic, kept.data, call))
                frame: Frame = pack(said, kept.records) if kept.records else said
                taken = send_parcel(connection, None, frame) if kept.records else connection._send_encoded(None, said)
            except ConnectionClosed:
                break  # it read too slowly, or its link broke
            except LocalProtocolError as error:
                note_unsuited(connection, topic, error)
                self.dropped += 1
                continue
            if not taken:
                self.dropped += len(found) - count  # there is no room for the others either
                break
            if connection._watch is not None:
                connection._watch.sent("published", topic, len(frame), connection)
        return work

    def _publish_for(self, message: Message[Any]) -> int:
        """Publish what a peer wants published; say to how many that was."""
        connection, frame = message.connection, cast("Publish", message.data)
        try:
            check_topic(frame.topic, self._options.max_event_name_size)
        except InvalidEventName as error:
            self._refuse_publish(connection, frame.topic, "bad-pattern", str(error))
            return 0
        if not self._is_allowed(self._may_publish, connection, frame.topic):
            why = f"this peer may not publish {frame.topic!r}"
            self._refuse_publish(connection, frame.topic, "not-allowed", why)
            return 0
        try:
            data, records = codec.ready_json(frame.data, frame.topic), message.attachments
            if why := self.retained.why_not(frame.topic, data, records, is_own=False) if frame.retain else "":
                self._refuse_publish(connection, frame.topic, "too-many", why)
                return 0
            span = usable_traceparent(frame.traceparent)
            report = self._send(frame.topic, data, records, frame.retain, span, source=connection, is_own=False)
        except LocalProtocolError as error:
            self._refuse_publish(connection, frame.topic, "too-large", str(error))
            return 0
        return report.sent + report.dropped

    def _refuse_publish(self, connection: Connection, topic: str, code: str, why: str) -> None:
        self.publishes_refused += 1
        # An empty or reserved name cannot be told again.
        with contextlib.suppress(LocalProtocolError):
            connection._answer(connection._conversation.say(Unpublished(topic, code, why)))

    # --- publishing ---

    def publish(
        self,
        topic: str,
        data: object,
        records: Records,
        *,
        retain: bool,
        traceparent: str,
        is_own: bool = True,
        is_new: bool = True,
    ) -> BroadcastReport:
        """Publish something of this program's own, or what was published elsewhere; see `Server.publish`."""
        check_topic(topic, self._options.max_event_name_size)
        if traceparent:
            check_traceparent(traceparent)
        ready = codec.ready_json(data, topic)
        if why := self.retained.why_not(topic, ready, records, is_own=is_own) if retain else "":
            raise LocalProtocolError(f"{topic!r} cannot be retained: {why}")
        return self._send(topic, ready, records, retain, traceparent, is_own=is_own, is_new=is_new)

    def _send(
        self,
        topic: str,
        data: Any,
        records: Records,
        retain: bool,
        traceparent: str,
        *,
        source: Connection = _NOBODY,
        is_own: bool,
        is_new: bool = True,
    ) -> BroadcastReport:
        """Send what is published to all who have subscribed to it; and to other servers, if it is new.

        Raises:
            LocalProtocolError: It cannot be sent; nothing was, and nothing is kept.
        """
        holders = self._matches.find(topic)
        subscribers = [holder for holder in holders if isinstance(holder, Connection)]
        report = self._audience.publish(Published(topic, data, traceparent=traceparent), subscribers, records)
        if retain:
            self.retained.keep(topic, data, records, is_own=is_own)
        for holder in holders:
            if isinstance(holder, Subscription):
                holder._put(Held(topic, data, source, tuple(map(bytes, records)), traceparent))
        self.publishes += 1
        self.dropped += report.dropped
        if is_new and self.hosting is not None:
            self.hosting.publish(topic, data, records, retain=retain, by_peer=not is_own, traceparent=traceparent)
        return report

    def forget(self, pattern: str, *, is_new: bool = True) -> int:
        """Keep no longer what matches; see `Server.forget`."""
        count = self.retained.forget(pattern)
        if is_new and self.hosting is not None:
            self.hosting.forget(pattern)
        return count

    # --- this program's own subscriptions ---

    def make(self, pattern: str, **how: Any) -> Subscription:
        """A subscription that is not entered yet; see `Server.subscribe`."""
        check_event_name(pattern, self._options.max_event_name_size)
        parsed = Pattern(pattern)
        return Subscription(self, parsed, **how)

    async def enter(self, subscription: Subscription) -> None:
        """Subscribe. Cancellation: a cancelled call has not."""
        await trio.lowlevel.checkpoint()
        self._own.add(subscription)
        self._matches.add(subscription._parsed, subscription)
        self.subscriptions += 1
        if subscription._retained:
            for topic, kept in self.retained.find(subscription._parsed):
                records = tuple(map(bytes, kept.records))
                subscription._put(Held(topic, kept.data, _NOBODY, records, retained=True))
        if self._is_closed:
            subscription._end(None)

    def leave(self, subscription: Subscription) -> None:
        """Subscribe no more."""
        if subscription in self._own:
            self._own.discard(subscription)
            self._matches.remove(subscription._parsed, subscription)
            self.subscriptions -= 1

    def count_dropped(self) -> None:
        """A subscription of this program has dropped a message."""
        self.dropped += 1

    def waiting(self) -> AbstractContextManager[None]:
        """A context around waiting for a message, which here may come from anywhere."""
        return contextlib.nullcontext()

    def message(self, held: Held) -> Message[Any]:
        """What a consumer gets."""
        return _OwnMessage(held.topic, held.data(), held.connection, **(held.more or {}))

    def close(self) -> None:
        """The server has closed: nothing more will be published."""
        self._is_closed = True
        for subscription in list(self._own):
            subscription._end(None)


async def _give_way() -> None:
    await trio.lowlevel.checkpoint()
