"""What connections, clients and servers tell about themselves: frozen snapshots."""

from __future__ import annotations

import dataclasses

__all__ = [
    "BroadcastReport",
    "ClientStatistics",
    "ConnectionStatistics",
    "Disconnected",
    "DrainReport",
    "ServerStatistics",
    "SubscriptionStatistics",
]


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
        dropped: Broadcasts that this peer did not get: it is slow (``slow_peer="drop"``), or takes none like that. Over
            UDP whatever was lost on this side: events and answers for which there was no room, datagrams that the
            system did not send or of which it told later that nobody was there, and those that came too fast.
        late_answers: Answers that came when nobody waited any more.
        attachments_sent: Attachments sent by this side.
        attachments_sent_size: Their bytes.
        attachments_received: Attachments that arrived.
        attachments_received_size: Their bytes.
        outbox_size: Bytes waiting to be sent.
        inbox_size: Bytes of the reads of which something waits for a handler, and 256 more for each such item.
        pending_requests: Requests of this side that wait for an answer.
        concurrent_requests: Requests of the peer being handled.
        streams_asked: Streams that this side has asked for.
        streams_served: Streams of the peer that were brought to handlers.
        open_streams: Streams of either side that are under way.
        items_sent: Items of streams sent by this side.
        items_received: Items of streams that have arrived.
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
    streams_asked: int
    streams_served: int
    open_streams: int
    items_sent: int
    items_received: int
    reading_paused: bool


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ClientStatistics:
    """A client, since it was made.

    Attributes:
        connected: Whether there is a connection now.
        connects: Connections made so far.
        failed_connects: Attempts that failed.
        moves: Connections left because their server asked for new work to go elsewhere.
        departing: Of those, the ones on which something is still under way.
        offline_messages: Messages that wait for a connection.
        offline_size: Their bytes.
        offline_dropped: Messages dropped while there was no connection.
        unsettled: Events that are to be confirmed and have no outcome yet.
        confirmed: Events that were confirmed.
        resent: Times that such an event was sent again, after a connection was lost.
        unconfirmed: Events of which it will not be known whether they were handled.
        subscriptions: Subscriptions to topics now.
        published_received: Messages that came for them, each counted once.
        published_dropped: Messages that subscriptions dropped because they were not taken fast enough.
        publishes_refused: Messages of this client that the server has refused to publish.
        connection: The present connection, if there is one.
    """

    connected: bool
    connects: int
    failed_connects: int
    moves: int
    departing: int
    offline_messages: int
    offline_size: int
    offline_dropped: int
    unsettled: int
    confirmed: int
    resent: int
    unconfirmed: int
    subscriptions: int
    published_received: int
    published_dropped: int
    publishes_refused: int
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
        outgrown: Connections closed because too much was held for their user or network address (``max_held_size``).
        broadcasts: Broadcasts made.
        broadcasts_dropped: Copies of them that slow peers did not get.
        datagrams_dropped: Datagrams lost on this side that belong to no connection.
        sessions: Clients that are remembered, with a connection or without.
        duplicates: Events that were sent again and not handled again.
        redelivered: Events that were sent again after this server was started, and may have been handled before.
        subscriptions: Subscriptions to topics now, of peers and of this program.
        subscriptions_refused: Subscriptions that peers asked for and did not get.
        publishes: Messages published, by this program and by peers.
        publishes_dropped: Copies of them that slow peers did not get, or slow subscriptions of this program.
        publishes_refused: Messages that peers wanted to publish and could not.
        retained_topics: Topics of which the last message is kept.
        retained_size: Bytes of those messages.
        draining: Whether clients have been asked to take new work elsewhere.
    """

    connections: int
    accepted: int
    refused: int
    denied: int
    handshake_errors: int
    accept_errors: int
    outgrown: int
    broadcasts: int
    broadcasts_dropped: int
    datagrams_dropped: int
    sessions: int
    duplicates: int
    redelivered: int
    subscriptions: int
    subscriptions_refused: int
    publishes: int
    publishes_dropped: int
    publishes_refused: int
    retained_topics: int
    retained_size: int
    draining: bool


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionStatistics:
    """A subscription, since it was made.

    Attributes:
        received: Messages that came for it.
        dropped: Those of them that were dropped, because they were not taken fast enough.
        waiting: Those of them that wait to be taken.
        restored: How often it was subscribed again after the connection was lost. What was published meanwhile was
            missed, apart from the last message of topics that are retained.
    """

    received: int
    dropped: int
    waiting: int
    restored: int


@dataclasses.dataclass(frozen=True, slots=True)
class DrainReport:
    """How a drain went.

    Attributes:
        left: Connections that ended by themselves, with nothing under way.
        cut_off: Connections that were there when the time was over, and were closed.
        undelivered: Messages that could not be sent to those any more.
    """

    left: int = 0
    cut_off: int = 0
    undelivered: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class BroadcastReport:
    """What became of a broadcast, or of a message that was published.

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
