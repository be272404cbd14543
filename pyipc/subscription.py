"""What is published under names that match a pattern, as an iterator with a bound."""

from __future__ import annotations

import collections
import logging
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, get_args

import trio

from pyipc.errors import ConnectionClosed, SubscriptionOverflow
from pyipc.options import check_timeout
from pyipc.protocol.codec import value_of
from pyipc.rounds import is_round
from pyipc.statistics import SubscriptionStatistics

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from pyipc.connection import Connection
    from pyipc.message import Message
    from pyipc.protocol.patterns import Pattern

__all__ = ["MAX_BUFFERED_SIZE", "Held", "Policy", "Subscription", "SubscriptionHome"]

logger: logging.Logger = logging.getLogger("pyipc.topics")

#: What happens when more is published than a subscription holds.
Policy = Literal["drop_oldest", "drop_newest", "close"]
_POLICIES: Final = get_args(Policy)
#: How many bytes wait in a subscription, if nothing else is said.
MAX_BUFFERED_SIZE: Final = 8 * 1024 * 1024


class Held:
    """A message while it waits. Its data is still JSON, which is what it weighs; decoded it may take much more.

    Whoever takes it has data of his own.

    Args:
        topic: What it was published as.
        data: Its data, encoded; ``None`` for null.
        connection: Where it came from.
        attachments: Binary data that came with it.
        traceparent: Which span of a trace it comes from.
        retained: Whether it was kept from before the subscription.

    Attributes:
        topic: As given.
        connection: As given.
        more: What most messages have none of.
        size: What it weighs, in bytes.
    """

    __slots__ = ("_data", "connection", "more", "size", "topic")

    def __init__(
        self,
        topic: str,
        data: Any,
        connection: Connection,
        attachments: Sequence[bytes] = (),
        traceparent: str = "",
        *,
        retained: bool = False,
    ) -> None:
        self.topic: str = topic
        self._data = data
        self.connection: Connection = connection
        self.more: dict[str, Any] | None = None
        self.size: int = len(topic) + (0 if data is None else len(data))
        if attachments or traceparent or retained:
            self.more = {"attachments": attachments, "traceparent": traceparent, "retained": retained}
            self.size += sum(map(len, attachments))

    def data(self) -> Any:
        """Its data, decoded anew."""
        return value_of(self._data)


class SubscriptionHome(Protocol):
    """Where subscriptions are kept, and get their messages from."""

    async def enter(self, subscription: Subscription) -> None:
        """Subscribe; return when nothing that is published later will be missed."""

    def leave(self, subscription: Subscription) -> None:
        """Subscribe no more."""

    def count_dropped(self) -> None:
        """A subscription has dropped a message."""

    def waiting(self) -> AbstractContextManager[None]:
        """A context around waiting for a message."""

    def message(self, held: Held) -> Message[Any]:
        """What a consumer gets."""


