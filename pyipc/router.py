"""Which handler an event or a request goes to.

Owns registration, the order of handlers and the choice among them. Knows no connection and calls
no handler: whoever dispatches asks `Router.handlers_for` or `Router.responder_for`.

Why two handlers for one request are found only when the request arrives: ``on`` registers handlers
of events, of which a name may have many, and of requests, of which it may have one; which of the
two a name is, is known by what the peer sends.
"""

from __future__ import annotations

import copy
import functools
import inspect
import itertools
import logging
import sys
import typing
import weakref
from typing import TYPE_CHECKING, Any, TypeVar, overload

from pyipc.errors import InvalidEventName, LocalProtocolError
from pyipc.protocol.patterns import Pattern

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyipc.message import Message

__all__ = ["Handler", "Router", "StreamHandlerCalled"]

logger: logging.Logger = logging.getLogger("pyipc.router")

_F = TypeVar("_F", bound="Callable[[Message[Any]], object]")

#: Peers choose the names, so what is remembered about them must have an end.
_MAX_CACHED_NAMES = 1_024
_RESERVED = "pyipc."
# One count for all routers, so that handlers of routers merged later keep the order of registration.
_orders = itertools.count()


class StreamHandlerCalled(Exception):
    """A handler for streams got an event or a request."""


class Handler:
    """One registration. Registering the same function twice makes two.

    Args:
        call: The function.
        pattern: The names it is for.
        once: Whether it is to be discarded before its first call.
        order: Smaller was registered earlier, in whichever router.

    Attributes:
        function: As given.
        call: What is called with an event or a request: the function, unless it is an async generator function, which
            is for streams. What stands in its place then raises `StreamHandlerCalled`.
        streams: Whether it is for streams.
        data_type: ``T``, if the annotation of the first parameter is ``Message[T]``; the data is to be of it.
            ``None`` means that nothing is to be converted: there is no such annotation, or ``T`` is ``Any``, or
            the annotation names what cannot be found from the handler's module (logged once). Known once `resolve`
            was called, as a router does before it hands the handler out.
        is_simple: Whether it takes every event as it came: registered for good, and with no type declared.
    """

    __slots__ = ("_resolved", "call", "data_type", "function", "is_simple", "once", "order", "pattern", "streams")

    def __init__(self, *, call: Callable[[Any], Any], pattern: Pattern, once: bool, order: int) -> None:
        self.function: Callable[[Any], Any] = call
        self.streams: bool = _is_async_generator(call)
        self.call: Callable[[Any], Any] = functools.partial(_not_one_answer, self.name) if self.streams else call
        self.pattern: Pattern = pattern
        self.once: bool = once
        self.order: int = order
        self.data_type: Any = None
        self.is_simple: bool = False
        self._resolved = False

    def __repr__(self) -> str:
        return f"<Handler {self.name} for {self.pattern.text!r}>"

    @property
    def name(self) -> str:
        """Module and name of the function, for messages and logs."""
        return _name_of(self.function)

    def wrapped(self, wrap: Callable[[Callable[[Any], Any]], Callable[[Any], Any]]) -> Handler:
        """The same registration, which was resolved, with its function wrapped in another."""
        other = copy.copy(self)
        other.function = wrap(self.function)
        if not self.streams:
            other.call = other.function
        return other

    def resolve(self) -> Handler:
        """Look up the declared type: not at registration, since a type may be defined below its handler."""
        if not self._resolved:
            self._resolved = True
            self.data_type = _declared_type(self.function)
            self.is_simple = not self.once and self.data_type is None
        return self


