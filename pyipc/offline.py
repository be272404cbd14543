"""Events that were emitted while there was no connection."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING

from pyipc.attaching import note_sent
from pyipc.errors import ConnectionClosed, ConnectionLost, LocalProtocolError
from pyipc.protocol.features import PUBLISH_START, TOPICS
from pyipc.protocol.parcels import Parcel, SmallParcel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pyipc.connection import Connection
    from pyipc.options import Options
    from pyipc.protocol.parcels import Frame
    from pyipc.resending import Resending

__all__ = ["OfflineQueue", "needs_feature", "send_all_kept", "send_kept"]


class OfflineQueue:
    """Frames in order, bounded in number and bytes.

    Attributes:
        size: Bytes waiting.
        dropped: Events dropped, because the option ``offline`` says so or the server cannot take them.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._frames: collections.deque[tuple[str | None, Frame, int]] = collections.deque()
        self.size: int = 0
        self.dropped: int = 0

    def __len__(self) -> int:
        return len(self._frames)

    def put(self, event: str | None, frame: Frame, why: str, after: int) -> None:
        """Keep an event, or do with it what the option ``offline`` says.

        Args:
            event: Its name, if it is still to be checked against the server to come.
            frame: Its bytes.
            why: There is no connection, for people.
            after: The number of the last event before it that is to be confirmed, and so is kept elsewhere.

        Raises:
            ConnectionLost: Events are not queued, or the queue is full; the event will not be sent.
        """
        options = self._options
        if options.offline == "raise":
            raise ConnectionLost(f"not connected ({why}), and offline='raise'")
        if options.offline == "drop":
            self.dropped += 1
            return
        if len(self._frames) >= options.max_offline_messages or self.size + len(frame) > options.max_offline_size:
            raise ConnectionLost(
                f"not connected ({why}), and the offline queue is full: {len(self._frames):,} messages, "
                f"{self.size:,} bytes, and no room for {len(frame):,} more (max_offline_messages, max_offline_size)"
            )
        self._frames.append((event, frame, after))
        self.size += len(frame)

    def put_back(self, left: Sequence[tuple[Frame, int]]) -> None:
        """Keep what a broken connection left unsent, before everything else and whatever the bounds.

        It was accepted once, when it counted against the outbox.

        Args:
            left: What it left, in order: of each event the bytes, and what comes before, as for `put`.
        """
        if self._options.offline != "queue":
            self.dropped += len(left)
            return
        self._frames.extendleft((None, frame, after) for frame, after in reversed(left))
        self.size += sum(len(frame) for frame, _ in left)

    def names(self) -> Iterator[str | None]:
        """The names of the events that wait, where they are still to be checked."""
        return (event for event, _, _ in self._frames)

    @property
    def needs_feature(self) -> bool:
        """Whether something waits that not every server takes."""
        return any(needs_feature(frame) for _, frame, _ in self._frames)

    def take_all(self) -> Iterator[tuple[str | None, Frame, int]]:
        """Empty the queue: of each event what `put` was given of it: the name, the bytes, and what comes before."""
        while self._frames:
            kept = self._frames.popleft()
            self.size -= len(kept[1])
            yield kept


def needs_feature(frame: Frame) -> bool:
    """Whether something may go only to a server that has introduced itself, and knows attachments or topics."""
    return isinstance(frame, Parcel | SmallParcel) or frame.startswith(PUBLISH_START)


def send_kept(connection: Connection, event: str | None, frame: Frame) -> None:
    """Send what was accepted while there was no connection, however much it is.

    Args:
        connection: Over which.
        event: The event's name, if it is still to be checked against this peer.
        frame: Its bytes.

    Raises:
        LocalProtocolError: It does not suit this peer; nothing was sent.
        ConnectionLost: The connection is broken as well.
    """
    conversation = connection._conversation
    inner = frame.frame if isinstance(frame, Parcel | SmallParcel) else frame
    is_published = inner.startswith(PUBLISH_START)
    if needs_feature(frame):
        if not connection.is_open:
            raise connection._gone()  # before it was clear what the peer can do
        if is_published:
            conversation.check_feature(TOPICS)
        conversation.check_size(frame)
    if event is not None and not is_published:
        conversation.check(event, frame)
    connection._outbox.push(frame)
    connection._events_sent += 1
    if event is not None and connection._watch is not None:  # else it was told of when it was to be sent first
        connection._watch.sent("publish" if is_published else "event", event, len(frame), connection)
    if isinstance(frame, Parcel | SmallParcel):
        note_sent(connection, frame)


def send_all_kept(
    connection: Connection, offline: OfflineQueue, window: Resending, drop: Callable[[LocalProtocolError], None]
) -> None:
    """Put what was kept, and what has no outcome, into a new connection, in order, before anything else gets there.

    Args:
        connection: The new one.
        offline: What was kept.
        window: What else was kept, since it is to be confirmed.
        drop: Called with the reason for each that this server cannot take.
    """
    owed, confirmed = window.owed(), window.kept()
    for event, frame, after in offline.take_all():
        window.resend(connection, owed, after)
        window.send_kept(connection, confirmed, after)
        try:
            send_kept(connection, event, frame)
        except LocalProtocolError as error:
            drop(error)
        except ConnectionClosed:
            offline.put_back([(frame, after)])
            return
    window.resend(connection, owed)
    window.send_kept(connection, confirmed)
