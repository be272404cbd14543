"""What a peer is told of an error that a handler of its event or request has raised."""

from __future__ import annotations

from typing import Any

from pyipc.errors import InvalidData, MessageTooLarge

__all__ = ["refusal_of"]

_MAX_TEXT = 1_000


def refusal_of(error: Exception) -> tuple[str, str, Any]:
    """A code, a message for people, and data for the program."""
    if isinstance(error, InvalidData):
        return "invalid-data", str(error), {"path": error.path}
    code = "reply-too-large" if isinstance(error, MessageTooLarge) else "handler-failed"
    return code, f"{type(error).__name__}: {error}"[:_MAX_TEXT], None
