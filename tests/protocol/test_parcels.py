"""A frame and its attachments on their way out: what is copied, what is put together, what is refused."""

from __future__ import annotations

import array
import mmap
from typing import Any

import pytest

from pyipc.errors import UnencodableData
from pyipc.protocol.codec import control_frame
from pyipc.protocol.features import Deliver
from pyipc.protocol.parcels import JOINED_SIZE, Parcel, SmallParcel, freeze, listed, pack, view_of

FRAME = b'{"type":"e"}\f'
LARGE = bytes(JOINED_SIZE)


def head(length: int) -> bytes:
    return b"\x01" + length.to_bytes(8, "big")


def frozen(item: Any) -> bytes | memoryview:
    return freeze(view_of(item, 0))


def test_what_cannot_change_is_sent_from_where_it_is() -> None:
    content = b"x" * 100
    assert frozen(content) is content
    assert frozen(memoryview(content)) is content
    part = frozen(memoryview(content)[1:])
    assert isinstance(part, memoryview)
    assert part.obj is content
    numbers = frozen(memoryview(bytes(16)).cast("i")[1:])
    assert isinstance(numbers, memoryview)
    assert (numbers.format, len(numbers)) == ("B", 12)


def test_what_could_change_is_copied() -> None:
    changing = bytearray(b"abc")
    whole, part, locked = (
        frozen(each) for each in (changing, memoryview(changing)[1:], memoryview(changing).toreadonly())
    )
    changing[:] = b"xyzzy"  # nobody holds on to it
    assert (whole, part, locked) == (b"abc", b"bc", b"abc")
    with mmap.mmap(-1, 4) as mapped:
        mapped[:] = b"abcd"
        content = frozen(mapped)
        mapped[:] = b"efgh"
    assert content == b"abcd"
    assert frozen(array.array("H", [1, 2])) == array.array("H", [1, 2]).tobytes()
    assert frozen(memoryview(bytearray(range(6))).cast("B", [2, 3])) == bytes(range(6))


@pytest.mark.parametrize("empty", [b"", bytearray(), memoryview(b"abc")[3:], memoryview(b"").cast("i")])
def test_nothing_is_nothing(empty: Any) -> None:
    assert frozen(empty) == b""
    assert bytes(pack(FRAME, [frozen(empty)])) == head(0) + FRAME  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("text", r"attachment 3 is str, which is neither bytes nor a buffer of them; encode it first"),
        (5, r"attachment 3 is int, which is neither bytes nor a buffer of them$"),
        (None, r"attachment 3 is NoneType"),
        ([b"x"], r"attachment 3 is list"),
        (memoryview(b"abcd")[::2], r"attachment 3 is not contiguous in memory: copy it first"),
        (memoryview(b"abcd")[::-1], r"attachment 3 is not contiguous"),
    ],
)
def test_what_is_no_buffer_or_has_gaps_is_an_error(item: Any, message: str) -> None:
    with pytest.raises(UnencodableData, match=message):
        view_of(item, 3)


@pytest.mark.parametrize("one", [b"x", bytearray(b"x"), memoryview(b"x"), "x"])
def test_a_single_buffer_is_no_list(one: Any) -> None:
    with pytest.raises(
        UnencodableData, match=rf"a list of buffers, not {type(one).__name__}: write attachments=\[data\]"
    ):
        listed(one)


def test_any_iterable_is_a_list_and_nothing_else() -> None:
    assert listed(item for item in (b"a", b"b")) == [b"a", b"b"]
    assert listed(()) == []
    with pytest.raises(UnencodableData, match="a list of buffers, not int"):
        listed(5)  # type: ignore[arg-type]


def test_what_is_small_is_put_together() -> None:
    parcel = pack(FRAME, [b"a", memoryview(b"bcd")[1:], b""])
    assert type(parcel) is SmallParcel
    assert parcel == head(1) + b"a" + head(2) + b"cd" + head(0) + FRAME
    assert (parcel.attachments_count, parcel.attachments_size, parcel.frame_size) == (3, 3, len(FRAME))
    assert not parcel.is_control


def test_what_is_large_stays_where_it_is() -> None:
    view = memoryview(LARGE)[:-1]
    parcel = pack(FRAME, [b"a", LARGE, b"b", b"c", LARGE, LARGE[:5]])
    assert isinstance(parcel, Parcel)
    first, large, second, again, last = parcel.parts
    assert large is again is LARGE
    assert first == head(1) + b"a" + head(JOINED_SIZE)
    assert second == head(1) + b"b" + head(1) + b"c" + head(JOINED_SIZE)
    assert last == head(5) + LARGE[:5] + FRAME
    assert len(parcel) == sum(map(len, parcel.parts))
    assert (parcel.attachments_count, parcel.attachments_size, parcel.frame_size) == (
        6,
        2 * JOINED_SIZE + 8,
        len(FRAME),
    )
    # Many that are small in one that is large altogether are one part.
    assert len(pack(FRAME, [view] * 2).parts) == 1  # type: ignore[union-attr]


def test_the_chunks_of_a_parcel() -> None:
    parcel = pack(FRAME, [LARGE, LARGE])
    assert isinstance(parcel, Parcel)
    whole = b"".join(parcel.parts)
    assert parcel.chunk_at(0) == (parcel.parts[0], 0)
    assert parcel.chunk_at(9)[0] is LARGE
    for step in (1, 5_000, 70_000):
        sent = b""
        while len(sent) < len(whole):
            chunk, complete = parcel.chunk_at(len(sent))
            sent += chunk[:step] if step > 1 else chunk
            assert complete == (len(parcel) - len(sent) <= len(chunk) - len(chunk[:step] if step > 1 else chunk))
        assert sent == whole


@pytest.mark.parametrize("content", [b"x", LARGE])
def test_a_parcel_knows_whether_it_is_one_of_our_own_frames(content: bytes) -> None:
    assert pack(control_frame(Deliver(1, "e")) + b"\f", [content]).is_control
    assert not pack(FRAME, [content]).is_control
