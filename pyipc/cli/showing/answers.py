"""What a server has answered, for people and for programs: its data, and how large what is attached is."""

from __future__ import annotations

from typing import Any

import pyipc
from pyipc.cli.showing.figures import size
from pyipc.cli.showing.text import Lines, json_text

__all__ = ["answer_pieces", "answer_record"]


def answer_record(answer: Any) -> dict[str, Any]:
    """The fields of an answer in a record: ``data``, and ``attachments``, their sizes in bytes, where there are any."""
    if not isinstance(answer, pyipc.Attached):
        return {"data": answer}
    return {"data": answer.data, "attachments": [len(each) for each in answer.attachments]}


def answer_pieces(answer: Any, *, indent: int | None = None) -> list[tuple[str, str]]:
    """An answer as text with styles: JSON, and behind it a word on what is attached."""
    if not isinstance(answer, pyipc.Attached):
        return [(Lines(json_text(answer, indent=indent)), "json")]
    sizes = ", ".join(size(len(each)) for each in answer.attachments)
    return [(Lines(json_text(answer.data, indent=indent)), "json"), (f"  with attachments of {sizes}", "dim")]