class Router:
    """Handlers by name.

    A `Server` and a client each have one; one of its own collects handlers before there is an
    address, and may be included in many others. Not for use from several threads at once.

    Attributes:
        version: Another number whenever what matches may have changed, here or in an included router.
    """

    def __init__(self) -> None:
        self._own: dict[int, Handler] = {}
        self._included: list[Router] = []
        # Weak: a router at module level must not keep alive every server that ever included it.
        self._includers: weakref.WeakSet[Router] = weakref.WeakSet()
        self.version: int = 0
        self._matches: dict[str, tuple[Handler, ...]] = {}
        self._responders: dict[str, Handler | None] = {}

    def __repr__(self) -> str:
        return f"<Router: {len(self._own)} handlers, {len(self._included)} included routers>"

    @overload
    def on(self, pattern: str, handler: None = None) -> Callable[[_F], _F]: ...

    @overload
    def on(self, pattern: str, handler: _F) -> _F: ...

    def on(self, pattern: str, handler: _F | None = None) -> _F | Callable[[_F], _F]:
        """Register a handler of events and requests; without ``handler``, as a decorator.

        Args:
            pattern: A name, or a pattern with ``*`` for one segment or ``**`` for the rest.
            handler: A plain or async function that takes the message; an async generator function
                serves streams, and nothing else. Handlers of one connection
                run in one context until they wait: what one sets in a context variable, a later
                one may see.

        Returns:
            The handler.

        Raises:
            InvalidEventName: The pattern is not valid, or begins with ``pyipc.``, which is the
                protocol's own.
            TypeError: The handler cannot be called with one argument, or is a generator function that is not async.
        """
        return self._register(pattern, handler, once=False)

    @overload
    def once(self, pattern: str, handler: None = None) -> Callable[[_F], _F]: ...

    @overload
    def once(self, pattern: str, handler: _F) -> _F: ...

    def once(self, pattern: str, handler: _F | None = None) -> _F | Callable[[_F], _F]:
        """Like `on`, for the first message alone."""
        return self._register(pattern, handler, once=True)

    def off(self, pattern: str, handler: Callable[[Any], Any] | None = None) -> None:
        """Undo `on` and `once` of this router; included routers keep theirs.

        Args:
            pattern: The text that was registered; it is compared, not matched.
            handler: The handler whose every registration under ``pattern`` goes; ``None`` for all
                handlers.

        Raises:
            InvalidEventName: The pattern is not valid.
            LocalProtocolError: Nothing of the kind is registered here.
        """
        text = Pattern(pattern).text
        gone = [
            order
            for order, one in self._own.items()
            # Not "is": each look at a method makes a new object, and they are equal.
            if one.pattern.text == text and (handler is None or one.function == handler)
        ]
        if not gone:
            what = "no handler is" if handler is None else f"the handler {_name_of(handler)} is not"
            raise LocalProtocolError(
                f"{what} registered here for {text!r}; call off() on the router that has it, with the same pattern"
            )
        for order in gone:
            del self._own[order]
        self._changed()

    def include(self, router: Router) -> None:
        """Let the handlers of ``router`` take part here, also those it gets or loses later.

        Including the same router again, or by two ways, changes nothing: a handler runs once.

        Raises:
            LocalProtocolError: ``router`` is or includes this one.
            TypeError: ``router`` is not a router.
        """
        if not isinstance(router, Router):
            raise TypeError(f"include() takes a Router and not {router!r}; to register a function use on()")
        if any(reached is self for reached in router._reachable()):
            raise LocalProtocolError(
                "a router cannot include itself, directly or through others; include the smaller in the larger one"
            )
        if not any(known is router for known in self._included):
            self._included.append(router)
            router._includers.add(self)
            self._changed()

    def discard(self, handler: Handler) -> bool:
        """Remove one registration, wherever it is; for handlers registered with `once`.

        Returns:
            Whether it was still there. Of several who are about to call it, the one who gets
            ``True`` does.
        """
        for router in self._reachable():
            if router._own.pop(handler.order, None) is not None:
                router._changed()
                return True
        return False

    def handlers_for(self, event: str) -> tuple[Handler, ...]:
        """Every handler whose pattern matches ``event``, own and included, in order of registration.

        The tuple stays as it is when handlers come and go, so a loop over it skips nobody.
        """
        found = self._matches.get(event)
        if found is None:
            found = tuple(
                handler.resolve() for _, handler in sorted(self._every().items()) if handler.pattern.matches(event)
            )
            if len(self._matches) >= _MAX_CACHED_NAMES:
                self._matches.clear()
            self._matches[event] = found
        return found

    def responder_for(self, event: str) -> Handler | None:
        """The handler that answers the request ``event``: the one with the most specific pattern.

        Returns:
            The handler, or ``None`` if no pattern matches.

        Raises:
            LocalProtocolError: Two handlers have the same, most specific pattern; the message
                names both.
        """
        try:
            return self._responders[event]
        except KeyError:
            pass
        best: Handler | None = None
        rival: Handler | None = None
        for handler in self.handlers_for(event):
            if best is None or handler.pattern.specificity > best.pattern.specificity:
                best, rival = handler, None
            elif handler.pattern.specificity == best.pattern.specificity:
                rival = rival or handler
        if best is not None and rival is not None:
            raise LocalProtocolError(
                f"the request {event!r} has two handlers, {best.name} and {rival.name}, both registered for "
                f"{best.pattern.text!r}; only one can answer, so remove one or give it another name"
            )
        if len(self._responders) >= _MAX_CACHED_NAMES:
            self._responders.clear()
        self._responders[event] = best
        return best

    def _register(self, pattern: str, handler: _F | None, *, once: bool) -> _F | Callable[[_F], _F]:
        parsed = Pattern(pattern)
        if parsed.text.startswith(_RESERVED):
            raise InvalidEventName(
                pattern, f"{pattern!r} begins with 'pyipc.', which is the protocol's own; choose another name"
            )

        def add(call: _F) -> _F:
            _check_callable(call)
            order = next(_orders)
            self._own[order] = Handler(call=call, pattern=parsed, once=once, order=order)
            self._changed()
            return call

        return add if handler is None else add(handler)

    def _reachable(self) -> list[Router]:
        """This router and all it includes, each once."""
        found = [self]
        for router in found:  # It grows on the way.
            found.extend(one for one in router._included if one not in found)
        return found

    def _every(self) -> dict[int, Handler]:
        every: dict[int, Handler] = {}
        for router in self._reachable():
            every.update(router._own)
        return every

    def _changed(self) -> None:
        affected = [self]
        for router in affected:  # It grows on the way.
            router.version += 1
            router._matches.clear()
            router._responders.clear()
            affected.extend(one for one in router._includers if one not in affected)


