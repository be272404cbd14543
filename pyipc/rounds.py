"""Of which of many events of one kind to tell: a log must not grow with what a peer sends."""

from __future__ import annotations

import logging

__all__ = ["is_round", "level_of"]


def is_round(count: int) -> bool:
    """Whether the event that brought them to so many is to be told of: the 1st, 10th, 100th, 1,000th and so on."""
    return count in (1, 10, 100, 1_000) or (count > 0 and count % 10_000 == 0)


def level_of(count: int) -> int:
    """How loudly to tell of the event that brought them to so many."""
    return logging.WARNING if is_round(count) else logging.DEBUG
