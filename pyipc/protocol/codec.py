"""JSON, both ways. The only module that knows msgspec.

Encoding follows JavaScript where Python has values that JSON lacks: NaN and the infinities become
``null``, a lone surrogate becomes its escape. Decoding is strict: what `JSON.parse` would refuse
is refused here.
"""

from __future__ import annotations

import functools
import json
import math
import re
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NoReturn, TypeVar

import msgspec

from pyipc.errors import InvalidData, RemoteProtocolError, UnencodableData
from pyipc.protocol.nesting import BRACES_AS_BRACKETS

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "MALFORMED",
    "ControlStruct",
    "Event",
    "Item",
    "Reply",
    "Request",
    "control_frame",
    "convert",
    "convert_control",
    "decode",
    "decode_call",
    "decode_frames",
    "encode",
    "encode_value",
    "event_of",
    "event_prefix",
    "fast_item",
    "fast_json",
    "fast_reply",
    "fast_request",
    "read_json",
    "ready_json",
    "replaced",
    "value_of",
]

T = TypeVar("T")


class Event(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """One frame as it stands on the wire: a name and any JSON.

    Attributes:
        type: The event's name.
        data: The decoded JSON; ``None`` where the frame had none.
    """

    type: str
    data: Any = None


_NoneType = type(None)


class Request(msgspec.Struct, gc=False, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """Asks for one answer.

    Attributes:
        call: A number that the asking side never uses again.
        event: The name of the request.
        data: Any JSON.
        traceparent: Which span it comes from.
    """

    type: ClassVar[Literal["pyipc.request"]] = "pyipc.request"
    call: int
    event: str
    data: Any = msgspec.field(default_factory=_NoneType)  # what a factory makes is written, the default or not
    traceparent: str = ""


class Reply(msgspec.Struct, gc=False, forbid_unknown_fields=True, frozen=True):
    """The answer to a request.

    Attributes:
        call: The number of the request.
        data: Any JSON.
    """

    type: ClassVar[Literal["pyipc.reply"]] = "pyipc.reply"
    call: int
    data: Any = None


class ControlStruct(msgspec.Struct, gc=False, omit_defaults=True):
    """The base of those frames of pyipc's own that leave out what says nothing."""


class Item(ControlStruct, forbid_unknown_fields=True):
    """One of the answers of a stream."""

    type: ClassVar[str] = "pyipc.item"
    call: int
    data: Any = None


class _RequestFrame(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    type: Literal["pyipc.request"]
    data: Request


class _ReplyFrame(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    type: Literal["pyipc.reply"]
    data: Reply


class _ItemFrame(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    type: Literal["pyipc.item"]
    data: Item


_encoder = msgspec.json.Encoder()
# It refuses frames with extra keys, because it would skip what these hold without checking it; they are
# legal and rare, and go the slow way with all that it refuses.
_decoder = msgspec.json.Decoder(Event)
_request_decoder = msgspec.json.Decoder(_RequestFrame)
_reply_decoder = msgspec.json.Decoder(_ReplyFrame)
_item_decoder = msgspec.json.Decoder(_ItemFrame)
_any_decoder = msgspec.json.Decoder()
MALFORMED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")

#: Frames of requests, replies and items, for whoever has seen how they start. Raise one of `MALFORMED` for every frame
#: that is not just what this side would have sent; `decode` may still make sense of it.
fast_request: Callable[[bytes], _RequestFrame] = _request_decoder.decode
fast_reply: Callable[[bytes], _ReplyFrame] = _reply_decoder.decode
fast_item: Callable[[bytes], _ItemFrame] = _item_decoder.decode
#: The JSON of a value. On the hottest path there is, so without a function of ours around it: where it raises, ask
#: `encode_value`, which knows a way round or says what is wrong.
fast_json: Callable[[object], bytes] = _encoder.encode


def encode_value(value: object, what: str) -> bytes:
    """The JSON of a value.

    Args:
        value: The value.
        what: What it is the data of, for the error.

    Raises:
        UnencodableData: It has no JSON form.
    """
    try:
        return _encoder.encode(value)
    except UnicodeEncodeError:
        return _encode_surrogates(value, what)
    except Exception as error:  # encoding runs code of the value's type
        raise UnencodableData(f"the data of {what!r} has no JSON form: {error}") from error


def ready_json(value: object, what: str) -> Any:
    """A value to put into several frames: encoded once, here.

    Raises:
        UnencodableData: It has no JSON form.
    """
    return None if value is None else msgspec.Raw(encode_value(value, what))


def value_of(ready: Any) -> Any:
    """What a receiver would make of a value from `ready_json`."""
    return None if ready is None else decode(b'{"type":"","data":%b}' % bytes(ready)).data


def event_prefix(event: str) -> bytes:
    """What stands before the data in the frame of an event; after it stands ``}``."""
    return b'{"type":%b,"data":' % encode_value(event, event)


def encode(event: str, data: object) -> bytes:
    """The frame of an event, without its delimiter.

    Raises:
        UnencodableData: ``data`` has no JSON form.
    """
    return b"%b%b}" % (event_prefix(event), encode_value(data, event))


def _encode_surrogates(value: object, what: str) -> bytes:
    """Encode text with lone surrogates as JavaScript does: each becomes the escape ``\\udXXX``."""
    try:
        plain = _finite(msgspec.to_builtins(value, str_keys=True, enc_hook=_decoded))
        text = json.dumps(plain, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except Exception as error:
        raise UnencodableData(f"the data of {what!r} has no JSON form: {error}") from error
    # Surrogates can stand only inside JSON strings, where Python's escape is JSON's too.
    return text.encode("utf-8", "backslashreplace")


def _decoded(value: Any) -> Any:
    """What was encoded before, for an encoder that knows nothing of that."""
    if type(value) is msgspec.Raw:
        return json.loads(bytes(value))
    raise TypeError(f"Encoding objects of type {type(value).__name__} is unsupported")


def _finite(value: Any) -> Any:
    """Put ``None`` in the place of NaN and the infinities, as JavaScript does."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {key: _finite(item) for key, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
        case _:
            return value


def decode(frame: bytes | memoryview) -> Event:
    """Read one frame, whose depth has been checked.

    Raises:
        RemoteProtocolError: It is not JSON, or not an event.
    """
    try:
        return _decoder.decode(frame)
    except MALFORMED:
        return _decode_slowly(bytes(frame))


def decode_call(frame: bytes) -> Request | Reply | None:
    """Read a frame that is a request or a reply, in one step where `decode` and `convert_control` are two.

    Returns:
        What the two would say; ``None`` for every frame that only they can judge.
    """
    try:
        if frame.startswith(b'{"type":"pyipc.request"'):
            return _request_decoder.decode(frame).data
        if frame.startswith(b'{"type":"pyipc.reply"'):
            return _reply_decoder.decode(frame).data
    except MALFORMED:
        pass
    return None


def _decode_slowly(frame: bytes) -> Event:
    """Read a frame that the fast decoder refused: one with extra keys or lone surrogates, or a wrong one."""
    return event_of(read_json(frame))


def read_json(text: bytes) -> Any:
    """Read any JSON text, whose depth has been checked.

    Raises:
        RemoteProtocolError: It is not JSON.
    """
    try:
        return _any_decoder.decode(text)
    except MALFORMED:
        return _read_slowly(text)


def _read_slowly(frame: bytes) -> Any:
    """Read text with lone surrogates, or say what is wrong with it."""
    try:
        text = frame.decode("utf-8")
        if _SURROGATE_ESCAPE.search(frame):
            return json.loads(text, parse_constant=_no_constant, parse_float=_finite_float)
        return _any_decoder.decode(text)
    except UnicodeDecodeError as error:
        raise RemoteProtocolError("utf8", f"the peer sent text that is not UTF-8: {error.reason}") from error
    except RecursionError as error:
        raise RemoteProtocolError("depth", "the peer sent JSON nested too deep to read") from error
    except (ValueError, msgspec.DecodeError) as error:
        raise RemoteProtocolError("json", f"the peer sent a frame that is not JSON: {error}") from error


def event_of(value: Any) -> Event:
    """The event that a frame is which has been read.

    Raises:
        RemoteProtocolError: It is none.
    """
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        raise RemoteProtocolError("envelope", 'the peer sent JSON that is not an event {"type": ..., "data": ...}')
    return Event(value["type"], value.get("data"))


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite_float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text[:40]} is out of range")
    return value


def decode_frames(complete: bytes, delimiter: bytes, count: int, max_depth: int) -> list[Event] | None:
    """Read many frames at once, about twice as fast as one by one.

    The delimiters are made line ends and the whole is read as a sequence of JSON values. That
    could differ from reading frame by frame, since a value might span two frames and a frame might
    hold two values or none. It cannot where each frame starts with ``{`` and ends with ``}``:
    inside a value ``}`` is never followed by ``{``, and inside a string no line end may stand, so
    no value spans a border; then every frame holds at least one value, and as many values as
    frames means one each.

    Args:
        complete: Complete frames, each followed by the delimiter.
        delimiter: The delimiter.
        count: How many frames there are.
        max_depth: Levels of nesting allowed.

    Returns:
        The events, or ``None`` where the frames must be read one by one.
    """
    if complete[:1] != b"{" or complete.count(b"}" + delimiter + b"{") != count - 1 or complete[-2:-1] != b"}":
        return None
    # More openers than max_depth between two delimiters is needed for a frame to be too deep.
    openers = complete.translate(BRACES_AS_BRACKETS, _all_but(b"[{" + delimiter))
    if b"[" * (max_depth + 1) in openers:
        return None
    try:
        events = _decoder.decode_lines(complete if delimiter == b"\n" else complete.replace(delimiter, b"\n"))
    except MALFORMED:
        return None
    return events if len(events) == count else None


@functools.cache
def _all_but(keep: bytes) -> bytes:
    return bytes(byte for byte in range(256) if byte not in keep)


def convert(data: Any, kind: Any) -> Any:
    """Check ``data`` against a type and convert it, as msgspec does.

    Raises:
        InvalidData: It does not fit; ``path`` says where.
    """
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        text = str(error)
        path = text.rpartition(" - at `")[2].removesuffix("`") if " - at `" in text else "$"
        raise InvalidData(text, path) from error
    except UnicodeEncodeError as error:  # a lone surrogate where msgspec has to look into the text
        raise InvalidData("text with a lone surrogate does not fit the declared type") from error


def convert_control(data: Any, kind: type[T]) -> T:
    """Read the data of one of pyipc's own frames.

    Raises:
        RemoteProtocolError: With the code ``"control"``.
    """
    try:
        if isinstance(data, dict) and issubclass(kind, msgspec.Struct):
            # Drops what a later version may have added; a key that is no text is refused, as msgspec does elsewhere.
            "".join(data).encode()
            data = {name: data[name] for name in kind.__struct_fields__ if name in data}
        return msgspec.convert(data, kind)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:
        raise RemoteProtocolError(
            "control", f"the peer sent a malformed {getattr(kind, 'type', kind)} frame: {error}"
        ) from error


def replaced(body: T, **fields: Any) -> T:
    """The same frame but for some fields."""
    copy: T = msgspec.structs.replace(body, **fields)  # type: ignore[type-var]
    return copy


def control_frame(body: Any, what: str = "") -> bytes:
    """The frame of one of pyipc's own messages, without its delimiter.

    Args:
        body: The message.
        what: What it is about, for the error.

    Raises:
        UnencodableData: Something in it has no JSON form.
    """
    return b"%b%b}" % (event_prefix(body.type), encode_value(body, what or body.type))
