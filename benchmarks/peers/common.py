"""What every Python peer of the benchmarks does alike: its command line, its payload, its report.

A peer is one process. It is called as ``<peer>.py <role> <socket path> <count>``, writes ``ready`` to
stdout when it listens (servers) and one line of JSON with its figures when it is done (clients and
ceilings). It ends by itself after `LIFETIME` seconds, should whoever started it be gone.
"""

from __future__ import annotations

import json
import statistics
import sys

#: Seconds after which a forgotten peer ends.
LIFETIME = 120.0
#: The event whose frame, ``{"type":"tick","data":...}`` without its delimiter, takes 64 bytes.
EVENT = "tick"
DATA = {"n": 123, "s": "abcdefghijklmnop", "f": 1.25}
DELIMITER = b"\f"


def arguments() -> tuple[str, str, int]:
    """Role, socket path and count, from the command line."""
    role, path, count = sys.argv[1:4]
    return role, path, int(count)


def ready() -> None:
    """Say that this peer listens."""
    print("ready", flush=True)


def report_round_trips(laps: list[float]) -> None:
    """Report how long each of many round trips took, in seconds."""
    laps.sort()
    report(
        {
            "count": len(laps),
            "mean_us": statistics.fmean(laps) * 1e6,
            "p50_us": laps[len(laps) // 2] * 1e6,
            "p99_us": laps[len(laps) * 99 // 100] * 1e6,
        }
    )


def report_rate(count: int, seconds: float) -> None:
    """Report that ``count`` events were sent and handled."""
    report({"count": count, "per_second": count / seconds})


def report(figures: dict[str, float]) -> None:
    """Write a line of figures for the benchmark to read."""
    print(json.dumps(figures), flush=True)
