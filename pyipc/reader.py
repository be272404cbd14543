"""Whose turn it is to read a link: the task that leads, or one that waits for its own answer.

The leader reads nearly always. For a program that asks one thing after the other this costs a scheduler turn an
answer: the leader wakes for the bytes, and then the asker for the answer. So once a task has asked a few times in a
row, each time as soon as it had its answer and with nobody else waiting, the leader *rests*, and the asker reads its
answer by itself. Whatever else the asker reads it passes to the leader.

Between two requests nobody reads while the leader rests. What the peer sends unasked in that time waits for the next
request, or for the leader, which reads again `REST` after the last answer.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import trio

from pyipc.digesting import digest
from pyipc.errors import ConnectionLost
from pyipc.protocol.messages import Reply

if TYPE_CHECKING:
    from pyipc.calls import Call, Calls
    from pyipc.connection import Connection
    from pyipc.protocol.conversation import Inbound
    from pyipc.transports.port import Link

__all__ = ["REST", "SOON", "Reader"]

#: Seconds after the last answer until the leader reads again.
REST = 0.001
#: Who asks again this many seconds after bytes last came, at most, does nothing much in between. (With a clock that
#: stands still, as in tests, a rest would have no end: no seconds at all are therefore no row either.)
SOON = 0.001
# How many requests make a row.
_ROW = 3


class Reader:
    """Decides who reads, and reads for askers.

    Args:
        link: What is read.
        connection: Makes items of what is read, and notes the `time`.

    Attributes:
        is_due: Whether the leader should rest before it reads on.
        is_free: Whether the leader rests and no asker reads, so that one may.
        passed: What an asker has read and could not use; ``None`` for the end of the stream.
        time: When bytes last came, in trio's time.
        row: Requests made in a row, each soon after the last answer, with nobody else waiting and nothing but
            answers read; counted by whoever makes them.
        reads: How many reads there were when the last request was made, of those that completed a frame.
    """

    __slots__ = (
        "_asleep",
        "_back",
        "_connection",
        "_has_passed",
        "_link",
        "_nap",
        "_prolong_at",
        "_resting",
        "is_due",
        "is_free",
        "passed",
        "reads",
        "row",
        "time",
    )

    def __init__(self, link: Link, connection: Connection) -> None:
        self._link = link
        self._connection = connection
        self.is_due: bool = False
        self.is_free: bool = False
        self.passed: list[Inbound] | None = None
        self.time: float = -math.inf
        self.row: int = 0
        self.reads: int = 0
        self._has_passed = False
        self._resting = False
        self._asleep = False  # it rests without looking up
        self._prolong_at = 0.0
        # Made for the first rest: most connections never see one, and there may be many of them.
        self._back: trio.lowlevel.ParkingLot | None = None
        self._nap: trio.CancelScope | None = None

    # --- the leader ---

    def note_answer(self, *, alone: bool) -> None:
        """The leader has read an answer; ``alone`` says whether it was the only one that was waited for."""
        self.is_due = alone and self.row >= _ROW and self._link.can_wake_receiver

    async def rest(self) -> bool:
        """Let askers read, until one passes something on or none has asked for a while.

        Returns:
            Whether something was `passed`. If not, the leader is to read the link.

        Cancellation: ends the rest; nothing that was read is lost by it.
        """
        self.is_due = False
        self.is_free = self._resting = True
        back = self._back = self._back or trio.lowlevel.ParkingLot()
        try:
            while self._resting:
                now = trio.current_time()
                self._prolong_at = now + REST / 2
                with trio.CancelScope(deadline=now + REST) as self._nap:
                    await back.park()
                if self._resting:
                    if self.is_free:
                        break
                    # An asker has been reading for all that time. It wakes us when it is done, however long it takes.
                    self._asleep = True
                    await back.park()
                    self._asleep = False
        finally:
            self._resting = self._asleep = self.is_free = False
        has_passed, self._has_passed = self._has_passed, False
        return has_passed

    def call_back(self) -> None:
        """Somebody waits for what the peer sends and does not read it: the leader is not to rest."""
        self.is_due = False
        if self.is_free:
            self._recall()

    # --- askers ---

    async def read_answer(self, call: Call, calls: Calls) -> Any:
        """Wait for an answer and read it, while `is_free`. Raises and is cancelled as `Calls.wait`."""
        self.is_free = False
        call.wake = self._link.wake_receiver
        try:
            try:
                chunk = await self._link.receive()
            finally:
                call.wake = None
            items = digest(self._connection, chunk)
        except trio.WouldBlock:
            self._recall()  # woken, since the call has ended in another way
        except ConnectionLost as error:
            self._connection._on_broken_link(error)
            self._pass_on(None)
        except BaseException:
            calls.abandon(call)
            self._recall()
            raise
        else:
            # The leader goes on with a large frame behind the answer.
            if items is not None and len(items) == 1 and not self._connection._conversation.is_busy:
                (item,) = items
                if type(item) is Reply and item.call == call.number and calls.pending.pop(item.call, None) is not None:
                    if calls.pending:
                        self._recall()  # whoever asked meanwhile does not read
                        return item.data
                    self.is_free = self._resting
                    if self._asleep or self.time > self._prolong_at:  # not for every answer: it costs a little
                        self._let_rest()
                    return item.data
            self._pass_on(items)
        return await calls.wait(call)

    def _let_rest(self) -> None:
        """Let the leader rest for longer, since an asker has had its answer."""
        assert self._nap is not None
        if self._asleep:
            self._wake_leader()
        else:
            self._prolong_at = self.time + REST / 2
            self._nap.deadline = self.time + REST

    def _pass_on(self, items: list[Inbound] | None) -> None:
        """Let the leader deal with what was read."""
        self.row = 0  # it is no use reading for oneself where more than answers comes
        self.passed = items
        self._has_passed = True
        self._recall()

    def _recall(self) -> None:
        """Let the leader read again."""
        self._resting = self.is_free = False
        self._wake_leader()

    def _wake_leader(self) -> None:
        assert self._back is not None
        self._back.unpark_all()
