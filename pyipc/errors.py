"""Every error that pyipc raises, in one tree.

::

    IPCError
    ├── AddressError (ValueError)      the address is wrong or cannot be used; nothing was opened
    │   └── InsecureAddress            plain traffic would leave this host and nobody allowed it
    ├── CertificateFileError (ValueError)  a file of certificates or keys cannot be used (.path)
    ├── ListenError                    the server cannot take its address
    │   ├── AddressInUse               a live server has it
    │   └── UnsafePath                 the socket's directory or file is not safely ours
    ├── ConnectError                   no connection could be made; the operating system's error is chained
    │   ├── PeerRefused                the other side answered and said no (.code, .message)
    │   ├── HandshakeFailed            TLS could not be agreed on, or a certificate not be verified (.code)
    │   └── PeerNotAllowed             the other side is not somebody we talk to (.peer)
    ├── ConnectionClosed               this side closed it, or it is closed already
    │   └── ConnectionLost             it broke, or the peer left (.maybe_handled)
    ├── Undelivered                    closing could not send everything (.count)
    ├── Unconfirmed                    what became of a confirmed event is not known (.event, .code, .maybe_handled)
    ├── ProtocolError
    │   ├── LocalProtocolError         the caller asked for something illegal; nothing was sent
    │   │   ├── InvalidEventName (.event)
    │   │   ├── MessageTooLarge (.size, .limit)
    │   │   ├── UnencodableData        the data has no JSON form
    │   │   └── PeerLacksFeature       the peer cannot do this (.feature)
    │   │       └── UnsupportedByTransport  no peer can, over this transport or framing
    │   └── RemoteProtocolError        the peer sent what the protocol does not allow (.code)
    ├── Refused                        raised by a handler: its answer is no, and says why (.code, .message, .data)
    ├── SubscriptionOverflow           more was published than a subscription holds (.pattern, .max_buffered)
    └── RequestError
        ├── NoHandler                  the peer has no handler for the request (.event)
        ├── InvalidData                data does not fit the declared type (.path says where)
        ├── RequestTimeout (TimeoutError)  no answer in time (.event, .timeout)
        └── RemoteError                the handler failed, or refused (.code, .message, .data)

What an error knows is in its attributes; no code should read the text of a message.
"""

from __future__ import annotations

import re
from typing import Any, Final

__all__ = [
    "AddressError",
    "AddressInUse",
    "CertificateFileError",
    "ConnectError",
    "ConnectionClosed",
    "ConnectionLost",
    "HandshakeFailed",
    "IPCError",
    "InsecureAddress",
    "InvalidData",
    "InvalidEventName",
    "ListenError",
    "LocalProtocolError",
    "MessageTooLarge",
    "NoHandler",
    "PeerLacksFeature",
    "PeerNotAllowed",
    "PeerRefused",
    "ProtocolError",
    "Refused",
    "RemoteError",
    "RemoteProtocolError",
    "RequestError",
    "RequestTimeout",
    "SubscriptionOverflow",
    "Unconfirmed",
    "Undelivered",
    "UnencodableData",
    "UnsafePath",
    "UnsupportedByTransport",
]


class IPCError(Exception):
    """The root of every error that pyipc raises on purpose."""


class AddressError(IPCError, ValueError):
    """The address is malformed, names an unknown scheme, or cannot be used on this system."""


class InsecureAddress(AddressError):
    """Plain, unauthenticated traffic would cross a network and ``allow=`` does not say that it may."""


class CertificateFileError(IPCError, ValueError):
    """A file of certificates or keys is missing, or cannot be used for TLS.

    Attributes:
        path: Which one.
    """

    def __init__(self, path: str, message: str) -> None:
        self.path = path
        super().__init__(message)


class ListenError(IPCError):
    """The server cannot listen on its address."""


class AddressInUse(ListenError):
    """A live server holds the address; it was left untouched."""


class UnsafePath(ListenError):
    """A socket path, its directory or its lock file is not safely ours; nothing was changed.

    Clients meet it as well: they verify the directory of a local default address.
    """


class ConnectError(IPCError):
    """No connection could be made. The operating system's error, if there is one, is the cause."""


class PeerRefused(ConnectError):
    """The peer was reached and refused the connection.

    Attributes:
        code: A short name for the reason, such as ``"full"``, ``"version"`` or ``"not-allowed"``.
        message: The peer's own words.
    """

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        self.message = message
        super().__init__(f"the peer refused the connection ({code}): {message}")


