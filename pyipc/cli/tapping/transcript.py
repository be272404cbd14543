"""What a conversation says, for people and as records: frames read, and pyipc's own explained.

Nothing in here waits or can fail: what cannot be read is shown as such.
"""

from __future__ import annotations

import collections
import dataclasses
from typing import TYPE_CHECKING, Any, Final

from pyipc.cli.showing.figures import duration, size
from pyipc.cli.showing.text import Lines, json_text
from pyipc.cli.strict_json import read_json

if TYPE_CHECKING:
    import datetime

    from pyipc.cli.showing.console import Line
    from pyipc.cli.tapping.cutter import Piece
    from pyipc.cli.tapping.relay import Direction

__all__ = ["Entry", "Moment", "Transcript"]

#: Requests of which the answer is still waited for, in each direction; the oldest is forgotten.
_MAX_CALLS: Final = 4_096
_SHORTENED: Final = 160
_CONTROL_PREFIX: Final = "pyipc."
#: The frames of pyipc's protocol. A peer may put any name behind the prefix, and so none of our own kinds.
_CONTROL_KINDS: Final = frozenset(
    ("hello", "welcome", "request", "reply", "error", "cancel", "ping", "goaway", "goodbye")
)

_STYLES: Final = {"malformed": "red", "error": "red", "request": "green", "reply": "green", "event": "bold"}


