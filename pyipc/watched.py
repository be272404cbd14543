"""Connections, handlers and streams that tell an instrument what they do.

Whoever has no instrument uses the classes that these are derived from, and pays nothing.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from pyipc.connection import Connection
from pyipc.protocol.messages import Introduced
from pyipc.router import Handler, Router
from pyipc.streams import Stream
from pyipc.watch import Span, Watch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pyipc.arrival import Arrival, FullRequest
    from pyipc.message import Message
    from pyipc.owner import Owner
    from pyipc.protocol.conversation import Conversation, Inbound
    from pyipc.protocol.parcels import Frame
    from pyipc.transports.port import Link

__all__ = ["WatchedConnection", "WatchedRouter", "WatchedStream", "connection_class", "watched"]

T = TypeVar("T")

# Peers choose the names, so what is remembered about them must have an end.
_MAX_CACHED_NAMES = 1_024


def watched(router: Router, watch: Watch | None) -> Router:
    """A router for connections: this one, or if somebody wants to be around its handlers, one that sees to it."""
    return router if watch is None or not watch.is_handling else WatchedRouter(router, watch)


def connection_class(owner: Owner) -> type[Connection]:
    """What connections of this owner are to be."""
    return Connection if owner.watch is None else WatchedConnection


class WatchedRouter(Router):
    """Has the handlers of another router, each in the context that an instrument gives for it.

    Args:
        router: The other one.
        watch: Knows the instrument.
    """

    def __init__(self, router: Router, watch: Watch) -> None:
        super().__init__()
        self.include(router)
        self._router = router
        self._watch = watch
        self._seen = self.version
        self._watched: dict[str, tuple[Handler, ...]] = {}
        self._answering: dict[str, Handler | None] = {}

    def handlers_for(self, event: str) -> tuple[Handler, ...]:
        """As `Router.handlers_for`."""
        found = self._known(self._watched).get(event)
        if found is None:
            handlers = self._router.handlers_for(event)
            found = tuple(_watched_handler(handler, "event", self._watch) for handler in handlers)
            self._watched[event] = found
        return found

    def responder_for(self, event: str) -> Handler | None:
        """As `Router.responder_for`."""
        known = self._known(self._answering)
        if event not in known:
            handler = self._router.responder_for(event)
            known[event] = None if handler is None else _watched_handler(handler, "request", self._watch)
        return known[event]

    def _known(self, names: dict[str, T]) -> dict[str, T]:
        """What is remembered of names, without what is no more true."""
        if self._seen != self.version:
            self._seen = self.version
            self._watched.clear()
            self._answering.clear()
        if len(names) >= _MAX_CACHED_NAMES:
            names.clear()
        return names


def _watched_handler(handler: Handler, kind: str, watch: Watch) -> Handler:
    """A handler of some kind of messages in the context that an instrument gives for it."""
    if handler.streams:
        return handler.wrapped(functools.partial(_watched_stream_function, watch))
    return handler.wrapped(functools.partial(_watched_function, watch, kind))


def _watched_function(watch: Watch, kind: str, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    @functools.wraps(function)
    def handle(message: Message[Any]) -> object:
        span = Span(watch, "handling", kind, message)
        span.begin()
        try:
            result = function(message)
        except BaseException as error:
            span.end(error)
            raise
        if hasattr(type(result), "__await__"):
            return _finish(span, result)  # begun next, and in the task that finishes it
        span.end()
        return result

    return handle


async def _finish(span: Span, waiting: Awaitable[object]) -> object:
    """Await the rest of a handler, in the context that its beginning was in."""
    try:
        result = await waiting
    except BaseException as error:
        span.end(error)
        raise
    span.end()
    return result


def _watched_stream_function(watch: Watch, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    @functools.wraps(function)
    def handle(message: Message[Any]) -> object:
        rows = function(message)
        if not isinstance(rows, AsyncGenerator):
            return rows  # which is an error, and told as one
        return _WatchedRows(rows, functools.partial(Span, watch, "handling", "stream", message))

    return handle


class _WatchedRows(AsyncGenerator[object, None]):
    """What a handler of a stream yields, in a context from its first step to its last, all of which one task takes."""

    def __init__(self, rows: AsyncGenerator[object, None], make_span: Callable[[], Span]) -> None:
        self._rows = rows
        self._make_span = make_span
        self._span: Span | None = None

    async def asend(self, value: None) -> object:
        if self._span is None:
            self._span = self._make_span()
            self._span.begin()
        return await self._step(self._rows.asend(value))

    async def athrow(self, *error: Any) -> object:
        return await self._step(self._rows.athrow(*error))

    async def aclose(self) -> None:
        try:
            await self._rows.aclose()
        except BaseException as error:
            self._end(error)
            raise
        self._end(GeneratorExit())  # unless it has ended before

    async def _step(self, step: Awaitable[object]) -> object:
        try:
            return await step
        except StopAsyncIteration:
            self._end(None)
            raise
        except BaseException as error:
            self._end(error)
            raise

    def _end(self, error: BaseException | None) -> None:
        if self._span is not None:
            self._span.end(error)


class WatchedStream(Stream[T]):
    """A stream whose block is in the context that an instrument gives.

    Takes what `Stream` takes.

    Args:
        watch: Knows the instrument.
        address: Where the peer is.
    """

    __slots__ = ("_address", "_span", "_watch")

    def __init__(self, event: str, data: object, *, watch: Watch, address: str, **how: Any) -> None:
        super().__init__(event, data, **how)
        self._watch = watch
        self._address = address
        self._span: Span | None = None

    async def __aenter__(self) -> Stream[T]:
        span = Span(self._watch, "calling", "stream", self.event, self._address)
        span.begin()
        try:
            self._traceparent = self._traceparent or self._watch.traceparent()
            await super().__aenter__()
        except BaseException as error:
            span.end(error)
            raise
        self._span = span
        return self

    async def __aexit__(self, *error: Any) -> None:
        await super().__aexit__(*error)
        if self._span is not None:
            self._span.end(error[1])


class WatchedConnection(Connection):
    """A connection that tells an instrument what is sent, and asks it where that comes from.

    Takes what `Connection` takes; its owner knows the instrument.
    """

    __slots__ = ("_watch",)

    _watch: Watch

    def __init__(self, link: Link, conversation: Conversation, *, owner: Owner, **how: Any) -> None:
        super().__init__(link, conversation, owner=owner, **how)
        assert owner.watch is not None
        self._watch = owner.watch

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """As `Lifecycle.run`.

        Cancellation: the connection is closed at once.
        """
        try:
            await super().run(task_status=task_status)
        finally:
            self._watch.ended(self)

    def _settle(self, item: Inbound) -> Arrival | FullRequest | None:
        if type(item) is Introduced:
            self._watch.connected(self)  # of which nobody may have been told before
        return super()._settle(item)

    # --- sending; what has no way round these is told of where it is sent ---

    def _emit_at_once(self, event: str, data: object) -> bool:
        if self._watch.traceparent():
            return False  # `emit` knows how to say that
        count, taken = self._events_sent, self._taken
        is_sent = super()._emit_at_once(event, data)
        if self._events_sent > count:
            self._watch.sent("event", event, self._taken - taken, self)
        return is_sent

    def _send_encoded(self, event: str | None, frame: Frame) -> bool:
        is_sent = super()._send_encoded(event, frame)
        if is_sent and event is not None:  # else whoever knows what it is tells of it
            self._watch.sent("event", event, len(frame), self)
        return is_sent

    @property
    def _taken(self) -> int:
        """Bytes that were put into the outbox so far."""
        return self._outbox.bytes_sent + self._outbox.size

    async def emit(self, event: str, data: object = None, **how: Any) -> None:
        """As `Connection.emit`.

        Cancellation: a cancelled emit has sent nothing, unless it was waiting to be confirmed.
        """
        if not how.get("confirm"):
            await super().emit(event, data, **self._watch.traced(how))
            return
        with self._watch.calling("confirmed", event, self._link.peer.address):
            await super().emit(event, data, **self._watch.traced(how))

    def emit_nowait(self, event: str, data: object = None, **how: Any) -> None:
        """As `Connection.emit_nowait`."""
        super().emit_nowait(event, data, **self._watch.traced(how))

    async def request(self, event: str, data: object = None, **how: Any) -> Any:
        """As `Connection.request`.

        Cancellation: the peer is told and cancels its handler; a late answer is ignored.
        """
        with self._watch.calling("request", event, self._link.peer.address):
            return await super().request(event, data, **self._watch.traced(how))

    def _make_stream(self, event: str, data: object, **how: Any) -> Stream[Any]:
        return WatchedStream(event, data, watch=self._watch, address=self._link.peer.address, **how)
