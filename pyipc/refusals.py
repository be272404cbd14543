"""What a peer is told of a handler that gave no answer, and what is told of it here."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from pyipc.errors import InvalidData, MessageTooLarge, Refused
from pyipc.router import StreamHandlerCalled

if TYPE_CHECKING:
    from pyipc.connection import Connection

__all__ = ["is_refusal", "tell_of", "what_went_wrong"]

logger: logging.Logger = logging.getLogger("pyipc.dispatch")

_MAX_ERROR_TEXT = 1_000


def what_went_wrong(error: Exception) -> tuple[str, str, Any]:
    """What to tell a peer whose request, stream or confirmed event a handler could not deal with.

    Args:
        error: What the handler raised, or what kept its answer from being sent.

    Returns:
        A code, a description for people, and data that belongs to them or ``None``. The data is as the handler gave it:
        it may turn out that it cannot be sent.
    """
    error = _itself(error)
    match error:
        case Refused(code=code, message=message, data=data):
            return code, message, data
        case InvalidData(path=path):
            return "invalid-data", str(error), {"path": path}
        case StreamHandlerCalled():
            return "is-a-stream", str(error), None
        case MessageTooLarge():
            code = "reply-too-large"
        case _:
            code = "handler-failed"
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception:  # the words of an error are code of whoever wrote it
        text = type(error).__name__
    return code, text[:_MAX_ERROR_TEXT], None


def is_refusal(error: Exception) -> bool:
    """Whether a handler meant to answer so, which is no failure of it."""
    return isinstance(_itself(error), Refused)


def tell_of(error: Exception, what: str, connection: Connection) -> bool:
    """Log what a handler raised, as loudly as it deserves.

    Args:
        error: What it raised.
        what: What raised it, for the log, such as ``"the handler of the request 'sum'"``.
        connection: Where the message came from.

    Returns:
        Whether it is a failure, rather than a refusal.
    """
    address = connection.peer.address
    refusal = _itself(error)
    if isinstance(refusal, Refused):
        # Neither its message nor its data, which are for the peer and may be secret.
        logger.debug("%s refused with the code %r (%s)", what, refusal.code, address)
        return False
    if isinstance(refusal, StreamHandlerCalled):
        # The peer's fault, not the handler's, and no reason to write a traceback for each.
        logger.warning("%s: %s (%s)", what, refusal, address)
        return False
    logger.error("%s failed (%s)", what, address, exc_info=error)
    return True


def _itself(error: BaseException) -> Any:
    """The one error in a group of one, such as the nurseries of a handler make."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