class HandshakeFailed(ConnectError):
    """The peer was reached, but no secure connection could be agreed on.

    Attributes:
        code: A short, stable name for the reason. About a certificate, the peer's or, where the peer says so, ours:
            ``"expired"``, ``"not-yet-valid"``, ``"wrong-host"``, ``"unknown-ca"``, ``"certificate-required"``, or
            ``"bad-certificate"`` for any other. Else ``"not-tls"``, ``"timeout"``, ``"closed"``, or ``"tls"`` for
            whatever OpenSSL says besides.
    """

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(message)

    @property
    def may_pass(self) -> bool:
        """Whether it may go well the next time though nobody mends anything."""
        return self.code in ("timeout", "closed")


class PeerNotAllowed(ConnectError):
    """The process on the other side is not one that ``allow=`` admits.

    Attributes:
        peer: What the kernel told about it.
    """

    def __init__(self, message: str, peer: object = None) -> None:
        self.peer = peer
        super().__init__(message)


class ConnectionClosed(IPCError):
    """The connection, client or server was closed by this side."""


class ConnectionLost(ConnectionClosed):
    """The connection ended without this side asking for it.

    Attributes:
        maybe_handled: Whether the peer may have acted on what was sent. ``False`` is certain,
            ``True`` is not.
    """

    def __init__(self, message: str, *, maybe_handled: bool = False) -> None:
        self.maybe_handled = maybe_handled
        super().__init__(message)


class Undelivered(IPCError):
    """Closing could not hand everything to the peer.

    Attributes:
        count: How many messages were still waiting to be sent.
    """

    def __init__(self, count: int, message: str) -> None:
        self.count = count
        super().__init__(message)


class Unconfirmed(IPCError):
    """An event was to be confirmed, and what became of it will not be known any more.

    Attributes:
        event: The name of the event.
        code: A short, stable name for the reason: ``"timeout"`` (no outcome came in time), ``"lost"`` (the server
            could not be reached for so long that it may forget), ``"forgotten"`` (it did forget), ``"unsupported"``
            (the server that is there now cannot confirm), ``"closed"`` (this side was closed) or ``"failed"`` (the
            client has given up to connect).
        maybe_handled: Whether it may have been handled. ``False`` is certain, ``True`` is not.
    """

    def __init__(self, event: str, code: str, message: str, *, maybe_handled: bool) -> None:
        self.event = event
        self.code = code
        self.maybe_handled = maybe_handled
        known = "it may have been handled" if maybe_handled else "it was not sent"
        super().__init__(f"{event!r} was not confirmed: {message}; {known}")


class ProtocolError(IPCError):
    """The rules of the protocol were broken, by this side or by the other."""


class LocalProtocolError(ProtocolError):
    """The caller asked for something that the protocol does not allow. Nothing was sent."""


class InvalidEventName(LocalProtocolError):
    """The name of an event cannot be sent.

    Attributes:
        event: The name.
    """

    def __init__(self, event: object, message: str) -> None:
        self.event = event
        super().__init__(message)


class MessageTooLarge(LocalProtocolError):
    """A message exceeds what this side or the peer accepts as a frame or its attachments, or what a datagram holds.

    Attributes:
        size: Bytes of the whole frame, its envelope included; or of its attachments, or their number, whichever is
            too much.
        limit: How much is allowed.
    """

    def __init__(
        self,
        size: int,
        limit: int,
        advice: str = "send less at a time, or raise max_frame_size on both sides",
        *,
        message: str = "",
    ) -> None:
        self.size = size
        self.limit = limit
        super().__init__(
            message or f"the message takes {size:,} bytes on the wire and the limit is {limit:,}; {advice}"
        )


class UnencodableData(LocalProtocolError):
    """The data has no JSON form. The codec's own error is the cause."""


class PeerLacksFeature(LocalProtocolError):
    """The peer cannot do what was asked.

    Attributes:
        feature: A short name of what is missing.
    """

    def __init__(self, feature: str, message: str) -> None:
        self.feature = feature
        super().__init__(message)


class UnsupportedByTransport(PeerLacksFeature):
    """The transport or the framing of the connection cannot do what was asked, whoever is on the other side."""


# Characters of a message that quotes the peer.
_MAX_QUOTED: Final = 500


class RemoteProtocolError(ProtocolError):
    """The peer sent something that the protocol does not allow.

    Attributes:
        code: A short, stable name of the rule: ``"json"``, ``"utf8"``, ``"envelope"``, ``"depth"``,
            ``"size"``, ``"name"``, ``"control"``, ``"hello"``, ``"version"``, ``"full"``, ``"not-allowed"``, ``"tls"``,
            ``"truncated"``.
    """

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        # What it quotes, the peer chose: without an end it would fill logs, and the goodbye.
        super().__init__(message if len(message) <= _MAX_QUOTED else f"{message[:_MAX_QUOTED]}...")


