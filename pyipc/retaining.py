"""The last message of each topic of which it is kept, for those who subscribe later."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from pyipc.protocol.patterns import Pattern

if TYPE_CHECKING:
    from pyipc.attaching import Records
    from pyipc.options import Options

__all__ = ["Retained", "Retention"]


@dataclasses.dataclass(frozen=True, slots=True)
class Retained:
    """The last message of a topic: its data as JSON that can be put into a frame, its attachments, what both weigh."""

    data: Any
    records: Records
    size: int
    is_own: bool


class Retention:
    """What is kept, within limits.

    Args:
        options: Limits.

    Attributes:
        size: Bytes of all that is kept.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._kept: dict[str, Retained] = {}
        self._own_topics = 0
        self._own_size = 0
        self.size: int = 0

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, pattern: Pattern) -> list[tuple[str, Retained]]:
        """What is kept of the topics that match."""
        if pattern.is_literal:
            kept = self._kept.get(pattern.text)
            return [] if kept is None else [(pattern.text, kept)]
        return [(topic, kept) for topic, kept in self._kept.items() if pattern.matches(topic)]

    def why_not(self, topic: str, data: Any, records: Records, *, is_own: bool) -> str:
        """Why a message cannot be kept; empty if it can.

        What peers keep leaves room for all that this program may, but not the other way round.
        """
        options = self._options
        before = self._kept.get(topic)
        if before is not None and is_own and not before.is_own:
            before = None  # it counts for the peers
        count = self._own_topics if is_own else len(self._kept)
        if before is None and count >= options.max_retained_topics:
            return f"{options.max_retained_topics:,} topics are retained already (max_retained_topics)"
        size = (self._own_size if is_own else self.size) - (before.size if before else 0)
        size += _size_of(topic, data, records)
        if size > options.max_retained_size:
            return f"that would be {size:,} bytes of retained messages (max_retained_size)"
        return ""

    def keep(self, topic: str, data: Any, records: Records, *, is_own: bool) -> None:
        """Keep a message, in the place of an earlier one of its topic."""
        self.forget(topic)
        size = _size_of(topic, data, records)
        self._kept[topic] = Retained(data, records, size, is_own)
        self.size += size
        if is_own:
            self._own_topics += 1
            self._own_size += size

    def forget(self, pattern: str) -> int:
        """Keep no longer what matches; say how many messages that were."""
        gone = self.find(Pattern(pattern))
        for topic, kept in gone:
            del self._kept[topic]
            self.size -= kept.size
            if kept.is_own:
                self._own_topics -= 1
                self._own_size -= kept.size
        return len(gone)


def _size_of(topic: str, data: Any, records: Records) -> int:
    return len(topic.encode()) + (0 if data is None else len(data)) + sum(map(len, records))
