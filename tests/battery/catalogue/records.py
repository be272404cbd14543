"""Binary records: the only lengths on the wire, and all that can be wrong with them."""

from __future__ import annotations

from typing import Any

from tests.battery.catalogue.cases import (
    FF,
    PLAIN,
    RECORD,
    Chapter,
    House,
    closed,
    control,
    cut_off,
    frame,
    kept,
    length,
    record,
    request,
    says,
)

__all__ = ["CHAPTER"]

E = frame("e", 1)
SMALL = House.SMALL  # at most 3 records of 100 bytes in all
BARE = control("hello", versions=[1])
NO_SIZE = control("hello", versions=[1], features=["attachments"])
REFUSED: dict[str, Any] = {"house": SMALL}

LENGTHS = (
    kept("no bytes", record(b"") + E, hears=(("e", 1, b""),)),
    kept("1 byte", record(b"x") + E, hears=(("e", 1, b"x"),)),
    kept("1 byte, which is the delimiter", record(FF) + E, hears=(("e", 1, FF),)),
    kept("1 byte, which begins a record", record(RECORD) + E, hears=(("e", 1, RECORD),)),
    kept("a whole frame as content", record(E) + E, hears=(("e", 1, E),)),
    kept("a whole record as content", record(record(b"x")) + E, hears=(("e", 1, record(b"x")),)),
    kept("all 256 bytes", record(bytes(range(256))) + E, hears=(("e", 1, bytes(range(256))),)),
    kept("one less than the limit", record(b"x" * 99) + E, hears=(("e", 1, b"x" * 99),), house=SMALL),
    kept("the limit", record(b"x" * 100) + E, hears=(("e", 1, b"x" * 100),), house=SMALL),
    closed("one more than the limit", "size", record(b"x" * 101) + E, house=SMALL),
    closed("one more than the limit, announced alone", "size", length(101), house=SMALL),
    closed("one more than the default limit, announced alone", "size", length(4 * 1024 * 1024 + 1)),
    closed("2^31 - 1 bytes announced", "size", length(2**31 - 1)),
    closed("2^31 bytes announced, negative for who reads 32 bits", "size", length(2**31)),
    closed("2^32 - 1 bytes announced", "size", length(2**32 - 1)),
    closed("2^32 bytes announced, 0 for who reads 32 bits", "size", length(2**32)),
    closed("2^32 + 1 bytes announced, 1 for who reads 32 bits", "size", length(2**32 + 1) + b"x" + E),
    closed("2^53 bytes announced", "size", length(2**53)),
    closed("2^63 - 1 bytes announced", "size", length(2**63 - 1)),
    closed("2^63 bytes announced", "size", length(2**63)),
    closed("-1 byte announced, as two's complement", "size", length(2**64 - 1)),
    closed("-9 bytes announced, as two's complement", "size", length(2**64 - 9)),
    closed("the length in little-endian order", "size", RECORD + (1).to_bytes(8, "little") + b"x" + E),
    closed("the length in decimal digits", "size", RECORD + b"00000004data" + E),
    closed("the length in hexadecimal digits", "size", RECORD + b"0000000adata" + E),
    closed("the length as a negative number in digits", "size", RECORD + b"-0000001x" + E),
    closed("the length in four bytes", "size", RECORD + (4).to_bytes(4, "big") + b"data" + E),
    closed("a length for WebSocket", "size", RECORD + b"\x82\x7e\x00\x04data" + E),
)

