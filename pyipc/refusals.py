"""What a peer is told of a handler that gave no answer, and what is told of it here."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from pyipc.errors import InvalidData, MessageTooLarge

if TYPE_CHECKING:
    from pyipc.connection import Connection

__all__ = ["tell_of", "what_went_wrong"]

logger: logging.Logger = logging.getLogger("pyipc.dispatch")

_MAX_ERROR_TEXT = 1_000


def what_went_wrong(error: Exception) -> tuple[str, str, Any]:
    """What to tell a peer: a code, a description for people, and data."""
    if isinstance(error, InvalidData):
        return "invalid-data", str(error), {"path": error.path}
    code = "reply-too-large" if isinstance(error, MessageTooLarge) else "handler-failed"
    return code, f"{type(error).__name__}: {error}"[:_MAX_ERROR_TEXT], None


def tell_of(error: Exception, what: str, connection: Connection) -> bool:
    """Log what a handler raised; say whether it is a failure."""
    logger.error("%s failed (%s)", what, connection.peer.address, exc_info=error)
    return True
