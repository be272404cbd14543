"""How bytes are divided into messages: the options a user chooses from."""

from __future__ import annotations

import dataclasses

__all__ = ["Framing", "Json", "Raw"]


@dataclasses.dataclass(frozen=True, slots=True)
class Json:
    r"""Frames of JSON text, ``{"type": ..., "data": ...}``, each followed by one delimiter byte.

    Args:
        delimiter: One control byte that JSON cannot contain raw, or a newline. Form feed by
            default, as in node-ipc.

    Raises:
        ValueError: The delimiter could occur inside a frame.
    """

    delimiter: bytes = b"\f"

    def __post_init__(self) -> None:
        delimiter = self.delimiter
        if not isinstance(delimiter, bytes):
            raise TypeError(f"the delimiter must be bytes of length one, such as b'\\f', not {delimiter!r}")
        if len(delimiter) != 1:
            raise ValueError(f"the delimiter must be exactly one byte, not {delimiter!r}")
        byte = delimiter[0]
        if byte >= 0x20:
            raise ValueError(
                f"the delimiter {delimiter!r} can occur inside JSON text; "
                "choose a control byte, such as b'\\f' or b'\\n'"
            )
        if byte in b"\t\r":
            raise ValueError(f"the delimiter {delimiter!r} is white space between JSON values; choose b'\\f' or b'\\n'")
        if byte == 1:
            raise ValueError("the delimiter b'\\x01' is taken: it starts a binary record; choose b'\\f' or b'\\n'")


@dataclasses.dataclass(frozen=True, slots=True)
class Raw:
    """No frames: bytes arrive as they come, as events named ``"data"`` (node-ipc's ``rawBuffer``).

    How the bytes are divided is up to the transport. There are no requests and no other events.
    """


Framing = Json | Raw
