"""The page of all statistics, made from what their classes say."""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import Any

import pyipc

__all__ = ["CLASSES", "meanings", "page"]

#: What has counters, and where they come from.
CLASSES: dict[str, type[Any]] = {
    "`connection.statistics()`": pyipc.ConnectionStatistics,
    "`client.statistics()`": pyipc.ClientStatistics,
    "`server.statistics()`": pyipc.ServerStatistics,
    "`subscription.statistics()`": pyipc.SubscriptionStatistics,
    "`await server.broadcast(...)`, `await server.publish(...)`": pyipc.BroadcastReport,
    "`await server.drain()`": pyipc.DrainReport,
    "`on_disconnect`, `Instrument.disconnected`": pyipc.Disconnected,
}

_HEAD = """\
# Statistics

Frozen snapshots: a look costs nothing but the look, and what was seen does not change. Counters only grow, for as long
as the thing that they are about lives; what is *now* goes up and down. `repr()` of a server, a client, a connection, a
stream or a subscription shows its state in short. For what happens while it happens there is `pyipc.Instrument`:
[measure, and follow a request](../how-to/tracing.md).

This page is made from the code: `python -m tests.statistics_page > docs/reference/statistics.md`.
"""


def meanings(kind: type[Any]) -> dict[str, str]:
    """What each field means, in the words of the docstring."""
    _, _, attributes = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", attributes, re.MULTILINE)
    return {name: re.sub(r"\s+", " ", text.replace("``", "`")) for name, text in entries}


def page() -> str:
    """The whole page."""
    parts = [_HEAD]
    for source, kind in CLASSES.items():
        about = inspect.cleandoc(kind.__doc__ or "").partition("\n")[0]
        parts.append(f"\n## {kind.__name__}\n\n{about} From {source}.\n\n| | |\n|---|---|\n")
        said = meanings(kind)
        parts += [f"| `{field.name}` | {said[field.name]} |\n" for field in dataclasses.fields(kind)]
    return "".join(parts)


if __name__ == "__main__":
    print(page(), end="")
