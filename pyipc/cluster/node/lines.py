"""What one line of Node's channel is as a frame, and the other way round.

Node writes a JSON text and a newline for each message, whatever it is. Here a message without a name is the event
``message``, and everything else is as on any connection of pyipc:

    {"any": "thing"}                                     what programs send each other, the event ``message``
    {"type":"pyipc.event","data":{"event":"x",...}}      an event of another name
    {"type":"pyipc.request","data":{...}}                pyipc's own frames, as they are
    {"cmd":"NODE_...",...}                               Node's own business, which no program hears of

Nothing is parsed that need not be: most lines cost a search for two words.
"""

from __future__ import annotations

import json
from typing import Any, Final, cast

__all__ = ["DELIMITER", "Message", "as_frame", "as_lines", "is_internal", "is_reserved", "line"]

Message = dict[str, Any]

# How ``cmd`` begins in messages that are Node's own; it has to go on behind that.
_INTERNAL_PREFIX: Final = "NODE_"

#: Ends a frame of pyipc, and never stands inside of one.
DELIMITER: Final = b"\x0c"
_MESSAGE_START: Final = b'{"type":"message","data":'
_TYPE_START: Final = b'{"type":'
_OWN_START: Final = b'{"type":"pyipc.'
# What begins so is read: the one is an event of another name, the others are dealt with here.
_NO_FRAMES: Final = (b'{"type":"pyipc.event"', b'{"type":"pyipc.ready"', b'{"type":"pyipc.taking"')
# The quote ends the name: one within it would have a backslash before it.
_NAME_END: Final = b'","data":'
# In JSON any character may be written as an escape, which Node does not do to these.
_SUSPECTS: Final = (b"NODE_", b"pyipc.", b"\\u00")


def is_internal(message: object) -> bool:
    """Whether Node takes a message for its own, and lets no program hear of it."""
    if not isinstance(message, dict):
        return False
    command = message.get("cmd")
    return isinstance(command, str) and command.startswith(_INTERNAL_PREFIX) and command != _INTERNAL_PREFIX


def is_reserved(message: object) -> bool:
    """Whether a message is one of pyipc's own frames."""
    if not isinstance(message, dict):
        return False
    name = message.get("type")
    return isinstance(name, str) and name.startswith("pyipc.")


def line(message: object) -> bytes:
    """A message as Node writes it."""
    return _json(message) + b"\n"


def as_frame(text: bytes) -> bytes | Message:
    """What a line means.

    Args:
        text: The line, without its newline. It need not be JSON; whoever reads the frame judges that.

    Returns:
        The frame, with its delimiter; or what is to be dealt with here, because it is Node's own or `is_reserved` and
        no frame for others, as an event without a good name.
    """
    if text.startswith(_OWN_START) and not text.startswith(_NO_FRAMES):
        return text + DELIMITER
    if any(word in text for word in _SUSPECTS):
        message: Any = _read(text)
        if message is None:
            return text + DELIMITER  # no JSON, of which nothing in it may make a frame
        if is_internal(message):
            return cast("Message", message)
        if is_reserved(message):
            return _reserved_frame(message)
    return b"".join((_MESSAGE_START, text, b"}", DELIMITER))


def _read(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _reserved_frame(message: Message) -> bytes | Message:
    data = message.get("data")
    match message:
        case {"type": "pyipc.event", "data": {"event": str(event)}} if not event.startswith("pyipc."):
            assert isinstance(data, dict)
            return _frame({"type": event, "data": data.get("data")})
        case {"type": "pyipc.event" | "pyipc.ready" | "pyipc.taking"}:
            return message
    return _frame({"type": message["type"], "data": data if data is not None else {}})


def _frame(message: Message) -> bytes:
    return _json(message) + DELIMITER


def _json(value: object) -> bytes:
    try:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JavaScript escapes
        return json.dumps(value, separators=(",", ":")).encode()


def as_lines(frames: bytes) -> bytes:
    """Whole frames, each with its delimiter, as lines. What Node would take for its own is left out.

    Args:
        frames: As a connection writes them: ``type`` first, then ``data``, and no white space.
    """
    lines = []
    for frame in frames.split(DELIMITER)[:-1]:
        if frame.startswith(_MESSAGE_START):
            text = frame[len(_MESSAGE_START) : -1]
            if not (any(word in text for word in _SUSPECTS) and is_internal(_read(text))):
                lines.append(text)
        elif frame.startswith(_OWN_START):
            lines.append(frame)
        else:
            name, data = frame[len(_TYPE_START) : -1].split(_NAME_END, 1)
            lines.append(b'{"type":"pyipc.event","data":{"event":%b","data":%b}}' % (name, data))
    lines.append(b"")
    return b"\n".join(lines)
