"""Connections and routers that tell an instrument what they do.

Whoever has no instrument uses the classes that these are derived from, and pays nothing.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from pyipc.connection import Connection
from pyipc.protocol.messages import Introduced
from pyipc.router import Handler, Router
from pyipc.watch import Span, Watch

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from pyipc.arrival import Arrival
    from pyipc.message import Message
    from pyipc.owner import Owner
    from pyipc.protocol.conversation import Conversation, Inbound
    from pyipc.transports.port import Link

__all__ = ["WatchedConnection", "WatchedRouter", "connection_class", "watched"]

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
            found = tuple(watched_handler(handler, "event", self._watch) for handler in handlers)
            self._watched[event] = found
        return found

    def responder_for(self, event: str) -> Handler | None:
        """As `Router.responder_for`."""
        known = self._known(self._answering)
        if event not in known:
            handler = self._router.responder_for(event)
            known[event] = None if handler is None else watched_handler(handler, "request", self._watch)
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


def watched_handler(handler: Handler, kind: str, watch: Watch) -> Handler:
    """A handler in the context that an instrument gives for it.

    Args:
        handler: The handler.
        kind: Of which messages.
        watch: Knows the instrument.
    """
    call = handler.call

    @functools.wraps(call)
    def handle(message: Message[Any]) -> object:
        span = Span(watch, "handling", kind, message)
        span.begin()
        try:
            result = call(message)
        except BaseException as error:
            span.end(error)
            raise
        if hasattr(type(result), "__await__"):
            return _finish(span, result)  # begun next, and in the task that finishes it
        span.end()
        return result

    return handler.with_call(handle)


async def _finish(span: Span, waiting: Awaitable[object]) -> object:
    """Await the rest of a handler, in the context that its beginning was in."""
    try:
        result = await waiting
    except BaseException as error:
        span.end(error)
        raise
    span.end()
    return result


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

    def _settle(self, item: Inbound) -> Arrival | None:
        if type(item) is Introduced:
            self._watch.connected(self)  # of which nobody may have been told before
        return super()._settle(item)

    # --- sending; what has no way round these is told of where it is sent ---

    def _emit_at_once(self, event: str, data: object) -> bool:
        if self._watch.traceparent():
            return False  # `emit` knows how to say that
        count, size = self._events_sent, self._taken
        is_sent = super()._emit_at_once(event, data)
        self._tell_of_sent(event, count, size)
        return is_sent

    def _send_encoded(self, event: str, frame: bytes) -> bool:
        count, size = self._events_sent, self._taken
        is_sent = super()._send_encoded(event, frame)
        self._tell_of_sent(event, count, size)
        return is_sent

    def _send_kept(self, event: str | None, frame: bytes) -> None:
        super()._send_kept(event, frame)
        if event is not None:  # else it was told of by the connection that could not send it
            self._watch.sent("event", event, len(frame), self)

    @property
    def _taken(self) -> int:
        """Bytes that were put into the outbox so far."""
        return self._outbox.bytes_sent + self._outbox.size

    def _tell_of_sent(self, event: str, count: int, size: int) -> None:
        """Tell of an event, if one was sent since there were so many events and bytes."""
        if self._events_sent > count:
            self._watch.sent("event", event, self._taken - size, self)

    async def emit(self, event: str, data: object = None, **how: Any) -> None:
        """As `Connection.emit`.

        Cancellation: a cancelled emit has sent nothing.
        """
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
