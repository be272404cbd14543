"""Who wants what is published under a name, among any number of patterns.

To try every pattern for every name would cost most where many subscribers each want something else. So patterns are
looked up: one without wildcards by its text, and all that have their wildcards in the same places by one look into a
table, with those segments of the name that stand where the patterns have no wildcard. What one name led to is
remembered until a pattern comes or goes. Of a pattern no more is kept than its text.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from pyipc.protocol.patterns import Pattern

__all__ = ["Matches", "Shape", "shape_of"]

K = TypeVar("K", bound="Hashable")

# Peers choose the names, so what is remembered about them must have an end.
_MAX_CACHED_NAMES = 1_024


@dataclasses.dataclass(frozen=True, slots=True)
class Shape:
    """Where a pattern has its wildcards.

    Attributes:
        length: How many segments it has, a ``**`` not counted.
        takes_rest: Whether a ``**`` follows them.
        literals: The places of the segments that are no wildcards.
    """

    length: int
    takes_rest: bool
    literals: tuple[int, ...]

    def key(self, segments: Sequence[str | None]) -> str | None:
        """The segments of a name by which its patterns of this shape are found; ``None`` if it can have none."""
        surplus = len(segments) - self.length
        if surplus < 0 or (surplus and not self.takes_rest):
            return None
        # Their number is the same for all of a shape, so joined they are as different as they are.
        return ".".join([segments[place] or "" for place in self.literals])


def shape_of(pattern: Pattern) -> Shape:
    """The shape of a pattern."""
    literals = tuple(place for place, segment in enumerate(pattern.segments) if segment is not None)
    return Shape(len(pattern.segments), pattern.takes_rest, literals)


class Matches(Generic[K]):
    """Patterns, and who has subscribed to each.

    Attributes:
        work: How many shapes were looked at so far, which is what takes the time.
    """

    def __init__(self) -> None:
        # Under each key, who wants it, and by how many of his patterns that are alike.
        self._literals: dict[str, dict[K, int]] = {}
        self._shapes: dict[Shape, dict[str, dict[K, int]]] = {}
        self._found: dict[str, tuple[K, ...]] = {}
        self.work: int = 0

    def add(self, pattern: Pattern, holder: K) -> None:
        """From now on ``holder`` wants what matches; once more, if it did so before."""
        if pattern.is_literal:
            keys, key = self._literals, pattern.text
            self._found.pop(key, None)
        else:
            shape = shape_of(pattern)
            keys, key = self._shapes.setdefault(shape, {}), _key_of(pattern, shape)
            self._found.clear()
        holders = keys.setdefault(key, {})
        holders[holder] = holders.get(holder, 0) + 1

    def remove(self, pattern: Pattern, holder: K) -> None:
        """Undo one `add`."""
        if pattern.is_literal:
            keys, key = self._literals, pattern.text
            self._found.pop(key, None)
        else:
            shape = shape_of(pattern)
            keys, key = self._shapes[shape], _key_of(pattern, shape)
            self._found.clear()
        holders = keys[key]
        holders[holder] -= 1
        if not holders[holder]:
            del holders[holder]
        if not holders:
            del keys[key]
        if not keys and not pattern.is_literal:
            del self._shapes[shape]

    def find(self, name: str) -> tuple[K, ...]:
        """Everybody who wants what is called ``name``, each once.

        Takes time linear in the length of the name for each shape of patterns that there is, however many have it.
        """
        found = self._found.get(name)
        if found is None:
            segments = name.split(".")
            holders: dict[K, None] = dict.fromkeys(self._literals.get(name, ()))
            self.work += len(self._shapes)
            for shape, keys in self._shapes.items():
                key = shape.key(segments)
                if key is not None and (some := keys.get(key)) is not None:
                    holders.update(dict.fromkeys(some))
            found = tuple(holders)
            if len(self._found) >= _MAX_CACHED_NAMES:
                self._found.clear()
            self._found[name] = found
        return found


def _key_of(pattern: Pattern, shape: Shape) -> str:
    key = shape.key(pattern.segments)
    assert key is not None
    return key
