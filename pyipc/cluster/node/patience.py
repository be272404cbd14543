"""Messages of a Node primary that come before this worker's program has handlers for them wait here.

In its own workers Node lets go of them. Here a message waits, with all that came behind it, until there is a handler
for its name, or the worker is ready, or is to leave. Answers to what this worker has asked pass those that wait.
"""

from __future__ import annotations

import collections
import contextlib
import json
from typing import TYPE_CHECKING, Any, Final, final

import trio

from pyipc.cluster.node.lines import DELIMITER
from pyipc.transports import Link

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyipc.transports import Peer

__all__ = ["PatientLink", "event_name_in"]

# While so many bytes wait nothing more is read, and Node's end fills up.
_MAX_HELD: Final = 8 * 1024 * 1024
_TYPE_START: Final = b'{"type":'
_ANSWERS: Final = ("pyipc.reply", "pyipc.error")


def event_name_in(frame: bytes) -> str | None:
    """The name of the event, or of the request, in a frame; ``None`` for anything else."""
    name = _type_of(frame)
    if name == "pyipc.request":
        with contextlib.suppress(ValueError, RecursionError, TypeError, KeyError):
            name = json.loads(frame.removesuffix(DELIMITER))["data"]["event"]
    return name if isinstance(name, str) and not name.startswith("pyipc.") else None


def _type_of(frame: bytes) -> Any:
    """What is said to be the type; ``None`` where none can be read."""
    # It stands at the beginning, and is shorter than any name may be with every character escaped.
    start = frame[len(_TYPE_START) : len(_TYPE_START) + 2_048].decode(errors="replace")
    with contextlib.suppress(ValueError, RecursionError):
        return json.JSONDecoder().raw_decode(start)[0]
    return None


@final
class PatientLink(Link):
    """The link of a channel, on which nothing is received too early, and before `begin` nothing at all.

    Args:
        link: The link.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._held: collections.deque[bytes] = collections.deque()
        self._held_size = 0
        self._want: Callable[[str], None] | None = None
        self._taken: set[str] = set()
        self._is_settled = False
        self._changed = trio.Event()
        self._reading: trio.CancelScope | None = None

    # --- what may be received ---

    def begin(self, want: Callable[[str], None]) -> None:
        """There is a program now.

        Args:
            want: Has `taking` called once there is a handler for a name.
        """
        self._want = want
        self._wake()

    def taking(self, event: str) -> None:
        """There is a handler for a name."""
        self._taken.add(event)
        self._wake()

    def settle(self) -> None:
        """Nothing waits any more."""
        self._is_settled = True
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        if self._reading is not None:
            self._reading.cancel()

    # --- the link ---

    @property
    def peer(self) -> Peer:
        """Who is on the other side."""
        return self._link.peer

    def send_nowait(self, data: bytes | bytearray | memoryview) -> int:
        """As the link."""
        return self._link.send_nowait(data)

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """As the link.

        Cancellation: as the link.
        """
        await self._link.send(data)

    def send_eof(self) -> bool:
        """As the link."""
        return self._link.send_eof()

    async def aclose(self) -> None:
        """As the link.

        Cancellation: as the link.
        """
        await self._link.aclose()

    async def receive(self) -> bytes:
        """Wait for the next messages that may be handled.

        Raises:
            ConnectionLost: As the link.

        Cancellation: loses nothing.
        """
        while self._want is None:
            await self._changed.wait()
        while self._held or not self._is_settled:
            await trio.lowlevel.checkpoint()
            if passed := self._let_through():
                return passed
            self._changed = trio.Event()
            if self._held_size > _MAX_HELD:
                await self._changed.wait()
                continue
            data = None
            with trio.CancelScope() as self._reading:
                data = await self._link.receive()
            if data == b"":
                self.settle()  # there is nothing more to wait for, and the end comes behind what is held
            elif data and (answers := self._sort(data)):
                return answers
        return await self._link.receive()

    def _sort(self, data: bytes) -> bytes:
        """Keep what may have to wait, and return the rest."""
        answers = []
        for frame in data.split(DELIMITER):
            if frame and frame.startswith(b'{"type":"pyipc.') and _type_of(frame) in _ANSWERS:
                answers.append(frame + DELIMITER)
            elif frame:
                self._held.append(frame + DELIMITER)
                self._held_size += len(frame)
        return b"".join(answers)

    def _let_through(self) -> bytes:
        """What need not wait any more."""
        passed = []
        while self._held and self._may_pass(self._held[0]):
            frame = self._held.popleft()
            self._held_size -= len(frame) - len(DELIMITER)
            passed.append(frame)
        return b"".join(passed)

    def _may_pass(self, frame: bytes) -> bool:
        if self._is_settled:
            return True
        event = event_name_in(frame)
        if event is not None and event not in self._taken and self._want is not None:
            self._want(event)
        return event is None or event in self._taken
