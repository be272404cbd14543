"""Writing to the standard streams without holding up the program.

A pipe that is full or a terminal that is stopped blocks whoever writes to it. Here that is a
thread; tasks wait only while too much is pending, and so a peer whose messages are printed is
held back by the reader of the output, while heartbeats and everybody else go on.
"""

from __future__ import annotations

import os
import select
import stat
import sys
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    import io
    from collections.abc import Callable
    from typing import TextIO

__all__ = ["Output"]

#: Bytes that may be pending before whoever has more to write waits.
_HIGH_WATER_SIZE = 64 * 1024


class Output:
    """One standard stream.

    Args:
        stream: ``sys.stdout`` or ``sys.stderr``; ``None`` if the program was started without it.
        on_failure: Called once if it cannot be written any more; what is put then is dropped.
    """

    def __init__(self, stream: TextIO | None, on_failure: Callable[[OSError], object]) -> None:
        # The unbuffered stream has no lock that an abandoned thread could hold at the program's end.
        buffer = getattr(stream, "buffer", None)
        self._raw: io.RawIOBase | None = getattr(buffer, "raw", buffer)
        self.encoding: str = getattr(stream, "encoding", None) or "utf-8"
        self.is_terminal: bool = stream is not None and stream.isatty()
        self._on_failure = on_failure
        self._failed = self._raw is None
        self._pending: list[bytes] = []
        self._size = 0
        self._news = trio.lowlevel.ParkingLot()
        self._progress = trio.lowlevel.ParkingLot()

    def offer(self, text: str) -> bool:
        """As `put` if not too much is pending, else drop the text; return whether there was room."""
        if self._size >= _HIGH_WATER_SIZE:
            return False
        self.put(text)
        return True

    def put(self, text: str) -> None:
        """Add text to what is pending, at once. What the stream's encoding lacks is escaped."""
        if not self._failed:
            data = text.encode(self.encoding, "backslashreplace")
            self._pending.append(data)
            self._size += len(data)
            self._news.unpark()

    async def wait_for_room(self) -> None:
        """Wait until not too much is pending.

        Cancellation: changes nothing. A schedule point only if it has to wait.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while self._size >= _HIGH_WATER_SIZE:
            await self._progress.park()

    async def drain(self) -> None:
        """Wait until everything is written.

        Cancellation: what is pending stays so.
        """
        await trio.lowlevel.checkpoint()
        while self._size:
            await self._progress.park()

    async def run(self) -> None:
        """Write what is put, for ever.

        Cancellation: a write that is blocked is left to its thread, which ends with the program.
        """
        while self._raw is not None:
            while not self._pending:
                await self._news.park()
            batch = b"".join(self._pending)
            self._pending.clear()
            try:
                await trio.to_thread.run_sync(_write, self._raw, batch, abandon_on_cancel=True)
            except OSError as error:
                self._fail(error)
            if not self._failed:
                self._size -= len(batch)
                self._progress.unpark_all()

    def _fail(self, error: OSError) -> None:
        if not self._failed:
            self._failed = True
            self._pending.clear()
            self._size = 0
            self._progress.unpark_all()
            self._on_failure(error)

    async def watch(self) -> None:
        """Notice at once that the reader of a pipe has gone, also while there is nothing to write.

        Cancellation: stops watching.
        """
        if sys.platform != "linux" or self._raw is None or not stat.S_ISFIFO(os.fstat(self._raw.fileno()).st_mode):
            return
        # Nothing is ever to be read from this end of a pipe: what wakes is the error.
        await trio.lowlevel.wait_readable(self._raw.fileno())
        poll = select.poll()
        poll.register(self._raw.fileno(), 0)
        if any(events & select.POLLERR for _, events in poll.poll(0)):
            self._fail(BrokenPipeError())


def _write(raw: io.RawIOBase, data: bytes) -> None:
    """Write all of it, however long that takes."""
    rest = memoryview(data)
    while rest:
        written = raw.write(rest)
        if written is None:  # somebody who shares the stream made it non-blocking
            select.select([], [raw], [])
        else:
            rest = rest[written:]
