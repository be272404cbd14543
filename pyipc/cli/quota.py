"""When a command that would run for ever has had enough."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import trio

from pyipc.cli.arguments import positive, seconds
from pyipc.cli.exits import ExitCode, Failed
from pyipc.cli.interruption import interruptible

if TYPE_CHECKING:
    import argparse

__all__ = ["Quota", "add_quota_options"]


def add_quota_options(parser: argparse.ArgumentParser) -> None:
    """After how many messages, or how long, to end."""
    parser.add_argument("--count", type=positive, metavar="N", help="end after so many messages")
    parser.add_argument(
        "--timeout",
        type=seconds,
        metavar="SECONDS",
        help=f"end after this time; with --count, exit status {ExitCode.TIMEOUT:d} if fewer came",
    )


class Quota:
    """Counts messages.

    Args:
        arguments: With those of `add_quota_options`.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._limit: int | None = arguments.count
        self._timeout: float | None = arguments.timeout
        self._taken = 0
        self._over = trio.Event()
        self._error: Exception | None = None

    def take(self) -> bool:
        """Count one more message; false if there have been enough."""
        if self._taken == self._limit:
            return False
        self._taken += 1
        return True

    def check(self) -> None:
        """Let `wait` return if there have been enough; called when one has been dealt with."""
        if self._taken == self._limit:
            self._over.set()

    def fail(self, error: Exception) -> None:
        """Let `wait` raise."""
        self._error = error
        self._over.set()

    async def wait(self) -> None:
        """Wait until there have been enough, or until the time is over.

        Raises:
            Failed: The time was over before there were enough.
            Interrupted: A signal came.

        Cancellation: nothing is changed by it.
        """
        with interruptible(), trio.move_on_after(math.inf if self._timeout is None else self._timeout):
            await self._over.wait()
        if self._error is not None:
            raise self._error
        if self._limit is not None and self._taken < self._limit:
            raise Failed(
                ExitCode.TIMEOUT, f"{self._taken:,} of {self._limit:,} messages came within {self._timeout:g} s"
            )