def _is_async_generator(call: Callable[..., Any]) -> bool:
    """Whether a handler yields many answers. One that is wrapped in a plain function that says so does as well."""
    if inspect.isasyncgenfunction(call) or inspect.isasyncgenfunction(getattr(call, "__call__", None)):  # noqa: B004
        return True
    return not inspect.iscoroutinefunction(call) and inspect.isasyncgenfunction(inspect.unwrap(call))


def _is_plain_generator(call: Callable[..., Any]) -> bool:
    while isinstance(call, functools.partial):
        call = call.func
    return inspect.isgeneratorfunction(call) or inspect.isgeneratorfunction(getattr(call, "__call__", None))  # noqa: B004


def _not_one_answer(name: str, message: object) -> None:
    raise StreamHandlerCalled(
        f"{name} is an async generator, which answers stream() and neither events nor requests; "
        "ask for a stream, or let the handler return one answer"
    )


def _check_callable(call: object) -> None:
    if not callable(call):
        raise TypeError(f"a handler is a function that takes the message, and not {call!r}")
    if _is_plain_generator(call):
        # Called, it would run none of its lines, and yet count as having handled the event.
        raise TypeError(
            f"the handler {_name_of(call)} is a generator function, which runs no line when it is called; for a stream "
            "write 'async def' before it, else take the yield out of it"
        )
    try:
        signature = _signature(call)
    except (TypeError, ValueError):
        return  # Some builtins do not tell what they take.
    try:
        signature.bind(None)
    except TypeError as error:
        raise TypeError(
            f"the handler {_name_of(call)} cannot be called with the message alone ({error}); let it take one "
            "argument, and register a method on its object, as in router.on(name, thing.method)"
        ) from None


def _signature(call: Callable[..., Any]) -> inspect.Signature:
    if sys.version_info >= (3, 14):  # pragma: no cover
        # Annotations are evaluated late there, and one that cannot be must not stop registration.
        import annotationlib

        return inspect.signature(call, annotation_format=annotationlib.Format.FORWARDREF)
    return inspect.signature(call)


def _name_of(call: object) -> str:
    while isinstance(call, functools.partial):
        call = call.func
    name = getattr(call, "__qualname__", None)
    if name is None:
        call = type(call)
        name = call.__qualname__
    module = getattr(call, "__module__", None)
    return f"{module}.{name}" if module else name


def _declared_type(call: Callable[[Any], Any]) -> Any:
    from pyipc.message import Message  # Not above: messages are not needed to register handlers.

    try:
        parameters = list(_signature(call).parameters.values())
    except (TypeError, ValueError):
        return None
    if parameters[0].annotation is inspect.Parameter.empty:
        return None
    # Handlers whose module imports Message for type checkers alone are common, and mean ours.
    names = {"Message": Message, **_globals_of(call)}

    def only_message() -> None: ...

    # A stand-in with this one annotation: whether the others resolve must not matter.
    only_message.__annotations__ = {"message": parameters[0].annotation}
    try:
        hint = typing.get_type_hints(only_message, globalns=names, include_extras=True)["message"]
    except Exception as error:  # Annotations are code: anything can be raised.
        logger.warning(
            "the annotation of the message that %s takes cannot be resolved (%s: %s); its data is passed on as it came",
            _name_of(call),
            type(error).__name__,
            error,
        )
        return None
    if typing.get_origin(hint) is typing.Annotated:
        hint = hint.__origin__
    if typing.get_origin(hint) is not Message:
        return None
    (declared,) = typing.get_args(hint)
    return None if declared is Any or isinstance(declared, TypeVar) else declared


def _globals_of(call: Any) -> dict[str, Any]:
    """The names that the annotations of ``call`` were written with."""
    while isinstance(call, functools.partial):
        call = call.func
    if not hasattr(call, "__code__") and not hasattr(call, "__wrapped__"):
        call = type(call).__call__
    return getattr(inspect.unwrap(call), "__globals__", {})
