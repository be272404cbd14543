"""Which task started which."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from trio.lowlevel import Task

__all__ = ["descends_from"]


def descends_from(ancestor: Task) -> bool:
    """Whether the present task is another, or lives in a nursery that is open in that one or in a task within."""
    task: Task | None = trio.lowlevel.current_task()
    while task is not None and task is not ancestor:
        nursery = task.parent_nursery
        task = None if nursery is None else nursery.parent_task
    return task is not None
