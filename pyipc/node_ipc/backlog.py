"""What a program has emitted and cannot be sent yet."""

from __future__ import annotations

import collections
import json
from typing import TYPE_CHECKING, Any, NamedTuple

import trio

import pyipc

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Backlog"]


class _Message(NamedTuple):
    event: str
    frame: bytes


class Backlog:
    """Messages in order, each as the bytes that it will be: those can be counted, and nobody changes them meanwhile.

    Args:
        endpoint: Where they are to go.
        options: How many may wait (``max_offline_messages``), of how many bytes (``max_offline_size``), and what
            can be sent at all.
        until: What they wait for, for errors.
    """

    def __init__(self, endpoint: pyipc.Endpoint, options: pyipc.Options, until: str) -> None:
        self._endpoint = endpoint
        self._options = options
        self._until = until
        self._messages: collections.deque[_Message] = collections.deque()
        self._size = 0

    def __len__(self) -> int:
        return len(self._messages)

    def add(self, event: str, data: object) -> None:
        """Keep a message.

        Raises:
            LocalProtocolError: The name or the data cannot be sent.
            trio.WouldBlock: Too much waits already.
        """
        frame = self._endpoint.encode(event, data, self._options)
        count, size = len(self._messages), self._size + len(frame)
        if count >= self._options.max_offline_messages or size > self._options.max_offline_size:
            raise trio.WouldBlock(
                f"{count:,} messages of {self._size:,} bytes wait already until {self._until} "
                "(max_offline_messages, max_offline_size)"
            )
        self._messages.append(_Message(event, frame))
        self._size = size

    def first(self) -> tuple[str, Any]:
        """The message that has waited longest; it stays here."""
        event, frame = self._messages[0]
        if isinstance(self._endpoint.framing, pyipc.Raw):
            return event, frame
        return event, json.loads(frame[:-1])["data"]  # without the delimiter, which is one byte

    def remove_first(self) -> None:
        """Whoever asked for the first one has taken care of it."""
        self._size -= len(self._messages.popleft().frame)

    def take_all(self) -> Iterator[tuple[str, Any]]:
        """All that wait, each of which is removed when the next one is asked for."""
        while self._messages:
            yield self.first()
            self.remove_first()
