"""The arguments of node-ipc's methods, which it tells apart by what they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Argument", "Callback", "Where", "read_arguments"]

#: What is called when something has happened, plain or async; it may take fewer arguments than there are.
Callback: TypeAlias = Callable[..., object]
Argument: TypeAlias = "str | int | Callback | None"

_UDP: Final = frozenset({"udp4", "udp6"})
_ORDER: Final = ("text", "port", "udp", "callback")
_NAMES: Final = {"port": "a port", "udp": "'udp4' or 'udp6'", "callback": "a callback"}


class Where(NamedTuple):
    """Arguments by their meaning; ``None`` for what was left out."""

    text: str | None = None
    port: int | None = None
    udp: str | None = None
    callback: Callback | None = None


def read_arguments(method: str, text: str, arguments: Sequence[Argument], *also: str) -> Where:
    """Tell arguments apart.

    Args:
        method: Whose they are, for errors.
        text: What a text means there: ``"path"`` or ``"host"``.
        arguments: As they were given. ``None`` and ``False`` stand for what is left out, as in node-ipc.
        *also: What there may be besides the text and a callback: ``"port"``, ``"udp"``.

    Raises:
        TypeError: They are not what the method takes, or not in this order.
    """
    names = {"text": f"a {text}", **_NAMES}
    order = [kind for kind in _ORDER if kind in ("text", "callback", *also)]
    expected = ", ".join(names[kind] for kind in order)
    found: dict[str, object] = {}
    last = -1
    for argument in arguments:
        if argument is None or argument is False:
            continue
        kind = _kind(argument)
        if kind == "text" and isinstance(argument, str) and argument.isdigit():
            raise TypeError(f"{method}() takes a port as a number, not as the text {argument!r}")
        if kind not in order or order.index(kind) <= last:
            raise TypeError(f"{method}() takes {expected}, each of which may be left out, and not {argument!r} there")
        last = order.index(kind)
        found[kind] = argument.lower() if kind == "udp" and isinstance(argument, str) else argument
    return Where(**found)  # type: ignore[arg-type]


def _kind(argument: object) -> str | None:
    if isinstance(argument, str):
        return "udp" if argument.lower() in _UDP else "text"
    if isinstance(argument, int) and not isinstance(argument, bool):
        return "port"
    return "callback" if callable(argument) else None
