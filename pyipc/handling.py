"""What a server and a client offer alike: handlers by name, and of connections that come and go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyipc.callbacks import Callbacks
    from pyipc.connection import Connection
    from pyipc.message import Message
    from pyipc.router import Router
    from pyipc.statistics import Disconnected

__all__ = ["Handling"]

F = TypeVar("F", bound="Callable[[Message[Any]], object]")


class Handling:
    """Something that messages arrive at."""

    _router: Router
    _connect_callbacks: Callbacks[Connection]
    _disconnect_callbacks: Callbacks[Disconnected]

    @overload
    def on(self, pattern: str, handler: None = None) -> Callable[[F], F]: ...

    @overload
    def on(self, pattern: str, handler: F) -> F: ...

    def on(self, pattern: str, handler: Any = None) -> Any:
        """Register a handler, directly or as a decorator; see `Router.on`."""
        return self._router.on(pattern, handler)

    @overload
    def once(self, pattern: str, handler: None = None) -> Callable[[F], F]: ...

    @overload
    def once(self, pattern: str, handler: F) -> F: ...

    def once(self, pattern: str, handler: Any = None) -> Any:
        """Register a handler for one message; see `Router.once`."""
        return self._router.once(pattern, handler)

    def off(self, pattern: str, handler: Callable[[Message[Any]], object] | None = None) -> None:
        """Remove handlers; see `Router.off`."""
        self._router.off(pattern, handler)

    def on_connect(self, function: Callable[[Connection], object]) -> Callable[[Connection], object]:
        """Call a function, plain or async, with every new connection before its messages are handled."""
        return self._connect_callbacks.add(function)

    def on_disconnect(self, function: Callable[[Disconnected], object]) -> Callable[[Disconnected], object]:
        """Call a function, plain or async, with the reason when a connection has ended."""
        return self._disconnect_callbacks.add(function)
