"""Figures as people read them: durations, sizes and counts with a unit and three digits that matter."""

from __future__ import annotations

from typing import Final

__all__ = ["count", "duration", "size"]

_TIMES: Final = ((1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "µs"))
_SIZES: Final = ((1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB"))


def duration(nanoseconds: float) -> str:
    """A length of time, such as ``"1.24 ms"``.

    Args:
        nanoseconds: How long.
    """
    return _scaled(nanoseconds, _TIMES, "ns")


def size(octets: float) -> str:
    """A number of bytes, such as ``"64 KiB"`` or ``"17 B"``.

    Args:
        octets: How many.
    """
    return _scaled(octets, _SIZES, "B")


def count(number: float) -> str:
    """A number of things, such as ``"12,345"``."""
    return f"{number:,.0f}"


def _scaled(value: float, units: tuple[tuple[int, str], ...], smallest: str) -> str:
    for factor, unit in units:
        if value >= factor:
            return f"{_three_digits(value / factor)} {unit}"
    return f"{value:,.0f} {smallest}"


def _three_digits(value: float) -> str:
    decimals = 2 if value < 9.995 else 1 if value < 99.95 else 0
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if decimals else text
