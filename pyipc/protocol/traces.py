"""Which span of a trace a message comes from: `traceparent`, in the notation of W3C Trace Context.

What that standard lets stand beside it, `tracestate`, is not carried: it belongs to the vendors of tracing systems, and
whoever passes a trace on may leave it out.
"""

from __future__ import annotations

import re
from typing import Final

from pyipc.errors import LocalProtocolError
from pyipc.protocol import codec
from pyipc.protocol.features import TracedEvent

__all__ = ["check_traceparent", "is_traced", "untraced", "usable_traceparent"]

# The version; the trace and the span in it, neither of them zero; flags.
_NOTATION: Final = re.compile(r"([0-9a-f]{2})-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-[!-~]*)?")
# Later versions may have more to say. So much of it is passed on.
_MAX_SIZE: Final = 256
_TRACED_START: Final = b'{"type":"%b"' % TracedEvent.type.encode()


def usable_traceparent(text: object) -> str:
    """What was given for a span; empty if nobody could make sense of it, as the standard wants it."""
    if not isinstance(text, str) or len(text) > _MAX_SIZE:
        return ""
    found = _NOTATION.fullmatch(text)
    if found is None or found[1] == "ff" or (found[1] == "00" and found[2] is not None):
        return ""
    return text


def check_traceparent(text: object) -> None:
    """Whether this is a span that a message can come from.

    Raises:
        LocalProtocolError: It is not.
    """
    if not usable_traceparent(text):
        raise LocalProtocolError(
            f"{text!r:.100} is no traceparent; W3C Trace Context writes one in lower case, like "
            "'00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'"
        )


def is_traced(frame: bytes) -> bool:
    """Whether a frame of this side's is an event that says where it comes from."""
    return frame.startswith(_TRACED_START)


def untraced(frame: bytes) -> bytes:
    """The frame of the same event, delimiter included, without where it comes from, which any peer understands."""
    event = codec.decode(frame[:-1]).data
    return codec.encode(event["event"], event.get("data")) + frame[-1:]
