"""Cutting bytes into frames: the same however they arrive, in linear time, holding no more than what arrived."""

from __future__ import annotations

import re
import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyipc.errors import RemoteProtocolError
from pyipc.protocol.frames import FrameBuffer
from pyipc.protocol.framing import Json, Raw
from tests.protocol.helpers import cut

# Of bytes that are all as likely, hardly any would be a delimiter.
_FEW_BYTES = st.lists(st.sampled_from(b"\f\n\0ab"), max_size=20).map(bytes)


@given(st.lists(_FEW_BYTES), st.sampled_from([b"\f", b"\n", b"\0"]))
def test_what_comes_out_is_what_went_in_up_to_the_last_delimiter(chunks: list[bytes], delimiter: bytes) -> None:
    buffer = FrameBuffer(delimiter, 10**6)
    seen = b""
    out = b""
    for chunk in chunks:
        seen += chunk
        complete = buffer.feed(chunk)
        assert complete == b"" or complete.endswith(delimiter)
        out += complete
        end = seen.rfind(delimiter) + 1
        assert out == seen[:end]
        assert buffer.partial_size == len(seen) - end


def test_what_is_partial_is_what_follows_the_last_delimiter() -> None:
    buffer = FrameBuffer(b"\f", 100)
    assert (buffer.feed(b"a"), buffer.partial_size) == (b"", 1)
    assert (buffer.feed(b""), buffer.partial_size) == (b"", 1)
    assert (buffer.feed(b"\fb"), buffer.partial_size) == (b"a\f", 1)
    assert (buffer.feed(b"c\f"), buffer.partial_size) == (b"bc\f", 0)


def test_a_partial_frame_at_the_limit_and_over_it() -> None:
    buffer = FrameBuffer(b"\f", 1_000)
    assert buffer.feed(b"whole\f" + b"a" * 1_000) == b"whole\f"
    buffer.check()
    assert buffer.feed(b"\f" + b"b" * 1_001) == b"a" * 1_000 + b"\f"
    with pytest.raises(RemoteProtocolError, match=re.escape("more than 1,000 bytes (max_frame_size)")) as caught:
        buffer.check()
    assert caught.value.code == "size"


@pytest.mark.parametrize("sizes", [(1,), (2,), (3, 5_000), (5_000, 1, 1), (4_095,), (4_096,), (65_536,), (1, 100_000)])
def test_pieces_of_every_size_are_put_together(sizes: tuple[int, ...]) -> None:
    text = bytes(byte or 1 for byte in range(13, 256)) * 700
    buffer = FrameBuffer(b"\f", 10**6)
    start = turn = 0
    while start < len(text):
        size = sizes[turn % len(sizes)]
        assert buffer.feed(text[start : start + size]) == b""
        start, turn = start + size, turn + 1
    assert buffer.partial_size == len(text)
    assert buffer.feed(b"\f") == text + b"\f"


@pytest.mark.parametrize("size", [1, 2, 100, 5_000])
def test_memory_is_that_of_the_bytes_however_small_the_pieces(size: int) -> None:
    text = b"ab" * 2**15
    pieces = cut(text, size)
    buffer = FrameBuffer(b"\f", 2**16)
    tracemalloc.start()
    try:
        for piece in pieces:
            buffer.feed(bytes(bytearray(piece)))  # an object of its own, as it comes from a socket
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    print(f"{held / len(text):.2f} bytes held for each byte")
    assert held < 1.5 * len(text)


def test_time_is_linear_however_small_the_pieces() -> None:
    def taken(total: int) -> float:
        buffer = FrameBuffer(b"\f", total)
        pieces = [b"ab"] * (total // 2)
        start = time.perf_counter()
        for piece in pieces:
            buffer.feed(piece)
        buffer.feed(b"\f")
        return time.perf_counter() - start

    # Sixteen times the bytes: 16 times the time if linear, 256 if quadratic.
    small = min(taken(2**12) for _ in range(5))
    large = min(taken(2**16) for _ in range(3))
    print(f"{large / small:.1f} times the time for 16 times the bytes")
    assert large < 100 * small


@pytest.mark.parametrize("delimiter", [bytes([byte]) for byte in range(0x20) if byte not in b"\t\r\x01"])
def test_a_control_character_can_be_the_delimiter(delimiter: bytes) -> None:
    assert Json(delimiter).delimiter == delimiter


@pytest.mark.parametrize(
    ("delimiter", "error", "words"),
    [
        (b"|", ValueError, "can occur inside JSON"),
        (b" ", ValueError, "can occur inside JSON"),
        (b"\x7f", ValueError, "can occur inside JSON"),
        (b"\xff", ValueError, "can occur inside JSON"),
        (b"\t", ValueError, "white space"),
        (b"\r", ValueError, "white space"),
        (b"\x01", ValueError, "binary record"),
        (b"", ValueError, "exactly one byte"),
        (b"\r\n", ValueError, "exactly one byte"),
        ("\f", TypeError, "must be bytes"),
        (None, TypeError, "must be bytes"),
    ],
)
def test_any_other_delimiter_is_refused(delimiter: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Json(delimiter)


def test_framings_compare_by_value() -> None:
    assert Json() == Json(b"\f") != Json(b"\n")
    assert Raw() == Raw()
