"""How much the battery does.

``PYIPC_TEST_SCALE=1`` is what CI does, in minutes; 10 takes the better part of an hour, 100 a night. Where neither CI
nor the variable asks for it, an everyday run does a tenth of that.
"""

from __future__ import annotations

import os

from tests.conftest import SCALE, in_ci, is_wine

__all__ = ["FACTOR", "lasting", "sized"]


def _factor() -> float:
    if is_wine():
        return 0.05  # every call of the system is a conversation with Wine's server
    if "PYIPC_TEST_SCALE" in os.environ or in_ci():
        return float(SCALE)
    return 0.1


#: What the sizes for CI are multiplied with.
FACTOR = _factor()


def sized(count: int, *, least: int = 1) -> int:
    """How many of something to do.

    Args:
        count: How many CI does.
        least: How many are done at least, below which a test would show nothing.
    """
    return max(least, round(count * FACTOR))


def lasting(seconds: float, *, least: float = 1.0) -> float:
    """How long to go on, in seconds, as `sized` for times."""
    return max(least, seconds * FACTOR)
