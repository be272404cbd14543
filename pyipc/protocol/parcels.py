"""Binary records on their way out: a frame and the attachments before it, as one unit.

What is small is put together in one piece of bytes. What is large is sent from where it is, so a parcel of it has
several parts.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from pyipc.errors import UnencodableData
from pyipc.protocol.traces import is_traced

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "JOINED_SIZE",
    "NO_ATTACHMENTS",
    "RECORD",
    "RECORD_HEAD",
    "Buffer",
    "Frame",
    "Parcel",
    "SmallParcel",
    "delivered_number",
    "freeze",
    "is_control",
    "listed",
    "pack",
    "view_of",
    "with_frame",
]

#: What a binary record begins with, which no JSON text contains.
RECORD: Final = b"\x01"
#: Bytes of a record before its content: that one, and the length.
RECORD_HEAD: Final = 9
#: Bytes up to which a parcel is put together in one piece, as frames are that go in one write.
JOINED_SIZE: Final = 65_536
#: What a message has as attachments that has none.
NO_ATTACHMENTS: Final[tuple[()]] = ()

_CONTROL_START = b'{"type":"pyipc.'
_DELIVERED: Final = re.compile(rb'\{"type":"pyipc\.deliver","data":\{"number":(\d+)')
_PUBLISHED = b'{"type":"pyipc.publish'


class Buffer(Protocol):
    """Whatever has bytes in memory: `bytes`, `bytearray`, `memoryview`, arrays, maps of files, and so on."""

    def __buffer__(self, flags: int, /) -> memoryview:
        """A view of them, as `memoryview` makes it."""
        ...


class SmallParcel(bytes):
    """A frame with the records before it, in one piece.

    Attributes:
        attachments_count: How many records there are.
        attachments_size: Bytes in them.
        frame_size: Bytes of the frame, its delimiter included.
        is_control: Whether the frame is one of pyipc's own.
    """

    attachments_count: int
    attachments_size: int
    frame_size: int
    is_control: bool

    @property
    def frame(self) -> bytes:
        """The frame, its delimiter included."""
        return self[-self.frame_size :]


class Parcel:
    """The same in several parts, since it is large. Its length is that of all parts.

    Args:
        parts: The records and the frame, in order. None of them is empty or will change.
        size: Bytes in all.

    Attributes:
        parts: As given.
        attachments_count: How many records there are.
        attachments_size: Bytes in them.
        frame_size: Bytes of the frame, its delimiter included.
        is_control: Whether the frame is one of pyipc's own.
    """

    __slots__ = ("_size", "attachments_count", "attachments_size", "frame_size", "is_control", "parts")

    attachments_count: int
    attachments_size: int
    frame_size: int
    is_control: bool

    def __init__(self, parts: Sequence[bytes | memoryview], size: int) -> None:
        self.parts: Sequence[bytes | memoryview] = parts
        self._size = size

    def __len__(self) -> int:
        return self._size

    @property
    def frame(self) -> bytes:
        """The frame, its delimiter included."""
        return bytes(self.parts[-1][-self.frame_size :])

    def chunk_at(self, offset: int) -> tuple[bytes | memoryview, int]:
        """What to send next where so many bytes have been sent, and how many parcels are complete with it: 0 or 1."""
        number = 0
        while offset >= len(self.parts[number]):
            offset -= len(self.parts[number])
            number += 1
        part = self.parts[number]
        return (memoryview(part)[offset:] if offset else part), int(part is self.parts[-1])


#: What an outbox holds.
Frame: TypeAlias = bytes | Parcel


def listed(attachments: Iterable[Buffer]) -> list[Buffer]:
    """What a user gave as attachments, as a list.

    Raises:
        UnencodableData: It cannot be meant as one.
    """
    if isinstance(attachments, bytes | bytearray | memoryview | str):
        raise UnencodableData(
            f"attachments is a list of buffers, not {type(attachments).__name__}: write attachments=[data]"
        )
    try:
        return list(attachments)
    except TypeError:
        raise UnencodableData(f"attachments is a list of buffers, not {type(attachments).__name__}") from None


def view_of(item: Any, number: int) -> memoryview:
    """The memory of one attachment.

    Args:
        item: What a user gave.
        number: Which one it is, for the error.

    Raises:
        UnencodableData: It is no buffer, or has gaps.
    """
    try:
        view = memoryview(item)
    except (TypeError, ValueError, BufferError):
        advice = "; encode it first, such as text.encode()" if isinstance(item, str) else ""
        raise UnencodableData(
            f"attachment {number} is {type(item).__name__}, which is neither bytes nor a buffer of them{advice}"
        ) from None
    if not view.c_contiguous:
        raise UnencodableData(
            f"attachment {number} is not contiguous in memory: copy it first, such as by "
            "bytes(view), or by numpy.ascontiguousarray(array)"
        )
    return view


def freeze(view: memoryview) -> bytes | memoryview:
    """The same bytes, which nobody will change: where they are if that is sure, else a copy."""
    if type(view.obj) is not bytes or not view.nbytes:
        return view.tobytes()
    return view.obj if view.nbytes == len(view.obj) else view.cast("B")


def pack(frame: bytes, records: Iterable[bytes | memoryview]) -> SmallParcel | Parcel:
    """A frame, its delimiter included, with records before it, as `freeze` returns them."""
    parts: list[bytes | memoryview] = []
    joined: list[bytes | memoryview] = []  # the small ones in a row
    count = size = 0
    for record in records:
        count += 1
        size += len(record)
        joined.append(RECORD + len(record).to_bytes(RECORD_HEAD - 1, "big"))
        if len(record) < JOINED_SIZE:
            joined.append(record)
        else:
            parts += (b"".join(joined), record)
            joined = []
    joined.append(frame)
    whole = size + count * RECORD_HEAD + len(frame)
    parcel: SmallParcel | Parcel
    if whole <= JOINED_SIZE:
        parcel = SmallParcel(b"".join(joined))
    else:
        parts.append(b"".join(joined))
        parcel = Parcel(parts, whole)
    parcel.attachments_count = count
    parcel.attachments_size = size
    parcel.frame_size = len(frame)
    parcel.is_control = is_control(frame)
    return parcel


def with_frame(parcel: SmallParcel | Parcel, frame: bytes) -> SmallParcel | Parcel:
    """The same records before another frame."""
    parts = parcel.parts if isinstance(parcel, Parcel) else (parcel,)
    last = b"".join((parts[-1][: -parcel.frame_size], frame))
    size = len(parcel) - parcel.frame_size + len(frame)
    is_small = size <= JOINED_SIZE
    changed = SmallParcel(b"".join((*parts[:-1], last))) if is_small else Parcel([*parts[:-1], last], size)
    changed.attachments_count = parcel.attachments_count
    changed.attachments_size = parcel.attachments_size
    changed.frame_size = len(frame)
    changed.is_control = is_control(frame)
    return changed


def is_control(frame: Frame) -> bool:
    """Whether a frame is pyipc's own; what somebody published is as much a user's as an event is."""
    if isinstance(frame, Parcel | SmallParcel):
        return frame.is_control
    return frame.startswith(_CONTROL_START) and not (frame.startswith(_PUBLISHED) or is_traced(frame))


def delivered_number(frame: Frame) -> int | None:
    """The number of an event that is to be confirmed, if that is what a frame of our own delivers."""
    found = _DELIVERED.match(frame.frame if isinstance(frame, Parcel | SmallParcel) else frame)
    return None if found is None else int(found[1])
