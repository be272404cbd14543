"""Where frames end: delimiters that are missing, doubled, misplaced, or cut off from their frames."""

from __future__ import annotations

from typing import Any

from tests.battery.catalogue.cases import FF, PLAIN, Chapter, House, closed, cut_off, event, frame, kept, request, says

__all__ = ["CHAPTER"]

A = frame("e", "a")
B = frame("e", "b")
HEARD_A = (("e", "a"),)
BOTH = (("e", "a"), ("e", "b"))
LONG = event(b'"' + b"x" * 70_000 + b'"')
HUNDRED = tuple(("e", number) for number in range(100))
SKIPS: dict[str, Any] = {"first": PLAIN, "house": House.SKIPS}

MISSING = (
    closed("missing between two frames", "json", A[:-1] + B),
    closed("missing between two frames on two lines", "json", A[:-1] + b"\n" + B),
    closed("missing between two frames, after a good one", "json", A + A[:-1] + B, hears=HEARD_A),
    closed("missing between two frames, before a good one", "json", A[:-1] + A + B),
    cut_off("missing after the last frame", A + B[:-1], hears=HEARD_A),
    cut_off("missing after the only frame", A[:-1]),
    kept("missing at first, sent later", A[:-1], FF, hears=HEARD_A),
    closed("a newline instead", "json", A[:-1] + b"\n" + B[:-1] + b"\n" + FF),
    closed("a NUL instead", "json", A[:-1] + b"\0" + B),
    closed("a NUL before it", "json", A[:-1] + b"\0" + FF),
    closed("the two characters \\f instead", "json", A[:-1] + b"\\f" + B),
    closed("U+000C as an escape instead", "json", A[:-1] + b"\\u000c" + B),
    closed("U+240C, a picture of it, instead", "json", A[:-1] + "\u240c".encode() + B),
    closed("an overlong form of it instead", "utf8", A[:-1] + b"\xc0\x8c" + B),
    closed("a vertical tab instead", "json", A[:-1] + b"\x0b" + B),
    closed("an ASCII record separator before the frame", "json", b"\x1e" + A),
)
DOUBLED = (
    closed("doubled", "json", A[:-1] + FF + FF + B, hears=HEARD_A),
    closed("alone", "json", FF),
    closed("a hundred of them", "json", FF * 100),
    closed("before the first frame", "json", FF + A),
    closed("with a space between", "json", A + b" " + FF + B, hears=HEARD_A),
    closed("with a newline between", "json", A + b"\n" + FF + B, hears=HEARD_A),
    kept("doubled, from a plain peer", A + FF + B, hears=BOTH, **SKIPS),
    kept("a hundred of them, from a plain peer", FF * 100 + A, hears=HEARD_A, **SKIPS),
    closed("doubled, across two reads", "json", A, FF + B, hears=HEARD_A),
)
INSIDE = (
    closed("in a string", "json", event(b'"x\fy"')),
    closed("in one frame, and missing in the next", "json", b'{"type":"e"\f}\f{"type":"e"}{"type":"e"}\f'),
    closed("moved into the next frame", "json", b'{"type":"e"}{"type":\f"e"}\f'),
    closed("in the name", "json", event(b"1", b"e\f")),
    closed("in a key", "json", event(b'{"a\fb":1}')),
    closed("as white space between values", "json", event(b"[1,\f2]")),
    closed("before the closing brace", "json", A[:-2] + FF + b"}" + FF),
    closed("after the opening brace", "json", A[:1] + FF + A[1:]),
    kept("in a string, escaped as \\f", event(b'"x\\fy"'), hears=(("e", "x\fy"),)),
    kept("in a string, escaped as \\u000c", event(b'"x\\u000cy"'), hears=(("e", "x\fy"),)),
    kept("in a string, from a plain peer", event(b'"x\fy"') + A, hears=HEARD_A, **SKIPS),
)
CUTS = (
    kept("two frames in one read", A + B, hears=BOTH),
    kept("in a read of its own", A[:-1], FF, B[:-1], FF, hears=BOTH),
    kept("at the beginning of the next read", A[:-1], FF + B, hears=BOTH),
    kept("a frame in single bytes", *(bytes([byte]) for byte in A), hears=HEARD_A),
    kept("a frame cut within a character", *event('"é"'.encode()).partition(b"\xc3"), hears=(("e", "é"),)),
    kept("a frame cut within an escape", *event(b'"\\u00e9"').partition(b"\\u0"), hears=(("e", "é"),)),
    kept("a frame cut within a number", *event(b"1234").partition(b"12"), hears=(("e", 1234),)),
    kept("a good frame, and half of another", A + B[:5], B[5:], hears=BOTH),
    kept(
        "a request, and half of another",
        request(1) + request(2)[:9],
        request(2)[9:],
        told=(
            says("reply", call=1, data=None),
            says("reply", call=2, data=None),
        ),
    ),
    kept("a hundred frames in one read", b"".join(frame("e", number) for number in range(100)), hears=HUNDRED),
    kept("a large frame and a small one", LONG + A, hears=(("e", "x" * 70_000), ("e", "a"))),
    kept("a large frame cut before its delimiter", LONG[:-1], FF + A, hears=(("e", "x" * 70_000), ("e", "a"))),
    kept("white space around frames", b" \t\r\n" + A[:-1] + b"\r\n" + FF + b"\n" + B, hears=BOTH),
)

CHAPTER = Chapter(
    "Delimiters",
    "A frame ends with a form feed, `0x0C`, which can stand in no JSON text. However the bytes are cut on their "
    "way, the outcome is the same.",
    {"Missing": MISSING, "Doubled": DOUBLED, "Inside of a frame": INSIDE, "Reads and frames": CUTS},
)
