"""Through whom the servers of a program listen, where that is not the program itself.

Owns the interface of such a host, and who is the host of which tasks. Must not know what a host does: a worker of a
cluster has one that asks its primary, another supervisor may have one of its own.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pyipc.endpoint import Endpoint
    from pyipc.protocol.parcels import Buffer
    from pyipc.server import Server
    from pyipc.transports.port import Transport

__all__ = ["Host", "Hosting", "current_host", "hosted_by", "hosting"]

_host: Final[ContextVar[Host | None]] = ContextVar("pyipc.hosting", default=None)


class Host(ABC):
    """Through whom the servers of a program listen, and who brings what one server says to everybody to others.

    See `hosted_by`. What is said here is called by the servers, in their tasks, and must neither wait nor raise.
    """

    @abstractmethod
    def transport(self, endpoint: Endpoint) -> Transport | None:
        """What moves the bytes where a server is about to listen; ``None`` for what its address usually means.

        It is not asked about an endpoint that has a ``transport=`` of its own.

        Args:
            endpoint: Where, and how.
        """

    def opened(self, server: Server) -> None:  # noqa: B027 - not every host has to know
        """A server has all its addresses, and serves. Called once for a server."""

    def closed(self, server: Server) -> None:  # noqa: B027
        """A server that was opened serves nobody any more: it was closed, drained or cancelled, or failed."""

    def broadcast(  # noqa: B027 - there may be no others
        self, server: Server, event: str, data: object, *, attachments: Sequence[Buffer], traceparent: str
    ) -> None:
        """A server has sent an event to all its clients: bring it to other servers, to `Server.hand_in_broadcast`.

        Not called for a broadcast with ``where=``, which only its own server can answer. Those that were excluded are
        none of the others' clients.

        Args:
            server: Which.
            event: The name.
            data: Anything that has a JSON form.
            attachments: As they were given.
            traceparent: Likewise; may be empty.
        """

    def publish(  # noqa: B027
        self,
        server: Server,
        topic: str,
        data: object,
        *,
        attachments: Sequence[Buffer],
        retain: bool,
        by_peer: bool,
        traceparent: str,
    ) -> None:
        """Something was published at a server: bring it to others, to `Server.hand_in_published`.

        Args:
            server: Which.
            topic: The name.
            data: What can be given as the data of a message, or be a part of it, and is not looked into otherwise.
            attachments: Buffers of bytes.
            retain: Whether it is kept for those who subscribe later.
            by_peer: Whether a client of the server did it, and not the program itself.
            traceparent: Which span of a trace it comes from; may be empty.
        """

    def forget(self, server: Server, pattern: str) -> None:  # noqa: B027
        """A server's program has let go of retained messages: bring that to others, to `Server.hand_in_forgotten`.

        Args:
            server: Which.
            pattern: A topic, or a pattern for many.
        """


@contextlib.contextmanager
def hosted_by(host: Host | None) -> Iterator[None]:
    """Servers that start in the block, and in tasks that are started in it, listen through a host.

    A server asks for its host when it starts to listen, and keeps it. Tasks have the host of where they were started.

    Args:
        host: Through whom; ``None`` for servers that listen by themselves whatever is around them.
    """
    before = _host.set(host)
    try:
        yield
    finally:
        _host.reset(before)


def current_host() -> Host | None:
    """The host of the running task, if it has one."""
    return _host.get()


class Hosting:
    """A host and one of its servers, for what the server says to everybody.

    Args:
        host: Is told.
        server: Says it.
    """

    __slots__ = ("_host", "_server")

    def __init__(self, host: Host, server: Server) -> None:
        self._host = host
        self._server = server

    def broadcast(self, event: str, data: object, attachments: Sequence[Buffer], traceparent: str) -> None:
        """See `Host.broadcast`."""
        self._host.broadcast(self._server, event, data, attachments=attachments, traceparent=traceparent)

    def publish(
        self,
        topic: str,
        data: object,
        attachments: Sequence[Buffer],
        *,
        retain: bool,
        by_peer: bool,
        traceparent: str,
    ) -> None:
        """See `Host.publish`."""
        self._host.publish(
            self._server,
            topic,
            data,
            attachments=attachments,
            retain=retain,
            by_peer=by_peer,
            traceparent=traceparent,
        )

    def forget(self, pattern: str) -> None:
        """See `Host.forget`."""
        self._host.forget(self._server, pattern)


@contextlib.contextmanager
def hosting(host: Host | None, server: Server) -> Iterator[None]:
    """Tell the host of a server, if it has one, that the server serves, what it says to everybody, and of its end.

    Args:
        host: The host.
        server: Has its addresses already.
    """
    if host is None:
        yield
        return
    server._hosting = server._hub.hosting = Hosting(host, server)
    host.opened(server)
    try:
        yield
    finally:
        server._hosting = server._hub.hosting = None
        host.closed(server)
