"""Binary records on their way in: bytes beside JSON, before the frame that they belong to.

Frames are found by their delimiters, which a record may contain. So a chunk in which a record begins, and what follows
until the frame of the record is complete, is looked at here, and only what lies between records goes the usual way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pyipc.errors import RemoteProtocolError
from pyipc.protocol.codec import Event, Reply, Request
from pyipc.protocol.features import Deliver, Item, OpenStream, Publish, Published, TracedEvent
from pyipc.protocol.frames import add_piece
from pyipc.protocol.parcels import RECORD, RECORD_HEAD

if TYPE_CHECKING:
    from pyipc.options import Options
    from pyipc.protocol.conversation import Inbound
    from pyipc.protocol.framed import JsonConversation

__all__ = ["Attachable", "RecordBuffer", "WithAttachments", "attach_records", "receive_records"]

#: The frames that may have records before them.
Attachable = Event | Request | Reply | TracedEvent | Deliver | OpenStream | Item | Publish | Published
_ATTACHABLE: Final = (Event, Request, Reply, TracedEvent, Deliver, OpenStream, Item, Publish, Published)


class WithAttachments:
    """Reported in the place of what came with records before it.

    Attributes:
        item: What came.
        attachments: The contents of the records, in order.
    """

    __slots__ = ("attachments", "item")

    def __init__(self, item: Attachable, attachments: tuple[bytes, ...]) -> None:
        self.item: Attachable = item
        self.attachments: tuple[bytes, ...] = attachments

    def __repr__(self) -> str:
        return f"{self.item!r} with attachments of {', '.join(f'{len(each):,}' for each in self.attachments)} bytes"


class RecordBuffer:
    """Holds the records of a frame that has not arrived completely.

    Memory grows with what has arrived and never with a length that was announced.

    Args:
        options: How many records one frame may have, and how many bytes of them.

    Attributes:
        attachments: The contents of those that are complete.
        size: Bytes that have arrived of all of them.
    """

    __slots__ = ("_announced", "_head", "_missing", "_options", "_pieces", "attachments", "size")

    def __init__(self, options: Options) -> None:
        self._options = options
        self._announced = 0
        self._head = b""
        self._missing = 0
        self._pieces: list[bytes | bytearray] = []
        self.attachments: list[bytes] = []
        self.size: int = 0

    @property
    def is_open(self) -> bool:
        """Whether a record has begun and is not complete."""
        return self._missing > 0 or len(self._head) > 0

    def take(self, chunk: bytes, start: int) -> int:
        """Take what is of one record, where it begins or goes on in a chunk.

        Returns:
            Where what is not of it begins.

        Raises:
            RemoteProtocolError: With the code ``"size"``.
        """
        before = start
        if not self._missing:
            end = start + RECORD_HEAD - len(self._head)
            self._head += chunk[start:end]
            start = min(end, len(chunk))
            if len(self._head) == RECORD_HEAD:
                self._begin(int.from_bytes(self._head[1:], "big"))
        if self._missing and start < len(chunk):
            end = min(start + self._missing, len(chunk))
            add_piece(self._pieces, chunk[start:end])
            self._missing -= end - start
            start = end
            if not self._missing:
                self._end()
        self.size += start - before
        return start

    def _begin(self, length: int) -> None:
        """The length of a record is known."""
        self._announced += length
        options = self._options
        if len(self.attachments) >= options.max_attachments:
            raise RemoteProtocolError(
                "size",
                f"the peer is sending more than {options.max_attachments:,} attachments to one frame (max_attachments)",
            )
        if self._announced > options.max_attachments_size:
            raise RemoteProtocolError(
                "size",
                f"the peer is sending attachments of {self._announced:,} bytes to one frame and the limit is "
                f"{options.max_attachments_size:,} (max_attachments_size)",
            )
        self._head = b""
        self._missing = length
        if not length:
            self._end()

    def _end(self) -> None:
        """A record is complete."""
        self.attachments.append(b"".join(self._pieces))
        self._pieces = []


def receive_records(side: JsonConversation, data: bytes) -> list[Inbound]:
    """What `JsonConversation.receive_data` does, where a record is under way or may begin."""
    events: list[Inbound] = []
    buffer = side._buffer
    records, side._records = side._records, None  # what lies between records goes the usual way
    side.partial_size = buffer.partial_size
    start = 0
    while start < len(data) and not side._failed and not side.is_busy:
        at_border = buffer.partial_size == 0
        if at_border and (data.startswith(RECORD, start) or (records is not None and records.is_open)):
            if records is None:
                records = RecordBuffer(side._options)
            try:
                start = records.take(data, start)
            except RemoteProtocolError as error:
                side._reject(error, events)
            continue
        if records is None:
            end = _end_of_frames(side, data, start)
            events += side.receive_data(data[start:end])
        else:
            end = data.find(side._delimiter, start) + 1 or len(data)
            items = _receive_frame(side, data[start:end])
            if side._failed:
                events += items
            elif not buffer.partial_size and not side.is_busy:
                _attach(side, items, records, events)
                records = None
        start = end
    if side.is_busy:
        side._wait_behind(data[start:])
    if records is not None and not side._failed:
        side._records = records
        side.partial_size += records.size
    return events


def _end_of_frames(side: JsonConversation, data: bytes, start: int) -> int:
    """How far there are frames without records: to where the next record begins."""
    mark = data.find(RECORD, start)
    if mark > start and data.startswith(side._delimiter, mark - 1):
        return mark
    if mark >= 0:
        _expect_refusal(side)
    return len(data)


def _receive_frame(side: JsonConversation, data: bytes) -> list[Inbound]:
    if RECORD in data:
        _expect_refusal(side)
    return side.receive_data(data)


def _expect_refusal(side: JsonConversation) -> None:
    """The byte stands inside of a frame, which is therefore none. It will be refused when its end is here."""
    side._takes_records = False


def attach_records(side: JsonConversation, items: list[Inbound]) -> list[Inbound]:
    """Report the large frame that records belong to, and which has been read by now."""
    records, side._records = side._records, None
    if records is None or side._failed:
        return items
    events: list[Inbound] = []
    _attach(side, items, records, events)
    return events


def _attach(side: JsonConversation, items: list[Inbound], records: RecordBuffer, events: list[Inbound]) -> None:
    """Report the frame that the records belong to."""
    if items and isinstance(items[0], _ATTACHABLE):
        events.append(WithAttachments(items[0], tuple(records.attachments)))
    else:
        side._reject(RemoteProtocolError("control", "the peer sent attachments to a frame that takes none"), events)
