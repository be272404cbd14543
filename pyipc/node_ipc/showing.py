"""How `IPC.log` shows things: node-ipc's ``util.inspect``, in Python's words."""

from __future__ import annotations

import pprint
from typing import Final

__all__ = ["shown"]

_COLOR: Final = "\x1b[36m"
_PLAIN: Final = "\x1b[39m"


def shown(thing: object, depth: int | None, in_color: bool) -> str:
    """A text as it is, anything else as Python shows it.

    Args:
        thing: What to show.
        depth: How many levels of it; ``None`` for all.
        in_color: Whether a terminal shows it.
    """
    if isinstance(thing, str | int | float | None):
        return str(thing)
    text = pprint.pformat(thing, depth=depth, width=120, sort_dicts=False)
    return f"{_COLOR}{text}{_PLAIN}" if in_color else text
