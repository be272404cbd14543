"""Frames that are not whole: one frame of 200 bytes, cut at every place."""

from __future__ import annotations

from tests.battery.catalogue.cases import FF, RECORD, Chapter, closed, control, cut_off, event, frame

__all__ = ["CHAPTER", "FRAME"]

#: With all that JSON has: escapes, characters of two to four bytes, numbers, all kinds of brackets and words.
FRAME = event(
    '{"a":[1,-2.5e10,true,false,null,[],{}],"é":"\\n\\u00e9\\ud83d\\ude00 ☃ 😀","k":{"":{"x":[[[0]]]}}'.encode()
)
FRAME = FRAME[:-2] + b',"p":"' + b"." * (200 - len(FRAME) - 8) + b'"}}\f'
assert len(FRAME) == 200
GOOD = frame("e", 1)
DELIVER = control("deliver", number=1, event="e", lowest=1)
REQUEST = control("request", call=1, event="echo")


def _code(text: bytes) -> str:
    """Why the beginning of a frame is none: it may stop within a character."""
    try:
        text.decode()
    except UnicodeDecodeError:
        return "utf8"
    return "json"


ENDED = tuple(
    cut_off(
        f"{place} of 200 bytes, and the end of the stream", FRAME[:place], family="a frame, by the end of the stream"
    )
    for place in range(1, 200)
)
GONE_ON = tuple(
    closed(
        f"{place} of 200 bytes, a delimiter, and a good frame",
        _code(FRAME[:place]),
        FRAME[:place] + FF + GOOD,
        family="a frame, by a delimiter; a good one follows",
    )
    for place in sorted(range(199), key=lambda place: _code(FRAME[:place]))
)
OTHERS = (
    cut_off("a request without its last byte", REQUEST[:-1]),
    cut_off("a confirmed event without its last byte: nothing is confirmed", DELIVER[:-1]),
    cut_off("half a request after a good event", GOOD + REQUEST[:30], hears=(("e", 1),)),
    cut_off("nothing at all"),
    cut_off("one byte, which begins a frame", b"{"),
    cut_off("one byte, which begins a record", RECORD),
    cut_off("one byte that begins nothing", b"x"),
)

CHAPTER = Chapter(
    "Truncated frames",
    "A frame of 200 bytes stops after 1, 2, ... 199 of them. What is left when a stream ends is dropped, and the "
    "reason is `eof`; no handler ever gets a part of a frame.",
    {"Cut off by the end": ENDED, "Cut off by a delimiter": GONE_ON, "Others": OTHERS},
)
