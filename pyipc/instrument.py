"""What a program can be told of while its messages pass, for metrics and traces."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from pyipc.connection import Connection
    from pyipc.message import Message
    from pyipc.statistics import Disconnected

__all__ = ["Instrument"]


class Instrument:
    """Is told what a server or a client does, while it does it: for metrics, and for spans of a trace.

    Derive from it, and override what you need: nothing else costs anything. Give the object as ``instrument=`` to
    `Server` or `connect`; one may serve any number of them, in one thread. `docs/how-to/tracing.md` has examples.

    The methods are called while messages pass, so they must be quick and must not wait. What they raise is logged,
    the first time for each method, and changes nothing else.
    """

    def connected(self, connection: Connection) -> None:
        """A connection was made; of a client over TLS, which the server has admitted."""

    def disconnected(self, reason: Disconnected) -> None:
        """A connection that was made has ended."""

    def sent(self, kind: str, event: str, size: int, connection: Connection) -> None:
        """A message was put into the outbox of a connection. Answers to the peer's own messages are none.

        Args:
            kind: What it is: ``"event"``, also each copy of a broadcast; ``"confirmed"``, each time that it is sent;
                ``"request"``; ``"stream"``, when it is asked for; ``"publish"``, from a client to its server; or
                ``"published"``, each copy from the server to a subscriber.
            event: Its name, or that of the topic.
            size: Bytes of its frame, attachments included.
            connection: Whose outbox.
        """

    def calling(self, kind: str, event: str, address: str) -> AbstractContextManager[object]:
        """A context around something that is asked of the peer, from before it is sent to when it is answered.

        What ends it with an error leaves the context by that error: `RemoteError` and others of `RequestError`,
        `ConnectionLost`, or `trio.Cancelled`. It cannot be held back there. Around a stream it is as long as its
        ``async with`` block, and what the block raises leaves it as well.

        Args:
            kind: What it is: ``"request"``, ``"confirmed"``, or ``"stream"``.
            event: Its name.
            address: Where the peer is, as in `Peer.address`.
        """
        return contextlib.nullcontext()

    def handling(self, kind: str, message: Message[Any]) -> AbstractContextManager[object]:
        """A context around one handler at work on one message, from its first step to its last.

        What is set in it in a context variable, such as the present span, is there for the handler and for what that
        calls, across every ``await``, and for no other handler. Reset it at the end, as ``start_as_current_span`` of
        OpenTelemetry does. What the handler raises leaves the context by that error, `Refused` and
        `trio.Cancelled` among them; a stream that is left early, while its handler stands at a ``yield``, by
        `GeneratorExit`. It cannot be held back there.

        Args:
            kind: What it is: ``"event"``, to be confirmed or not, ``"request"``, or ``"stream"``.
            message: What the handler got; `Message.traceparent` says which span it comes from.
        """
        return contextlib.nullcontext()

    def traceparent(self) -> str:
        """The present span, for a message that is about to be sent and was given none; in the notation of W3C.

        Of what `calling` is around, this is asked inside of that context. Empty for none.
        """
        return ""
