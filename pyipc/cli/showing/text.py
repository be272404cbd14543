"""Values as text: JSON on one line, and nothing that a terminal would obey.

What a peer sends is shown to people. Were it to reach a terminal as it is, it could move the
cursor, retitle the window or turn text around.
"""

from __future__ import annotations

import base64
import datetime
import json
import math
import re
from typing import Any

__all__ = ["Lines", "json_text", "now", "payload", "payload_text", "printable"]

# Control and format characters, which reorder text or hide in it (the categories Cc, Cf, Zl and Zp of Unicode); lone
# surrogates, which have no bytes; tags and variation selectors, which hide too; and letters and symbols that are blank.
_UNSAFE = (
    r"\x00-\x1f\x7f-\x9f\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5"
    r"\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u2800\u3164\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0"
    r"\ufff0-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    r"\U000e0000-\U000e0fff"
)
_UNSAFE_CHARACTER = re.compile(f"[{_UNSAFE}]")
# What `json.dumps` leaves raw; it has escaped the ASCII control characters.
_UNSAFE_BUT_LINES = re.compile(f"(?![\n\t])[{_UNSAFE}]")


def json_text(value: Any, *, indent: int | None = None, ascii_only: bool = False) -> str:
    """JSON that may be shown as it is; on one line unless there is an indent.

    NaN and the infinities, which JSON lacks, become ``null``, as in JavaScript.
    """
    separators = (",", ":") if indent is None else (",", ": ")
    try:
        text = json.dumps(value, ensure_ascii=ascii_only, separators=separators, indent=indent, allow_nan=False)
    except ValueError:
        return json_text(_finite(value), indent=indent, ascii_only=ascii_only)
    # The escapes of JSON mean the same inside its strings, and outside of them there is nothing to escape.
    return _UNSAFE_BUT_LINES.sub(lambda found: _json_escape(found[0]), text)


def _json_escape(character: str) -> str:
    """One escape, or the two of a character beyond 16 bits."""
    return re.sub("....", r"\\u\g<0>", character.encode("utf-16-be", "surrogatepass").hex())


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


class Lines(str):
    """Text of which the line ends and tabs are our own, and so are meant.

    In any other text they are escaped, for whoever sends a line end could write whole lines in our name.
    """

    __slots__ = ()


def printable(text: str) -> str:
    """Text with an escape in the place of every character that a terminal would obey, but for those of `Lines`."""
    pattern = _UNSAFE_BUT_LINES if isinstance(text, Lines) else _UNSAFE_CHARACTER
    return pattern.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def payload(data: Any) -> dict[str, Any]:
    """The data of a message for a record: JSON as it is; bytes as text, or in base64 if they are none."""
    if not isinstance(data, bytes):
        return {"data": data}
    try:
        return {"data": data.decode("utf-8")}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode("ascii")}


def payload_text(data: Any) -> str:
    """The data of a message for people."""
    return repr(data)[1:] if isinstance(data, bytes) else json_text(data)


def now() -> datetime.datetime:
    """The time of day here, with its time zone."""
    return datetime.datetime.now().astimezone()
