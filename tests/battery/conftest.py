"""Figures of what the battery did: told at the end of a run, and kept in the file ``PYIPC_BATTERY_LOG``."""

from __future__ import annotations

import collections
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

_TOTAL: collections.Counter[str] = collections.Counter()


class Tally:
    """Counts what one test did, in words such as ``messages``, ``kills``, ``seeds``, ``inputs``, ``lost``."""

    def __init__(self) -> None:
        self.counts: collections.Counter[str] = collections.Counter()

    def add(self, **counts: int) -> None:
        """Add to what was counted."""
        self.counts.update(counts)


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Iterator[Tally]:
    """For a test to count what it does."""
    tally = Tally()
    began = time.monotonic()
    yield tally
    _TOTAL.update(tally.counts)
    if log := os.environ.get("PYIPC_BATTERY_LOG"):
        note = {
            "test": request.node.nodeid,
            "seconds": round(time.monotonic() - began, 1),
            "passed": getattr(request.node, "battery_passed", False),
            "counts": dict(tally.counts),
        }
        with Path(log).open("a") as file:
            file.write(json.dumps(note) + "\n")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    if call.when == "call":
        item.battery_passed = report.passed  # type: ignore[attr-defined]
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _TOTAL:
        words = ", ".join(f"{count:,} {what}" for what, count in sorted(_TOTAL.items()))
        terminalreporter.write_line(f"the battery: {words}")
