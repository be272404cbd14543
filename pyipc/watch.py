"""Telling an instrument what happens, whatever it does."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

from pyipc.instrument import Instrument
from pyipc.protocol.traces import usable_traceparent

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from pyipc.connection import Connection

__all__ = ["Span", "Watch"]

logger: logging.Logger = logging.getLogger("pyipc.instrument")


class Watch:
    """Stands between one server or client and its instrument.

    Args:
        instrument: Is told what happens.

    Attributes:
        is_handling: Whether the instrument wants to be around handlers.
        is_tracing: Whether it may know the present span.
    """

    def __init__(self, instrument: Instrument) -> None:
        if not isinstance(instrument, Instrument):
            raise TypeError(f"instrument must be of a class derived from pyipc.Instrument, not {instrument!r}")
        self._instrument = instrument
        self._connected: set[Connection] = set()
        self._has_failed: set[str] = set()
        self.is_handling: bool = self._overrides("handling")
        self._is_calling = self._overrides("calling")
        self.is_tracing: bool = self._overrides("traceparent")

    def _overrides(self, method: str) -> bool:
        own: object = getattr(type(self._instrument), method)
        return own is not getattr(Instrument, method)

    def connected(self, connection: Connection) -> None:
        """A connection was made, of which the instrument is to know. Told once."""
        if connection not in self._connected:
            self._connected.add(connection)
            self.attempt("connected", connection)

    def ended(self, connection: Connection) -> None:
        """A connection has ended. Told if it was `connected`."""
        if connection in self._connected:
            self._connected.remove(connection)
            self.attempt("disconnected", connection.reason)

    def sent(self, kind: str, event: str, size: int, connection: Connection) -> None:
        """A message was put into the outbox of a connection."""
        self.attempt("sent", kind, event, size, connection)

    def calling(self, kind: str, event: str, address: str) -> AbstractContextManager[object]:
        """A context around something that is asked of the peer."""
        return Span(self, "calling", kind, event, address) if self._is_calling else _NOTHING

    def traceparent(self) -> str:
        """The present span, if the instrument knows of one and writes it as it should."""
        if not self.is_tracing:
            return ""
        given = self.attempt("traceparent")
        text = usable_traceparent(given)
        if given and not text:
            self.complain("traceparent", ValueError(f"{given!r:.100} is no traceparent"))
        return text

    def traced(self, how: dict[str, Any]) -> dict[str, Any]:
        """What a message is to be sent with, the present span included, unless it was given one."""
        if self.is_tracing and not how.get("traceparent"):
            how["traceparent"] = self.traceparent()
        return how

    def attempt(self, method: str, *arguments: Any) -> Any:
        """Call a method of the instrument; ``None`` if it fails."""
        try:
            return getattr(self._instrument, method)(*arguments)
        except Exception as error:
            self.complain(method, error)
            return None

    def complain(self, method: str, error: BaseException) -> None:
        """Log that a method failed, the first time that it does."""
        if method not in self._has_failed:
            self._has_failed.add(method)
            name = type(self._instrument).__qualname__
            logger.error("%s.%s failed; later failures of it are not logged", name, method, exc_info=error)


class Span:
    """A context that a method of an instrument gives, which changes nothing whatever it does.

    Args:
        watch: Calls the method.
        method: Which.
        *arguments: What it is called with.
    """

    __slots__ = ("_inner", "_method", "_watch")

    def __init__(self, watch: Watch, method: str, *arguments: Any) -> None:
        self._watch = watch
        self._method = method
        self._inner: AbstractContextManager[object] | None = watch.attempt(method, *arguments)

    def begin(self) -> None:
        """Enter the context."""
        try:
            if self._inner is not None:
                self._inner.__enter__()
        except Exception as failure:
            self._inner = None
            self._watch.complain(self._method, failure)

    def end(self, error: BaseException | None = None) -> None:
        """Leave the context, by an error if there was one."""
        inner, self._inner = self._inner, None
        if inner is None:
            return
        try:
            if error is None:
                inner.__exit__(None, None, None)
            else:
                inner.__exit__(type(error), error, error.__traceback__)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as failure:
            if failure is not error:  # to raise it again is another way of letting it pass
                self._watch.complain(self._method, failure)

    def __enter__(self) -> None:
        self.begin()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self.end(error)


# It can be entered any number of times.
_NOTHING = contextlib.nullcontext()
