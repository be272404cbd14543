"""Which names an event may have."""

from __future__ import annotations

from pyipc.errors import InvalidEventName
from pyipc.protocol.messages import CONTROL_PREFIX

__all__ = ["MAX_KNOWN_NAMES", "UNSAFE_NAMES", "check_event_name", "check_topic"]

#: How many names a conversation remembers: both sides' programs choose them, so there must be an end.
MAX_KNOWN_NAMES = 1_024

#: Names that a node-ipc program takes for its own lifecycle, or that end it (versions 9 and 10 look
#: handlers up in a plain object, so names of `Object.prototype` find functions that are none).
UNSAFE_NAMES = frozenset(
    {
        *("connect", "disconnect", "destroy", "error", "data", "start", "close", "socket.disconnected"),
        *("constructor", "hasOwnProperty", "isPrototypeOf", "propertyIsEnumerable", "toLocaleString", "toString"),
        *("valueOf", "__proto__", "__defineGetter__", "__defineSetter__", "__lookupGetter__", "__lookupSetter__"),
    }
)


def check_event_name(event: object, limit: int) -> None:
    """Whether a user's event can have this name.

    Raises:
        InvalidEventName: It is no text, empty, too long or reserved.
    """
    if not isinstance(event, str):
        raise InvalidEventName(event, f"an event's name must be text, not {event!r}")
    if not event:
        raise InvalidEventName(event, "an event's name must not be empty")
    if event.startswith(CONTROL_PREFIX):
        raise InvalidEventName(
            event, f"{event!r} starts with {CONTROL_PREFIX!r}, which is reserved for pyipc's own frames"
        )
    size = len(event.encode("utf-8", "surrogatepass"))
    if size > limit:
        raise InvalidEventName(
            event, f"the event's name takes {size:,} bytes and the limit is {limit:,} (max_event_name_size)"
        )


def check_topic(topic: object, limit: int) -> None:
    """Whether something can be published under this name.

    Raises:
        InvalidEventName: It cannot be the name of an event, or nobody could subscribe to this name alone.
    """
    check_event_name(topic, limit)
    text = str(topic)
    if "*" in text:
        raise InvalidEventName(topic, f"{text!r} has a '*', which only patterns have; publish under a name without it")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidEventName(
            topic, f"{text!r} has half of a character (a lone surrogate); publish under another name"
        )