COUNTS = (
    kept("two records", record(b"a") + record(b"b") + E, hears=(("e", 1, b"a", b"b"),)),
    kept("as many as may be", 3 * record(b"x") + E, hears=(("e", 1, b"x", b"x", b"x"),), house=SMALL),
    closed("one too many", "size", 4 * record(b"x") + E, house=SMALL),
    closed("one too many, without any bytes", "size", 4 * record(b"") + E, house=SMALL),
    kept("64, the default limit", 64 * record(b"") + E, hears=(("e", 1, *(64 * [b""])),)),
    closed("65", "size", 65 * record(b"") + E),
    kept("the limit in two records", record(b"x" * 50) * 2 + E, hears=(("e", 1, b"x" * 50, b"x" * 50),), house=SMALL),
    closed("one more than the limit in two records", "size", record(b"x" * 50) + length(51), house=SMALL),
    closed("two records whose lengths overflow 64 bits", "size", record(b"x") + length(2**64 - 1), house=SMALL),
    kept("counted for each frame anew", 2 * (3 * record(b"x") + E), hears=2 * (("e", 1, b"x", b"x", b"x"),), **REFUSED),
)

CUTS = (
    kept("in single bytes", *(bytes([byte]) for byte in record(b"ab") + E), hears=(("e", 1, b"ab"),)),
    kept("cut within the length", RECORD + bytes(3), bytes(4) + b"\x02ab" + E, hears=(("e", 1, b"ab"),)),
    kept("cut within the content", length(4) + b"ab", b"cd" + E, hears=(("e", 1, b"abcd"),)),
    kept("cut before the frame", record(b"ab"), E, hears=(("e", 1, b"ab"),)),
    cut_off("the stream ends after the first byte", RECORD),
    cut_off("the stream ends within the length", RECORD + bytes(7)),
    cut_off("the stream ends after the length", length(1)),
    cut_off("the stream ends within the content", length(10) + b"x" * 9),
    cut_off("the stream ends before the frame", record(b"x")),
    cut_off("the stream ends within the frame", record(b"x") + E[:-1]),
    cut_off("announced and never sent, after an event", E + length(10), hears=(("e", 1),)),
)

PLACES = (
    kept("before a request", record(b"x") + request(1, "attached"), told=(says("reply", call=1, data=["x"]),)),
    closed("before a ping", "control", record(b"x") + control("ping")),
    closed("before a cancel", "control", record(b"x") + control("cancel", call=1)),
    closed("before a goaway", "control", record(b"x") + control("goaway")),
    closed("before a goodbye", "control", record(b"x") + control("goodbye")),
    closed("before credit", "control", record(b"x") + control("credit", call=1, items=1)),
    closed("before a subscription", "control", record(b"x") + control("subscribe", call=1, pattern="t")),
    closed("before an outcome", "control", record(b"x") + control("outcome", number=1)),
    closed("before a frame of a later version", "control", record(b"x") + control("later")),
    closed("before an empty frame", "json", record(b"x") + FF),
    closed("before what is no JSON", "json", record(b"x") + b"hello" + FF),
    closed("within a frame", "json", E[:-1] + record(b"x") + FF),
    closed("within a string", "json", b'{"type":"e","data":"\x01"}\f'),
    closed("after a space", "json", b" " + record(b"x") + E),
    closed("after a frame whose delimiter is missing", "json", E[:-1] + record(b"x") + E),
    closed("in a batch, within the second frame", "json", E + E[:-1] + record(b"x") + E, hears=(("e", 1),)),
    closed("from a plain peer, which has not agreed on them", "json", record(b"x") + E, first=PLAIN),
    closed("before the hello", "json", record(b"x") + BARE, first=PLAIN),
    closed("from a pyipc peer without the feature", "json", record(b"x") + E, first=BARE),
    kept("from one that takes none itself", record(b"x") + E, first=NO_SIZE, hears=(("e", 1, b"x"),)),
    kept(
        "right behind the hello that agrees on them",
        NO_SIZE + record(b"x") + E,
        first=PLAIN,
        hears=(("e", 1, b"x"),),
        told=(says("welcome"),),
    ),
)

CHAPTER = Chapter(
    "Binary records",
    "A record is the byte `0x01`, its length in eight bytes, and its content; the frame that it belongs to "
    "follows. A length is believed only as far as bytes arrive, and one beyond the limit is refused before any "
    "do. *Small limits* are 3 records of 100 bytes in all.",
    {"Lengths": LENGTHS, "Several records": COUNTS, "Cut on their way": CUTS, "In other places": PLACES},
)
