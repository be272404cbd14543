"""What connections, clients and servers tell about themselves: frozen snapshots."""

from __future__ import annotations

import dataclasses

__all__ = ["BroadcastReport", "ClientStatistics", "ConnectionStatistics", "Disconnected", "ServerStatistics"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionStatistics:
    """One connection, since it was made.

    Attributes:
        bytes_sent: Bytes handed to the operating system.
        bytes_received: Bytes read.
        events_sent: Events and requests sent by this side.
        events_received: Events and requests brought to handlers.
        unheard: Events for which there was no handler.
        handler_errors: Handlers that failed.
        refusals: Handlers that refused (`Refused`).
        malformed: Frames skipped because they broke the protocol (``malformed="skip"``, and always over UDP).
        dropped: Broadcasts that this slow peer did not get (``slow_peer="drop"``). Over UDP whatever was lost on this
            side: events and answers for which there was no room, datagrams that the system did not send or of which
            it told later that nobody was there, and those that came too fast.
        late_answers: Answers that came when nobody waited any more.
        attachments_sent: Attachments sent by this side.
        attachments_sent_size: Their bytes.
        attachments_received: Attachments that arrived.
        attachments_received_size: Their bytes.
        outbox_size: Bytes waiting to be sent.
        inbox_size: Bytes of the reads of which something waits for a handler, and 256 more for each such item.
        pending_requests: Requests of this side that wait for an answer.
        concurrent_requests: Requests of the peer being handled.
        reading_paused: Whether the peer is being held back.
    """

    bytes_sent: int
    bytes_received: int
    events_sent: int
    events_received: int
    unheard: int
    handler_errors: int
    refusals: int
    malformed: int
    dropped: int
    late_answers: int
    attachments_sent: int
    attachments_sent_size: int
    attachments_received: int
    attachments_received_size: int
    outbox_size: int
    inbox_size: int
    pending_requests: int
    concurrent_requests: int
    reading_paused: bool


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ClientStatistics:
    """A client, since it was made.

    Attributes:
        connected: Whether there is a connection now.
        connects: Connections made so far.
        failed_connects: Attempts that failed.
        offline_messages: Messages that wait for a connection.
        offline_size: Their bytes.
        offline_dropped: Messages dropped while there was no connection.
        connection: The present connection, if there is one.
    """

    connected: bool
    connects: int
    failed_connects: int
    offline_messages: int
    offline_size: int
    offline_dropped: int
    connection: ConnectionStatistics | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatistics:
    """A server, since it started.

    Attributes:
        connections: Connections now.
        accepted: Connections taken so far.
        refused: Connections turned away because of a limit.
        denied: Connections turned away because of who it was.
        handshake_errors: Connections that never came to be, because their handshake failed or took too long.
        accept_errors: Times that accepting failed.
        broadcasts: Broadcasts made.
        broadcasts_dropped: Copies of them that slow peers did not get.
        datagrams_dropped: Datagrams lost on this side that belong to no connection.
    """

    connections: int
    accepted: int
    refused: int
    denied: int
    handshake_errors: int
    accept_errors: int
    broadcasts: int
    broadcasts_dropped: int
    datagrams_dropped: int


@dataclasses.dataclass(frozen=True, slots=True)
class BroadcastReport:
    """What became of a broadcast.

    Attributes:
        sent: Connections whose outbox took it.
        dropped: Connections that were too slow and did not get it.
    """

    sent: int
    dropped: int


@dataclasses.dataclass(frozen=True, slots=True)
class Disconnected:
    """Why a connection ended.

    Attributes:
        connection: Which one.
        code: A short, stable name: ``"closed"`` (by this side), ``"goodbye"`` (the peer closed on
            purpose), ``"eof"`` (the peer closed without a word, or died), ``"lost"`` (the
            transport broke), ``"silent"`` (no sign of life), ``"slow"`` (it read or sent too
            slowly), ``"handshake"`` (it did not introduce itself), ``"idle"`` (a UDP peer sent nothing for
            ``peer_idle_timeout``), ``"crowded"`` (a UDP peer had to make room for another), or the code of the
            `RemoteProtocolError`, of the `HandshakeFailed`, or of the goodbye.
        message: The same for people.
        by_peer: Whether the other side ended it.
        error: What was raised, if something was.
    """

    connection: object
    code: str
    message: str
    by_peer: bool
    error: BaseException | None = None
