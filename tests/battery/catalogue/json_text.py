"""What is JSON and what is not: limits, numbers, text, structure."""

from __future__ import annotations

import json
from typing import Any

from tests.battery.catalogue.cases import FF, PLAIN, Chapter, House, closed, event, frame, kept, nested, request, says

__all__ = ["CHAPTER"]

GOOD = frame("e", 1)
SKIPS: dict[str, Any] = {"first": PLAIN, "house": House.SKIPS, "hears": (("e", 1),)}
MIB = 1024 * 1024
KEYS = {f"key{number}": number for number in range(50_000)}
SMALL_FRAME = event(b'"' + b"x" * (300 - 22) + b'"')
LARGE_FRAME = event(b'"' + b"x" * (MIB - 22) + b'"')
assert len(SMALL_FRAME) == 301
assert len(LARGE_FRAME) == MIB + 1


def _list(levels: int) -> list[object]:
    made: list[object] = []
    for _ in range(levels - 1):
        made = [made]
    return made


# The frame itself is the first level.
DEPTH = (
    kept("62 arrays: 63 levels", event(nested(62)), hears=(("e", _list(62)),)),
    kept("63 arrays: 64 levels, the limit", event(nested(63)), hears=(("e", _list(63)),)),
    closed("64 arrays: 65 levels", "depth", event(nested(64))),
    closed("65 objects", "depth", event(b'{"a":' * 64 + b"1" + b"}" * 64)),
    closed("arrays and objects in turn, 66 levels", "depth", event(b'[{"a":' * 33 + b"1" + b"}]" * 33)),
    closed("10,000 arrays", "depth", event(nested(10_000))),
    closed("10,000 objects", "depth", event(b'{"a":' * 10_000 + b"1" + b"}" * 10_000)),
    closed("100,000 arrays", "depth", event(nested(100_000))),
    closed("500,000 arrays", "depth", event(nested(500_000))),
    closed("100,000 arrays that are never closed", "depth", event(b"[" * 100_000)),
    closed("100,000 objects that are never closed", "depth", event(b'{"a":' * 100_000)),
    closed("100,000 arrays in a key that is ignored", "depth", b'{"type":"e","x":' + nested(100_000) + b"}\f"),
    closed("100,000 arrays where the name should be", "depth", b'{"type":' + nested(100_000) + b"}\f"),
    closed("100,000 arrays around nothing else", "depth", nested(100_000) + FF),
    closed("100,000 closing brackets", "json", event(b"]" * 100_000)),
    closed(
        "1,000 arrays in the data of a request",
        "depth",
        b'{"type":"pyipc.request","data":{"call":1,"event":"echo","data":' + nested(1_000) + b"}}\f",
    ),
    kept("100,000 brackets in a string", event(b'"' + b"[" * 100_000 + b'"'), hears=(("e", "[" * 100_000),)),
    kept(
        "100 brackets in a string after an escaped quote",
        event(b'"\\"' + b"[" * 100 + b'"'),
        hears=(("e", '"' + "[" * 100),),
    ),
    closed("65 levels behind a string that ends in a backslash", "depth", event(b'["\\\\",' + nested(63) + b"]")),
    kept(
        "10,000 arrays side by side", event(b"[" + b"[]," * 9_999 + b"[]]"), hears=(("e", [[] for _ in range(10_000)]),)
    ),
    kept("10,000 arrays, from a plain peer", event(nested(10_000)) + GOOD, **SKIPS),
)
SIZE = (
    kept("as large as may be", SMALL_FRAME, hears=(("e", "x" * 278),), house=House.SMALL),
    closed("one byte too large", "size", SMALL_FRAME[:-3] + b'x"}\f', house=House.SMALL),
    closed("one byte too large, before its delimiter is there", "size", SMALL_FRAME[:-1] + b" ", house=House.SMALL),
    closed("far too large, after a good frame", "size", GOOD + b"x" * 10_000, hears=(("e", 1),), house=House.SMALL),
    closed("too large by white space", "size", b" " * 300 + GOOD, house=House.SMALL),
    kept("1 MiB, the default limit", LARGE_FRAME, hears=(("e", "x" * (MIB - 22)),)),
    closed("1 MiB and one byte", "size", LARGE_FRAME[:-3] + b'x"}\f'),
    closed(
        "1 MiB and one byte, from a plain peer that may err",
        "size",
        LARGE_FRAME[:-3] + b'x"}\f',
        first=PLAIN,
        house=House.SKIPS,
    ),
    closed("2 MiB without a delimiter", "size", b"x" * (2 * MIB)),
    closed("a key of 1 MiB", "size", event(b'{"' + b"k" * MIB + b'":1}')),
    kept("a key of 1,000,000 bytes", event(b'{"' + b"k" * 1_000_000 + b'":1}'), hears=(("e", {"k" * 1_000_000: 1}),)),
    kept("50,000 keys", event(json.dumps(KEYS, separators=(",", ":")).encode()), hears=(("e", KEYS),)),
    kept("100,000 times the same key", event(b"{" + b'"a":1,' * 99_999 + b'"a":2}'), hears=(("e", {"a": 2}),)),
    kept("300,000 zeros", event(b"[" + b"0," * 299_999 + b"0]"), hears=(("e", [0] * 300_000),)),
)
NUMBERS = (
    kept("2^53", event(b"9007199254740992"), hears=(("e", 2**53),)),
    kept("2^64", event(b"18446744073709551616"), hears=(("e", 2**64),)),
    kept("a whole number of 4,300 digits", event(b"9" * 4_300), hears=(("e", 10**4_300 - 1),)),
    closed("a whole number of 4,301 digits", "json", event(b"9" * 4_301)),
    closed("a whole number of 5,000 digits", "json", event(b"9" * 5_000)),
    closed("a whole number of 1,000,000 digits", "json", event(b"9" * 1_000_000)),
    closed("a negative number of 5,000 digits", "json", event(b"-" + b"9" * 5_000)),
    kept("a fraction of 5,000 digits", event(b"0." + b"1" * 5_000), hears=(("e", 1 / 9),)),
    closed("NaN", "json", event(b"NaN")),
    closed("nan", "json", event(b"nan")),
    closed("Infinity", "json", event(b"Infinity")),
    closed("-Infinity", "json", event(b"-Infinity")),
    closed("1e400", "json", event(b"1e400")),
    closed("-1e400", "json", event(b"-1e400")),
    closed("1e400 beside half a character", "json", event(b'["\\ud800",1e400]')),
    closed("NaN beside half a character", "json", event(b'["\\ud800",NaN]')),
    closed("5,000 digits beside half a character", "json", event(b'["\\ud800",' + b"9" * 5_000 + b"]")),
    closed("1e99999999999999999999", "json", event(b"1e99999999999999999999")),
    kept("1e-400, which is 0", event(b"1e-400"), hears=(("e", 0.0),)),
    kept("-0, which is 0", event(b"-0"), hears=(("e", 0),)),
    kept("-0.0", event(b"-0.0"), hears=(("e", -0.0),)),
    closed("a number with a leading zero", "json", event(b"01")),
    closed("a number with a plus", "json", event(b"+1")),
    closed("a number without digits before the point", "json", event(b".5")),
    closed("a number without digits after the point", "json", event(b"5.")),
    closed("a number without digits after the e", "json", event(b"1e")),
    closed("a lone minus", "json", event(b"-")),
    closed("hexadecimal", "json", event(b"0x10")),
    closed("a digit of another script", "json", event("٣".encode())),
    closed("two numbers with a space", "json", event(b"1 2")),
    closed("digits with an underscore", "json", event(b"1_000")),
)
TEXT = (
    kept("a lone high surrogate, escaped", event(b'"\\ud800"'), hears=(("e", "\ud800"),)),
    kept("a lone low surrogate, escaped", event(b'"\\udc00"'), hears=(("e", "\udc00"),)),
    kept("two surrogates the wrong way round", event(b'"\\ude00\\ud83d"'), hears=(("e", "\ude00\ud83d"),)),
    kept("a pair of surrogates, escaped", event(b'"\\ud83d\\ude00"'), hears=(("e", "😀"),)),
    kept("an escaped NUL", event(b'"\\u0000"'), hears=(("e", "\0"),)),
    kept("U+FFFF, which is no character", event('"\uffff"'.encode()), hears=(("e", "\uffff"),)),
    kept("U+2028, a line separator", event('"\u2028"'.encode()), hears=(("e", "\u2028"),)),
    closed("a surrogate as UTF-8", "utf8", event(b'"\xed\xa0\x80"')),
    closed("a pair of surrogates as UTF-8 (CESU-8)", "utf8", event(b'"\xed\xa0\xbd\xed\xb8\x80"')),
    closed("an overlong slash", "utf8", event(b'"\xc0\xaf"')),
    closed("an overlong slash in three bytes", "utf8", event(b'"\xe0\x80\xaf"')),
    closed("an overlong NUL, as Java writes it", "utf8", event(b'"\xc0\x80"')),
    closed("an overlong quote", "utf8", event(b'"\xc0\xa2')),
    closed("beyond U+10FFFF", "utf8", event(b'"\xf4\x90\x80\x80"')),
    closed("a sequence of five bytes", "utf8", event(b'"\xf8\x88\x80\x80\x80"')),
    closed("a continuation byte alone", "utf8", event(b'"\x80"')),
    closed("a sequence that stops early", "utf8", event(b'"\xe2\x98"')),
    closed("the byte FF", "utf8", event(b'"\xff"')),
    closed("Latin-1", "utf8", event('"é"'.encode("latin-1"))),
    closed("invalid UTF-8 in the name", "utf8", event(b"1", b"\xff")),
    closed("invalid UTF-8 in a key", "utf8", event(b'{"\xff":1}')),
    closed("invalid UTF-8 in a value that is ignored", "utf8", b'{"type":"e","x":"\xff"}\f'),
    closed("invalid UTF-8 outside of strings", "utf8", GOOD[:-1] + b"\xff" + FF),
    closed("a byte order mark", "json", b"\xef\xbb\xbf" + GOOD),
    closed("UTF-16, little-endian", "json", GOOD[:-1].decode().encode("utf-16-le") + FF),
    closed("UTF-16 with a byte order mark", "utf8", GOOD[:-1].decode().encode("utf-16") + FF),
    closed("UTF-16, big-endian", "json", GOOD[:-1].decode().encode("utf-16-be") + FF),
    closed("UTF-32", "utf8", GOOD[:-1].decode().encode("utf-32") + FF),
    closed("UTF-7", "json", b"+AHsAfQ-" + FF),
    closed("gzip", "utf8", b"\x1f\x8b\x08" + bytes(7) + FF),
    closed("a NUL in a string", "json", event(b'"\0"')),
    closed("a newline in a string", "json", event(b'"\n"')),
    closed("a tab in a string", "json", event(b'"\t"')),
    closed("an escape that does not exist", "json", event(b'"\\x41"')),
    closed("an escaped newline", "json", event(b'"\\\n"')),
    closed("an escape of three digits", "json", event(b'"\\u12"')),
    closed("an escape that is no number", "json", event(b'"\\u00zz"')),
    closed("an escape of a sign and digits", "json", event(b'"\\u+123"')),
    closed("a string without its end", "json", event(b'"abc')),
    closed("single quotes", "json", event(b"'a'")),
    kept("invalid UTF-8, from a plain peer", event(b'"\xff"') + GOOD, **SKIPS),
)
STRUCTURE = (
    closed("two values", "json", GOOD[:-1] + GOOD),
    closed("data after the value", "json", GOOD[:-1] + b"x" + FF),
    closed("a brace after the value", "json", GOOD[:-1] + b"}" + FF),
    closed("a comma after the value", "json", GOOD[:-1] + b"," + FF),
    closed("white space alone", "json", b" \r\n\t" + FF),
    closed("a comma before the closing bracket", "json", event(b"[1,]")),
    closed("a comma before the closing brace", "json", event(b'{"a":1,}')),
    closed("a comma alone", "json", event(b"[,]")),
    closed("a missing comma", "json", event(b"[1 2]")),
    closed("a missing colon", "json", event(b'{"a" 1}')),
    closed("a missing value", "json", event(b"")),
    closed("a missing value in an array", "json", event(b"[1,,2]")),
    closed("a bracket closed by a brace", "json", event(b"[1}")),
    closed("a key that is a number", "json", event(b"{1:2}")),
    closed("a key without quotes", "json", event(b"{a:1}")),
    closed("a comment", "json", event(b"1/* */")),
    closed("a comment to the end of the line", "json", event(b"1//\n")),
    closed("a comment of Python", "json", event(b"1#\n")),
    closed("True", "json", event(b"True")),
    closed("undefined", "json", event(b"undefined")),
    closed("half a word", "json", event(b"tru")),
    closed("no-break spaces between values", "json", event("[1,\u00a02]".encode())),
    closed("not JSON at all", "json", b"hello" + FF),
    kept("a key twice: the last one counts", event(b'{"a":1,"a":2}'), hears=(("e", {"a": 2}),)),
    kept("data twice: the last one counts", b'{"type":"e","data":1,"data":2}\f', hears=(("e", 2),)),
    kept("a name twice: the last one counts", b'{"type":"x","type":"e","data":1}\f', hears=(("e", 1),)),
    closed("data twice, the first one wrong", "json", b'{"type":"e","data":1e400,"data":2}\f'),
    kept("__proto__ as a key", event(b'{"__proto__":{"a":1}}'), hears=(("e", {"__proto__": {"a": 1}}),)),
    kept(
        "the same thing asked for after each",
        GOOD,
        request(1, data=[1]),
        hears=(("e", 1),),
        told=(says("reply", call=1, data=[1]),),
    ),
    kept("not JSON at all, from a plain peer", b"hello" + FF + GOOD, **SKIPS),
    kept("ten wrong frames in a row, from a plain peer", (b"hello" + FF) * 10 + GOOD, **SKIPS),
)

CHAPTER = Chapter(
    "JSON",
    "One strict reader: what `JSON.parse` refuses is refused, and so is what has no value of its own. The limits "
    "are 64 levels and 1 MiB a frame; *small limits* are 300 bytes.",
    {"Depth": DEPTH, "Size": SIZE, "Numbers": NUMBERS, "Text": TEXT, "Structure": STRUCTURE},
)
