"""What ``pyipc bench`` found, for people and as a record."""

from __future__ import annotations

import dataclasses
import platform
from typing import TYPE_CHECKING, Any, Final

import pyipc
from pyipc.cli.showing.figures import count, duration, size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyipc.cli.benching.histogram import Histogram
    from pyipc.cli.benching.workload import Measurement
    from pyipc.cli.showing.console import Line

__all__ = ["Report"]

_PERCENTILES: Final = (50.0, 90.0, 99.0, 99.9)
_BAR_WIDTH: Final = 40
_WORDS: Final = {
    "request": "requests, until the answer",
    "events": "events one way, until the next one could be sent",
    "echo": "events, until they came back",
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The figures.

    Attributes:
        address: Where the server was; ``None`` for one of our own.
        measurement: What was done.
        cpu_here: Seconds of processor time that this side used; ``None`` if that is not known.
        cpu_there: The same for the server.
        interrupted: Whether it was ended early.
    """

    address: str | None
    measurement: Measurement
    cpu_here: float | None
    cpu_there: float | None
    interrupted: bool

    def record(self) -> dict[str, Any]:
        """All figures; times are in seconds."""
        from importlib import metadata  # which takes longer to load than all of the rest

        measurement, plan = self.measurement, self.measurement.plan
        latencies = measurement.latencies
        return {
            "kind": "bench",
            "work": plan.work,
            "address": self.address,
            "size": plan.size,
            "concurrency": plan.concurrency,
            "count": latencies.count,
            "seconds": measurement.seconds,
            "rate": measurement.rate,
            "errors": dict(measurement.errors),
            "interrupted": self.interrupted,
            "latency": {
                "mean": latencies.mean / 1e9,
                "min": latencies.minimum / 1e9,
                **{f"p{percent:g}": latencies.percentile(percent) / 1e9 for percent in _PERCENTILES},
                "max": latencies.maximum / 1e9,
            },
            "histogram": [
                {"low": row.low / 1e9, "high": row.high / 1e9, "count": row.count} for row in latencies.rows()
            ],
            "cpu_per_message": {"here": self._per_message(self.cpu_here), "there": self._per_message(self.cpu_there)},
            "versions": {
                "pyipc": pyipc.__version__,
                "python": platform.python_version(),
                "trio": metadata.version("trio"),
            },
        }

    def lines(self, *, ascii_only: bool) -> Iterator[Line]:
        """The same for people.

        Args:
            ascii_only: Whether the bars are made of ``#``, for outputs that cannot show blocks.
        """
        measurement, plan = self.measurement, self.measurement.plan
        latencies = measurement.latencies
        where = "a process of its own" if self.address is None else self.address
        yield [
            (f"{count(latencies.count)} {_WORDS[plan.work]}", "bold"),
            (f": {size(plan.size)} of data, {count(plan.concurrency)} at a time, with {where}", ""),
        ]
        ended = ", interrupted" if self.interrupted else ""
        errors = ", ".join(f"{name} {count(number)}" for name, number in measurement.errors.items())
        yield [
            (f"{count(measurement.rate)}/s", "bold green"),
            (f" over {duration(measurement.seconds * 1e9)}{ended}; ", ""),
            (f"errors: {errors}" if errors else "no errors", "red" if errors else ""),
        ]
        here, there = self._per_message(self.cpu_here), self._per_message(self.cpu_there)
        if here is not None:
            other = "not known there" if there is None else f"{duration(there * 1e9)} there"
            yield f"processor time of each message: {duration(here * 1e9)} here, {other}"
        if latencies.count:
            yield ""
            yield from _percentiles(latencies)
            yield ""
            yield from _chart(latencies, "#" if ascii_only else "\u2588")

    def _per_message(self, seconds: float | None) -> float | None:
        done = self.measurement.latencies.count
        return None if seconds is None or not done else seconds / done


def _percentiles(latencies: Histogram) -> Iterator[Line]:
    yield f"    mean  {duration(latencies.mean)}"
    for percent in _PERCENTILES:
        yield f"  {percent:4g} %  {duration(latencies.percentile(percent))}"
    yield f"     max  {duration(latencies.maximum)}"


def _chart(latencies: Histogram, block: str) -> Iterator[Line]:
    """A bar for each range, as long as its share of the fullest one."""
    rows = latencies.rows()
    most = max(row.count for row in rows)
    for row in rows:
        bar = block * max(round(_BAR_WIDTH * row.count / most), 1 if row.count else 0)
        yield [
            (f"  {duration(row.low):>7} - {duration(row.high):>7}  ", ""),
            (f"{bar:<{_BAR_WIDTH}}", "cyan"),
            (f"  {count(row.count):>9}  {row.count / latencies.count:6.2%}", ""),
        ]
