"""Ending early, and in order: Ctrl-C, SIGTERM, and the closing of the terminal."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

__all__ = ["Interrupted", "interruptible"]

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]


class Interrupted(Exception):
    """A signal asked the program to end.

    Attributes:
        signal: Its number.
    """

    def __init__(self, number: int) -> None:
        self.signal = number
        super().__init__(f"interrupted by {signal.Signals(number).name}")


@contextmanager
def interruptible() -> Iterator[None]:
    """A block that ends with `Interrupted` when a signal comes.

    Such blocks nest, and the innermost one is ended. So a block inside that of a connection lets
    the connection close in order, which a second signal, ending an outer block, cuts short::

        async with pyipc.connect(address) as client:
            with interruptible():
                await trio.sleep_forever()

    A signal that the parent has chosen to ignore, as ``nohup`` does, stays ignored.
    """
    scope = trio.CancelScope()
    token = trio.lowlevel.current_trio_token()
    received: list[int] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        received.append(number)
        token.run_sync_soon(scope.cancel)

    previous = {
        number: signal.signal(number, on_signal)
        for number in _SIGNALS
        if signal.getsignal(number) not in (signal.SIG_IGN, None)
    }
    try:
        with scope:
            yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if scope.cancelled_caught:
        raise Interrupted(received[0])
