"""What is to be done with what arrives and is neither a plain event nor a request: the rarer frames, one by one."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from pyipc.arrival import Arrival, FullRequest
from pyipc.attaching import Attached, note_received
from pyipc.delivering import Delivery
from pyipc.errors import PeerRefused, RemoteProtocolError
from pyipc.protocol.codec import Event
from pyipc.protocol.features import (
    Credit,
    Deliver,
    EndOfStream,
    OpenStream,
    Outcome,
    Publish,
    Published,
    ReceivedItem,
    ReceivedOpening,
    Subscribe,
    TracedEvent,
    Unpublished,
    Unsubscribe,
)
from pyipc.protocol.messages import Failure, Goaway, Goodbye, Introduced, Malformed, Reply, Request, Verified
from pyipc.protocol.parcels import RECORD_HEAD
from pyipc.protocol.records import WithAttachments

if TYPE_CHECKING:
    from pyipc.connection import Connection
    from pyipc.protocol.conversation import Inbound

__all__ = ["settle"]

logger: logging.Logger = logging.getLogger("pyipc.connection")


def settle(connection: Connection, item: Inbound) -> Arrival | FullRequest | None:
    """Deal with one item, without waiting.

    Returns:
        An event or a request for handlers, if that is what it is.
    """
    match item:
        case ReceivedItem() | EndOfStream():  # of which there are many
            if item.call in connection._calls.pending:
                return _refuse_answer(connection, f"answered the call {item.call} as if it were a stream")
            if connection._streams is not None:
                connection._streams.settle(item)
        case Deliver():
            if item.number - item.lowest >= connection._options.max_session_window:
                message = f"the peer sent the number {item.number}, too far above {item.lowest} (max_session_window)"
                return settle(connection, Malformed(RemoteProtocolError("control", message), fatal=True))
            if connection._quiet is not None:
                connection._note_quiet()  # whoever waits for the peer to leave learns what that waits for
            return Delivery(item)
        case Outcome():
            if connection._window is not None:
                connection._window.settle(connection, item)
        case Reply(call):
            return _refuse_answer(connection, f"answered the stream {call} as if it were a call")
        case Failure():
            if connection._streams is None or not connection._streams.fail(item):
                connection._calls.settle(item)
        case OpenStream():
            connection._responder.take_stream(item)
        case Credit():
            if connection._responder.producers is not None:
                connection._responder.producers.credit(item)
        case TracedEvent():
            return Arrival(item.event, item.data, traceparent=item.traceparent)
        case Published() | Publish() | Subscribe() | Unsubscribe() | Unpublished():
            return connection._owner.topic_frame(connection, item)
        case Introduced():
            connection._vigil.meet(item.heartbeat)
            connection._owner.introduced(connection, item)
            if connection._introduced is not None:
                connection._introduced.set()
        case Malformed(error, fatal):
            if fatal:
                if connection._reason is None:
                    logger.warning("%s: %s; the connection is closed", connection._link.peer.address, error)
                connection.abort(error.code, str(error), error=error)
            else:
                connection._malformed += 1
                level = _level_of_malformed(connection)
                logger.log(level, "%s: %s; the frame was skipped", connection._link.peer.address, error)
        case Verified():
            connection._link.verify()
        case Goodbye(code, message):
            refused = PeerRefused(code, message) if code != "closed" else None
            code = "goodbye" if refused is None else code
            connection._end(code, message or "the peer closed", by_peer=True, error=refused)
            connection._sever()
        case Goaway(message):
            connection._owner.going_away(connection, message)
        case WithAttachments():
            note_received(connection, item.attachments)
            return _settle_attached(connection, item)
        case _:
            pass
    return None


def _settle_attached(connection: Connection, arrived: WithAttachments) -> Arrival | FullRequest | None:
    """Deal with what has attachments."""
    item, attachments = arrived.item, arrived.attachments
    match item:
        case Event():
            return Arrival(item.type, item.data, attachments=attachments)
        case Request():
            return FullRequest(item, attachments)
        case Publish() | Published():
            return connection._owner.topic_frame(connection, item, attachments)
        case Reply():
            return connection._settle(Reply(item.call, Attached(item.data, attachments)))
        case OpenStream():
            fields = item.call, item.event, item.data, item.items, item.size, item.traceparent
            return settle(connection, ReceivedOpening(*fields, attachments))
        case ReceivedItem():
            size = item.size + sum(map(len, attachments)) + RECORD_HEAD * len(attachments)
            return settle(connection, ReceivedItem(item.call, Attached(item.data, attachments), size))
        case _:
            arrival = settle(connection, item)
            if isinstance(arrival, Arrival):
                arrival.attachments = attachments
            return arrival


def _refuse_answer(connection: Connection, what: str) -> None:
    """End a connection whose peer gives an answer that whoever asked cannot wait for: he would wait for ever."""
    settle(connection, Malformed(RemoteProtocolError("control", f"the peer {what}"), fatal=True))


def _level_of_malformed(connection: Connection) -> int:
    """How loudly to tell of another frame that was skipped: anybody can send any number of datagrams."""
    if connection._link.reliable:
        return logging.WARNING
    count = connection._malformed
    is_round = count in (1, 10, 100, 1_000) or count % 10_000 == 0
    return logging.WARNING if connection._link.verified and is_round else logging.DEBUG
