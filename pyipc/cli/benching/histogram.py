"""A histogram of durations in constant memory, with a known error at every scale.

Values are whole numbers, such as nanoseconds. Each octave, from one power of two to the next, has
128 buckets of equal width, so a value is known to within 1/128 of itself wherever it lies, and below
256 exactly. Counts, mean, least and greatest value are exact always. This is the idea of HdrHistogram.
"""

from __future__ import annotations

import dataclasses
import math
from array import array
from typing import Final

__all__ = ["Histogram", "Row"]

_BITS: Final = 7
_BUCKETS_PER_OCTAVE: Final = 1 << _BITS
_GREATEST: Final = 2**63 - 1
_NARROWEST_ROW: Final = _BUCKETS_PER_OCTAVE // 8


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """A range of values and how many were in it.

    Attributes:
        low: The least value that belongs to it.
        high: The least value that is too great for it.
        count: How many were recorded.
    """

    low: int
    high: int
    count: int


class Histogram:
    """Counts how often each value was recorded, to within 1/128 of it.

    Attributes:
        count: Values recorded.
        minimum: The least of them; 0 if there are none.
        maximum: The greatest of them; 0 if there are none.
    """

    __slots__ = ("_counts", "_total", "count", "maximum", "minimum")

    def __init__(self) -> None:
        self._counts = array("Q", bytes(8 * (_index(_GREATEST) + 1)))
        self._total = 0
        self.count: int = 0
        self.minimum: int = 0
        self.maximum: int = 0

    def record(self, value: int) -> None:
        """Count one value.

        Raises:
            ValueError: It is negative, or 2**63 or more.
        """
        if not 0 <= value <= _GREATEST:
            raise ValueError(f"a histogram takes values from 0 to {_GREATEST:,}, not {value!r}")
        self._counts[_index(value)] += 1
        self._total += value
        if not self.count or value < self.minimum:
            self.minimum = value
        if value > self.maximum:
            self.maximum = value
        self.count += 1

    @property
    def mean(self) -> float:
        """The exact mean; 0 if nothing was recorded."""
        return self._total / self.count if self.count else 0.0

    def percentile(self, percent: float) -> int:
        """The value that so many percent of all values do not exceed.

        Args:
            percent: From 0 to 100.

        Returns:
            At least the true value, and at most 1/128 of it more; 0 if nothing was recorded.

        Raises:
            ValueError: ``percent`` is not from 0 to 100.
        """
        if not 0 <= percent <= 100:
            raise ValueError(f"a percentile is from 0 to 100, not {percent!r}")
        rank = max(1, math.ceil(self.count * percent / 100))
        seen = 0
        for index, number in enumerate(self._counts):
            seen += number
            if seen >= rank:
                return min(_least(index + 1) - 1, self.maximum)
        return self.maximum

    def rows(self, most: int = 20) -> list[Row]:
        """The counts in at most so many ranges, as narrow as that allows, each as long a part of an octave.

        Args:
            most: How many ranges there may be. Empty ones between others are among them.
        """
        if not self.count:
            return []
        first, last = _index(self.minimum), _index(self.maximum)
        width = _NARROWEST_ROW
        while last // width - first // width >= most:
            width *= 2
        return [
            Row(_least(start), _least(start + width), sum(self._counts[start : start + width]))
            for start in range(first // width * width, last + 1, width)
        ]


def _index(value: int) -> int:
    """The bucket of a value: the octave, then its leading bits within it."""
    shift = max(0, value.bit_length() - _BITS - 1)
    return (shift << _BITS) + (value >> shift)


def _least(index: int) -> int:
    """The least value of a bucket."""
    shift = max(0, (index >> _BITS) - 1)
    return (index - (shift << _BITS)) << shift