# What the protocol itself says by a code. Nobody could tell that such a one came from a handler. (`not-allowed` is not
# among them: it means the same whoever says it.)
_CODES_OF_THE_PROTOCOL: Final = frozenset(
    {
        "bad-pattern",
        "handler-failed",
        "invalid-data",
        "is-a-stream",
        "no-handler",
        "not-a-stream",
        "reply-too-large",
        "stalled",
        "too-large",
        "too-many",
    }
)
_CODE: Final = re.compile(r"[!-~]{1,64}")


class Refused(IPCError):
    """A handler raises it to answer no: whoever asked gets `RemoteError` with the same attributes.

    It is for what a caller has to reckon with, such as an account that does not exist. It is no failure of the
    handler: nothing is logged but for those who debug, and it is counted as a refusal. Where nobody waits for an
    answer, as with a plain event, nobody hears of it.

    Args:
        code: A short name for the reason, which callers decide by: 1 to 64 printable characters of ASCII, no spaces.
        message: The reason, for people.
        data: Whatever else callers should know; anything that has a JSON form. Where it cannot be sent the caller gets
            the rest without it.

    Raises:
        ValueError: ``code`` is none, or the protocol has a meaning for it.
    """

    def __init__(self, code: str, message: str, data: Any = None) -> None:
        texts: tuple[object, object] = (code, message)
        if not all(isinstance(text, str) for text in texts):
            raise TypeError(f"Refused takes a code and a message, both text, and not {code!r} and {message!r}")
        if not _CODE.fullmatch(code):
            raise ValueError(
                f"{code[:80]!r} is no code; take a short name of 1 to 64 printable characters of ASCII without spaces, "
                "such as 'not-found', and put the rest into the message or the data"
            )
        if code in _CODES_OF_THE_PROTOCOL:
            raise ValueError(
                f"the protocol itself says {code!r}, and callers could not tell who does; take another code"
            )
        self.code = code
        self.message = message
        self.data = data
        super().__init__(f"{code}: {message}")


class SubscriptionOverflow(IPCError):
    """More was published than a subscription holds, and its policy is ``"close"``: it is over.

    Attributes:
        pattern: What was subscribed to.
        max_buffered: How many messages it held.
        max_buffered_size: Of how many bytes in all.
    """

    def __init__(self, pattern: str, max_buffered: int, max_buffered_size: int) -> None:
        self.pattern = pattern
        self.max_buffered = max_buffered
        self.max_buffered_size = max_buffered_size
        super().__init__(
            f"messages for {pattern!r} came faster than they were taken, and the subscription holds {max_buffered:,} "
            f"of {max_buffered_size:,} bytes in all; take them faster, raise max_buffered or max_buffered_size, or "
            "choose a policy that drops some"
        )


class RequestError(IPCError):
    """A request was not answered with a result."""


class NoHandler(RequestError):
    """The peer is well, but nobody there handles this request.

    Attributes:
        event: The name of the request.
    """

    def __init__(self, event: str, message: str) -> None:
        self.event = event
        super().__init__(message)


class InvalidData(RequestError):
    """Data does not fit the type that a handler or a caller declared.

    Attributes:
        path: Where in the data, in the notation ``$.field[0]``.
    """

    def __init__(self, message: str, path: str = "$") -> None:
        self.path = path
        super().__init__(message)


class RequestTimeout(RequestError, TimeoutError):
    """No answer came in time; the peer was told that nobody waits any more.

    Attributes:
        event: The name of the request.
        timeout: Seconds waited.
    """

    def __init__(self, event: str, timeout: float, hint: str = "") -> None:
        self.event = event
        self.timeout = timeout
        super().__init__(f"no answer to {event!r} within {timeout:g} s{hint}")


class RemoteError(RequestError):
    """The peer's handler failed, or refused.

    Attributes:
        code: A short name, ``"handler-failed"`` unless the handler chose another with `Refused`.
        message: The peer's description, as it was sent. The text of the error has no more than the beginning of it,
            without what would begin a line or move a cursor.
        data: Whatever else the peer sent along, as decoded JSON.
    """

    def __init__(self, code: str, message: str, data: Any = None) -> None:
        self.code = code
        self.message = message
        self.data = data
        super().__init__(f"{code}: {message}")