@dataclasses.dataclass(frozen=True, slots=True)
class Moment:
    """When something went past.

    Attributes:
        clock: The time of day.
        seconds: On a clock that only goes forward.
    """

    clock: datetime.datetime
    seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One thing to show: as a record, and as a line."""

    record: dict[str, Any]
    line: Line


class Transcript:
    """Reads what goes past on one connection.

    Args:
        number: The connection.
        full: Whether data is shown in full length.
    """

    def __init__(self, number: int, *, full: bool) -> None:
        self._number = number
        self._full = full
        self._calls: collections.OrderedDict[tuple[bool, int], tuple[Direction, str, float]] = collections.OrderedDict()

    def happened(self, moment: Moment, kind: str, text: str, **facts: Any) -> Entry:
        """Something that befell the connection itself."""
        record = {"kind": kind, **self._head(moment), **facts}
        return Entry(record, [*self._margin(moment, ""), (f"{kind}{text}", "dim")])

    def chunk(self, moment: Moment, direction: Direction, piece: Piece) -> Entry:
        """Bytes as they came."""
        record = {"kind": "bytes", **self._head(moment), "direction": direction.value, "size": piece.size}
        if len(piece.data) < piece.size:
            record["shown"] = len(piece.data)
        text = _hex_and_text(piece.data if self._full else piece.data[:_SHORTENED])
        more = "" if text.count("\n") or len(piece.data) <= _SHORTENED or self._full else " ..."
        return Entry(
            {**record, "hex": piece.data.hex()},
            [*self._margin(moment, direction.value), (f"{size(piece.size)} ", ""), (text, ""), (more, "")],
        )

    def frame(self, moment: Moment, direction: Direction, piece: Piece) -> Entry:
        """A frame, or the beginning of one that is too large to be kept or was never finished."""
        facts = {**self._head(moment), "direction": direction.value, "size": piece.size}
        if piece.is_attachment:
            text = "" if piece.finished else "that was never finished"
            about = {} if piece.finished else {"finished": False}
            return self._entry(moment, facts, "attachment", text, about, None, with_data=False)
        if not piece.is_whole:
            kind = "large" if piece.finished else "unfinished"
            why = "shown in part" if piece.finished else "the delimiter never came"
            return self._unread(moment, facts, kind, why, piece.data)
        try:
            event, data = _read(piece.data)
        except ValueError as error:
            return self._unread(moment, facts, "malformed", str(error), piece.data)
        if event.startswith(_CONTROL_PREFIX):
            return self._control(moment, direction, facts, event, data)
        return self._entry(moment, facts, "event", self._brief(json_text(event)), {"event": event}, data)

    def _control(self, moment: Moment, direction: Direction, facts: dict[str, Any], event: str, data: Any) -> Entry:
        """One of pyipc's own frames."""
        kind = event.removeprefix(_CONTROL_PREFIX)
        if kind not in _CONTROL_KINDS:
            return self._entry(moment, facts, "control", self._brief(json_text(event)), {"event": event}, data)
        fields = data if isinstance(data, dict) else {}
        call = fields.get("call")
        if not isinstance(call, int) or kind not in ("request", "reply", "error", "cancel"):
            return self._entry(moment, facts, kind, "", {"event": event}, data)
        about: dict[str, Any] = {"event": event, "call": call}
        if kind == "request":
            name = fields.get("event")
            about["request"] = name
            self._remember(direction, call, str(name), moment)
            return self._entry(moment, facts, kind, f"{call} {self._brief(json_text(name))}", about, fields.get("data"))
        asked = self._recall(direction, call, own=kind == "cancel")
        text = str(call)
        if asked is not None:
            name, seconds = asked
            elapsed = moment.seconds - seconds
            about |= {"request": name, "elapsed": elapsed}
            text += f" to {self._brief(json_text(name))} after {duration(elapsed * 1e9)}"
        if kind == "cancel":
            return self._entry(moment, facts, kind, text, about, None, with_data=False)
        if kind == "error":
            about |= {"code": fields.get("code"), "message": fields.get("message")}
            text += self._brief(f" {fields.get('code')}: {fields.get('message')}")
            return self._entry(moment, facts, kind, text, about, fields.get("data"), with_data="data" in fields)
        return self._entry(moment, facts, kind, text, about, fields.get("data"))

    def _remember(self, direction: Direction, call: int, name: str, moment: Moment) -> None:
        self._calls[direction.value == "->", call] = direction, name, moment.seconds
        if len(self._calls) > 2 * _MAX_CALLS:
            self._calls.popitem(last=False)

    def _recall(self, direction: Direction, call: int, *, own: bool) -> tuple[str, float] | None:
        """The request that is answered by the other side, or taken back by its own."""
        asked = self._calls.pop(((direction.value == "->") is own, call), None)
        return None if asked is None else asked[1:]

    def _entry(
        self,
        moment: Moment,
        facts: dict[str, Any],
        kind: str,
        text: str,
        about: dict[str, Any],
        data: Any,
        *,
        with_data: bool = True,
    ) -> Entry:
        line = [
            *self._margin(moment, facts["direction"]),
            (f"{size(facts['size']):>7} ", "dim"),
            (f"{kind} {text}".rstrip(), _STYLES.get(kind, "cyan")),
        ]
        if not with_data:
            return Entry({"kind": kind, **facts, **about}, line)
        shown, rest = self._shorten(json_text(data))
        return Entry({"kind": kind, **facts, **about, "data": data}, [*line, (f" {shown}", "json"), (rest, "dim")])

    def _unread(self, moment: Moment, facts: dict[str, Any], kind: str, why: str, data: bytes) -> Entry:
        shown, rest = self._shorten(repr(data)[2:-1])
        line = [
            *self._margin(moment, facts["direction"]),
            (f"{size(facts['size']):>7} ", "dim"),
            (f"{kind}: {why}: ", _STYLES.get(kind, "yellow")),
            (shown, ""),
            (rest, "dim"),
        ]
        # Bytes that are no text keep their values this way, and JSON can carry them.
        return Entry({"kind": kind, **facts, "reason": why, "text": data.decode("utf-8", "backslashreplace")}, line)

    def _brief(self, text: str) -> str:
        return "".join(self._shorten(text))

    def _shorten(self, text: str) -> tuple[str, str]:
        if self._full or len(text) <= _SHORTENED:
            return text, ""
        return text[:_SHORTENED], " ..."

    def _head(self, moment: Moment) -> dict[str, Any]:
        return {"time": moment.clock.isoformat(timespec="microseconds"), "connection": self._number}

    def _margin(self, moment: Moment, arrow: str) -> list[tuple[str, str]]:
        clock = moment.clock.strftime("%H:%M:%S.%f")[:-3]
        return [(f"{clock} ", "dim"), (f"#{self._number} {arrow:<2} ", "blue")]


def _read(frame: bytes) -> tuple[str, Any]:
    """The event in a frame.

    Raises:
        ValueError: There is none; the message says why.
    """
    try:
        envelope = read_json(frame.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 ({error.reason} at byte {error.start})") from None
    except RecursionError:
        raise ValueError("nested too deep to read") from None
    except ValueError as error:
        raise ValueError(f"not JSON ({error})") from None
    if not isinstance(envelope, dict) or not isinstance(envelope.get("type"), str):
        raise ValueError('not an event {"type": ..., "data": ...}')
    return envelope["type"], envelope.get("data")


def _hex_and_text(data: bytes) -> str:
    """All bytes as text if they are text, else lines of hexadecimal numbers with the text beside them."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = ""
    if text and all(character.isprintable() or character in "\n\t\f\r" for character in text):
        return repr(text)
    rows = [data[start : start + 16] for start in range(0, len(data), 16)]
    return Lines("".join(f"\n  {row.hex(' '):<47}  {_dotted(row)}" for row in rows))


def _dotted(row: bytes) -> str:
    return "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
