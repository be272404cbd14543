"""Events that were emitted while there was no connection."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING

from pyipc.errors import ConnectionLost
from pyipc.protocol.features import PUBLISH_START

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pyipc.options import Options

__all__ = ["OfflineQueue"]


class OfflineQueue:
    """Frames in order, bounded in number and bytes.

    Attributes:
        size: Bytes waiting.
        dropped: Events dropped, because the option ``offline`` says so or the server cannot take them.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._frames: collections.deque[tuple[str | None, bytes]] = collections.deque()
        self.size: int = 0
        self.dropped: int = 0

    def __len__(self) -> int:
        return len(self._frames)

    def put(self, event: str | None, frame: bytes, why: str) -> None:
        """Keep an event, or do with it what the option ``offline`` says.

        Raises:
            ConnectionLost: Events are not queued, or the queue is full; the event will not be sent.
        """
        options = self._options
        if options.offline == "raise":
            raise ConnectionLost(f"not connected ({why}), and offline='raise'")
        if options.offline == "drop":
            self.dropped += 1
            return
        if len(self._frames) >= options.max_offline_messages or self.size + len(frame) > options.max_offline_size:
            raise ConnectionLost(
                f"not connected ({why}), and the offline queue is full: {len(self._frames):,} messages, "
                f"{self.size:,} bytes (max_offline_messages, max_offline_size)"
            )
        self._frames.append((event, frame))
        self.size += len(frame)

    def put_back(self, frames: Iterable[bytes]) -> None:
        """Keep what a broken connection left unsent, before everything else and whatever the bounds.

        It was accepted once, when it counted against the outbox.
        """
        frames = list(frames)
        if self._options.offline != "queue":
            self.dropped += len(frames)
            return
        self._frames.extendleft((None, frame) for frame in reversed(frames))
        self.size += sum(map(len, frames))

    @property
    def has_published(self) -> bool:
        """Whether something waits that may go only to a server that knows topics."""
        return any(frame.startswith(PUBLISH_START) for _, frame in self._frames)

    def names(self) -> Iterator[str | None]:
        """The names of the events that wait, where they are still to be checked."""
        return (event for event, _ in self._frames)

    def take_all(self) -> Iterator[tuple[str | None, bytes]]:
        """Empty the queue: the name of each event, if it is still to be checked, and its bytes."""
        while self._frames:
            event, frame = self._frames.popleft()
            self.size -= len(frame)
            yield event, frame
