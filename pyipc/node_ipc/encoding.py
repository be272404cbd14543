"""What raw mode sends: node-ipc's ``Buffer.from(value, encoding)``."""

from __future__ import annotations

import base64
import binascii
from typing import Final

__all__ = ["to_bytes"]

#: How Python calls the encodings of text that Node has.
_CODECS: Final = {
    "utf8": "utf-8",
    "utf-8": "utf-8",
    "ascii": "latin-1",
    "latin1": "latin-1",
    "binary": "latin-1",
    "utf16le": "utf-16-le",
    "utf-16le": "utf-16-le",
    "ucs2": "utf-16-le",
    "ucs-2": "utf-16-le",
}


def to_bytes(value: object, encoding: str) -> bytes:
    """The bytes that a value stands for.

    Args:
        value: Bytes, which stay as they are; numbers, of which the lowest eight bits count; or text.
        encoding: How text becomes bytes, by Node's name for it.

    Raises:
        ValueError: The text is not in this encoding, or there is no such encoding.
        TypeError: The value is none of these.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, list | tuple) and all(isinstance(item, int) for item in value):
        return bytes(item & 0xFF for item in value)
    if not isinstance(value, str):
        raise TypeError(f"raw mode sends bytes, text or a list of numbers, not {type(value).__name__}")
    try:
        if encoding == "hex":
            return bytes.fromhex(value)
        if encoding == "base64":
            return base64.b64decode(value, validate=True)
        codec = _CODECS.get(encoding)
        if codec is not None:
            return value.encode(codec)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"the text is not {encoding}: {error}; emit bytes, or set config.encoding") from error
    raise ValueError(f"there is no encoding {encoding!r}; use {', '.join(sorted([*_CODECS, 'base64', 'hex']))}")
