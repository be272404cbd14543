"""JSON as the wire has it: without the NaN and the infinities that Python's own reader takes."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

__all__ = ["read_json"]


def read_json(text: str) -> Any:
    """Read one JSON value.

    Raises:
        ValueError: It is not JSON; a `json.JSONDecodeError` if the place is known.
        RecursionError: It is nested too deep.
    """
    return json.loads(text, parse_constant=_no_constant, parse_float=_finite)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text} is out of range")
    return value