class Subscription:
    """What is published under names that match a pattern, in the order in which it arrives.

    Made by `Client.subscribe` and `Server.subscribe`. Use it with ``async with``, which subscribes, and in the block
    with ``async for`` or `get`. Whoever publishes never waits for it: when more has come than it holds, messages are
    dropped, or it ends, as its policy says.
    """

    def __init__(
        self,
        home: SubscriptionHome,
        pattern: Pattern,
        *,
        max_buffered: int,
        max_buffered_size: int,
        policy: Policy,
        retained: bool,
    ) -> None:
        for name, limit in (("max_buffered", max_buffered), ("max_buffered_size", max_buffered_size)):
            if limit < 1:
                raise ValueError(f"{name} must be above zero, not {limit!r}")
        if policy not in _POLICIES:
            raise ValueError(f"policy must be {', '.join(map(repr, _POLICIES))}, not {policy!r}")
        self._home = home
        self._parsed = pattern
        self._max_buffered = max_buffered
        self._max_size = max_buffered_size
        self._size = 0
        self._policy = policy
        self._retained = retained
        self._messages: collections.deque[Held] = collections.deque()
        self._news = trio.lowlevel.ParkingLot()
        self._is_entered = False
        self._ended = False
        self._error: Exception | None = None
        self._received = 0
        self._dropped = 0
        # For its home, where that is a client: over which connection it was asked for, by which call, and whether the
        # server has agreed; and how often that was so again.
        self._connection: Connection | None = None
        self._call = 0
        self._is_live = False
        self._agreements = 0
        self._answered = trio.lowlevel.ParkingLot()

    def __repr__(self) -> str:
        state = "ended" if self._ended else "open" if self._is_entered else "not entered"
        return f"<Subscription {self.pattern!r} {state}: {len(self._messages)} waiting, {self._dropped} dropped>"

    @property
    def pattern(self) -> str:
        """Which names it is for."""
        return self._parsed.text

    def statistics(self) -> SubscriptionStatistics:
        """A snapshot of the counters."""
        return SubscriptionStatistics(
            received=self._received,
            dropped=self._dropped,
            waiting=len(self._messages),
            restored=max(0, self._agreements - 1),
        )

    async def __aenter__(self) -> Subscription:
        """Subscribe, and wait until the server has confirmed it: nothing that is published later is missed.

        Raises:
            RemoteError: The server refused; ``code`` is ``"not-allowed"``, ``"too-many"`` or ``"bad-pattern"``.
            RequestTimeout: It did not answer within the option ``request_timeout``.
            PeerLacksFeature: The server knows no topics.
            ConnectionClosed: The client is closed, or not connected and does not wait.

        Cancellation: nothing is subscribed to.
        """
        if self._is_entered:
            raise RuntimeError("a subscription is entered once; make another to subscribe again")
        self._is_entered = True
        await self._home.enter(self)
        return self

    async def __aexit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Unsubscribe, and forget what has not been taken. May be called more than once."""
        self._end(None)
        self._messages.clear()
        self._size = 0

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Message[Any]:
        try:
            return await self._next()
        except _Ended:
            raise StopAsyncIteration from None

    async def get(self, *, timeout: float | None = None) -> Message[Any]:
        """Wait for the next message; ``message.event`` is the topic.

        Args:
            timeout: Seconds to wait; ``None`` for ever.

        Raises:
            trio.TooSlowError: None came in time.
            SubscriptionOverflow: More came than it holds, and its policy is ``"close"``.
            RemoteError: After a reconnect the server refused the subscription.
            ConnectionLost: The client has given up.
            trio.EndOfChannel: It was closed, or its client or server was.

        Cancellation: loses no message.
        """
        check_timeout(timeout)
        try:
            if timeout is None:
                return await self._next()
            with trio.fail_after(timeout):
                return await self._next()
        except _Ended:
            raise trio.EndOfChannel(f"no more messages for {self.pattern!r}: the subscription is closed") from None

    async def _next(self) -> Message[Any]:
        if not self._is_entered:
            raise RuntimeError("enter the subscription first: async with client.subscribe(...) as messages:")
        await trio.lowlevel.checkpoint_if_cancelled()
        if not self._messages:
            with self._home.waiting():
                while not self._messages:
                    if self._ended:
                        raise self._error or _Ended
                    await self._news.park()
        return self._home.message(self._take())

    def _take(self) -> Held:
        held = self._messages.popleft()
        self._size -= held.size
        return held

    # --- for its home ---

    def _has_room(self, size: int) -> bool:
        """Whether one of so many bytes may be added. One message may be as large as any, where it waits alone."""
        messages = self._messages
        return not messages or (len(messages) < self._max_buffered and self._size + size <= self._max_size)

    def _put(self, held: Held) -> None:
        """Take a message without waiting, or deal with it as the policy says."""
        if self._ended:
            return
        self._received += 1
        while not self._has_room(held.size):
            self._dropped += 1
            self._home.count_dropped()
            if self._policy == "close":
                self._end(SubscriptionOverflow(self.pattern, self._max_buffered, self._max_size))
                return
            if is_round(self._dropped):
                logger.warning(
                    "%s messages for the subscription %r were dropped so far: they came faster than they were taken, "
                    "and it holds %s (max_buffered) of %s bytes in all (max_buffered_size)",
                    f"{self._dropped:,}",
                    self.pattern,
                    f"{self._max_buffered:,}",
                    f"{self._max_size:,}",
                )
            if self._policy == "drop_newest":
                return
            self._take()
        self._messages.append(held)
        self._size += held.size
        self._news.unpark()

    def _end(self, error: Exception | None) -> None:
        """No more messages will come: those that wait are still given out, then ``error`` is raised."""
        if self._ended:
            return
        self._ended = True
        self._error = error
        self._home.leave(self)
        self._news.unpark_all()
        self._answered.unpark_all()

    def _check_open(self) -> None:
        """Raise what ended it, if something has."""
        if self._ended:
            raise self._error or ConnectionClosed(f"the subscription to {self.pattern!r} was closed")


class _Ended(Exception):
    """The subscription is over and nothing went wrong."""
