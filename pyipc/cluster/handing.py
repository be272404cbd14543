"""Handing accepted connections to worker processes, so that each is served exactly once.

A connection is *accepted* here, *waits* in a short line, is *given* to a candidate that the policy has chosen, and is
*taken* there: the worker says so before it reads a byte. Until then the primary keeps its own copy. If the worker's
process ends first, another gets the connection; afterwards the connection lives and ends with that worker.

While the line is full, or nobody is there to hand to, nothing is accepted: the kernel's backlog is the longer line.
"""

from __future__ import annotations

import collections
import dataclasses
import logging
import math
from typing import TYPE_CHECKING, Final, Protocol

import trio

from pyipc.cluster.candidate import Handed
from pyipc.cluster.origin import first_bytes, origin
from pyipc.cluster.policies import Arrival, RoundRobin
from pyipc.errors import ConnectionClosed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyipc.cluster.candidate import Candidate, Seat
    from pyipc.cluster.courier import Carrier
    from pyipc.cluster.policies import Load, Policy

__all__ = ["Handing", "HandingStatistics", "Source"]

logger: logging.Logger = logging.getLogger("pyipc.cluster")

# After a failed accept, such as for want of descriptors, others get the chance to close theirs.
_ACCEPT_PAUSE: Final = 0.1
# For how long who has refused a connection, or whose courier is full, is given none.
_REST: Final = 0.1
# How many connections may be waited for to say something; they cost little, and who is silent must not keep others out.
_MAX_PEEKING: Final = 1_024
# Seconds between two lines in the log of what may go on for long.
_QUIET_TIME: Final = 10.0


class Source(Protocol):
    """Where connections are accepted; a `pyipc.transports.Claim` is one."""

    async def accept(self) -> Carrier:
        """Wait for the next peer.

        Raises:
            ConnectionClosed: It is closed.
            OSError: Accepting failed for now.

        Cancellation: loses no peer.
        """


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HandingStatistics:
    """What became of the connections of one address.

    Attributes:
        accepted: Accepted here.
        waiting: Accepted, and not given to anybody.
        given: Given to somebody who has not taken them.
        taken: Taken by workers, since the beginning.
        refused: Times that a worker would not take one.
        moved: Times that one was taken back from a worker that had ended.
        accept_errors: Times that accepting failed.
    """

    accepted: int
    waiting: int
    given: int
    taken: int
    refused: int
    moved: int
    accept_errors: int


class Handing:
    """Hands the connections of one address to its candidates.

    Args:
        name: How workers know the address; each message to them says it.
        source: Where to accept. Whoever made it closes it.
        policy: Who gets what.
        address: The address for policies and for people; ``name`` if it is left out.
        max_handovers: How many connections of this address a worker may have been given and not taken yet. So many
            does one hold that is blocked.
        max_waiting: How many connections may wait here, beside those whose first bytes are waited for.
    """

    def __init__(
        self,
        name: str,
        source: Source,
        policy: Policy,
        *,
        address: str = "",
        max_handovers: int = 4,
        max_waiting: int = 64,
    ) -> None:
        if max_handovers < 1 or max_waiting < 1:
            raise ValueError("max_handovers and max_waiting must be 1 or more")
        self.name: str = name
        self._source = source
        self._policy = policy
        self._address = address or name
        self._max_handovers = max_handovers
        self._max_waiting = max_waiting
        # Who was accepted first comes first, also when it was taken back from somebody.
        self._line: collections.deque[Handed] = collections.deque()
        self._seats: dict[Candidate, Seat] = {}
        # The same places as policies see them.
        self._loads: dict[Load, Seat] = {}
        self._workers: tuple[Load, ...] = ()
        self._fallback = RoundRobin()
        self._is_told = False
        self._room = trio.Event()
        self._settled = trio.Event()
        self._timer = trio.CancelScope()
        self._again_at = math.inf
        self._peeking = 0
        self._is_closed = False
        self._trouble = _Trouble(self._address)
        self._accepted = 0
        self._given = 0
        self._taken = 0
        self._refused = 0
        self._moved = 0

    def __repr__(self) -> str:
        return f"<Handing of {self._address}, candidates: {len(self._loads)}, waiting: {len(self._line)}>"

    def statistics(self) -> HandingStatistics:
        """What became of the connections."""
        return HandingStatistics(
            accepted=self._accepted,
            waiting=len(self._line) + self._peeking,
            given=self._given,
            taken=self._taken,
            refused=self._refused,
            moved=self._moved,
            accept_errors=self._trouble.failures,
        )

    # --- who takes part ---

    def join(self, candidate: Candidate) -> None:
        """Give connections also to a worker process; more than once does nothing."""
        if candidate in self._seats or candidate.is_over or self._is_closed:
            return
        seat = self._seats[candidate] = candidate.sit(self, self._max_handovers)
        seat.load.turns = max((load.turns for load in self._loads), default=0)
        self._loads[seat.load] = seat
        self._workers = tuple(self._loads)
        self._changed()

    def leave(self, candidate: Candidate) -> None:
        """Give no more to a worker process; it may still take what it was given. More than once does nothing."""
        seat = self._seats.pop(candidate, None)
        if seat is not None:
            del self._loads[seat.load]
            self._workers = tuple(self._loads)
            candidate.stand_up(seat)
            # Who was waited for may be the one who left.
            self._changed()

    # --- accepting ---

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Accept and hand over until the source is closed; connections that wait then still go to whoever takes them.

        Cancellation: what waits is kept until `close`.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._ask_again)
            task_status.started()
            while True:
                while not self._may_accept:
                    self._room = trio.Event()
                    await self._room.wait()
                try:
                    carrier = await self._source.accept()
                except ConnectionClosed:
                    break
                except OSError as error:
                    self._trouble.note(error)
                    await trio.sleep(_ACCEPT_PAUSE)
                else:
                    self._trouble.note_end()
                    self._arrived(carrier, nursery)
            await trio.sleep_forever()

    @property
    def _may_accept(self) -> bool:
        return bool(self._loads) and len(self._line) < self._max_waiting and self._peeking < _MAX_PEEKING

    def _arrived(self, carrier: Carrier, nursery: trio.Nursery) -> None:
        self._accepted += 1
        handed = Handed(carrier, Arrival(self._address, origin(carrier)))
        if self._policy.peek_size:
            self._peeking += 1
            nursery.start_soon(self._peek, handed)
        else:
            self._line.append(handed)
            self._hand_out()

    async def _peek(self, handed: Handed) -> None:
        seen = b""
        try:
            seen = await first_bytes(handed.carrier, self._policy.peek_size, self._policy.peek_timeout)
        finally:
            # Cancelled or not, it is in the line from now on.
            self._peeking -= 1
            handed.arrival.first_bytes = seen
            if self._is_closed:
                handed.carrier.close()
            else:
                self._line.append(handed)
        self._changed()

    def add(self, carriers: Sequence[Carrier]) -> None:
        """Share out connections that were accepted elsewhere, such as those left when an address was given up.

        They are chosen for without a look at what they have sent.
        """
        for carrier in carriers:
            self._accepted += 1
            self._line.append(Handed(carrier, Arrival(self._address, origin(carrier))))
        self._changed()

    async def wait_handed(self) -> None:
        """Wait until workers have all that was accepted, or there are no workers.

        Cancellation: nothing is changed by it.
        """
        await trio.lowlevel.checkpoint()
        while self._loads and (self._line or self._given or self._peeking):
            self._settled = trio.Event()
            await self._settled.wait()

    # --- handing out ---

    def _changed(self) -> None:
        """Something is different: who waits may have a chance now."""
        self._settled.set()
        if self._line and self._loads:
            self._hand_out()
        if self._may_accept:
            self._room.set()

    def _hand_out(self) -> None:
        now = trio.current_time()
        for seat in self._seats.values():
            seat.look()
            if seat.load.rests and now >= seat.rests_until:
                seat.load.rests = False
        waiting: list[Handed] = []
        while self._line:
            handed = self._line.popleft()
            if not self._give(handed, now):
                waiting.append(handed)
                if not self._policy.depends_on_arrival:
                    break
        self._line.extendleft(reversed(waiting))
        again_at = self._time_of_change(now) if waiting else math.inf
        if again_at != self._again_at:
            self._again_at = self._timer.deadline = again_at

    def _give(self, handed: Handed, now: float) -> bool:
        """Give a connection to whom the policy wants to have it, if that one has room; say whether it is dealt with."""
        handed.arrival.now = now
        while (load := self._choose(handed.arrival)) is not None and load.has_room:
            seat = self._loads[load]
            try:
                seat.candidate.give(seat, handed, now)
            except trio.WouldBlock:
                self._let_rest(seat, now + _REST)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                # Its end is on its way, behind what it has written before.
                self._let_rest(seat, math.inf)
            except OSError as error:
                logger.error("a connection to %s cannot be handed over, and is closed: %s", self._address, error)
                handed.carrier.close()
                return True
            else:
                self._given += 1
                return True
        return False

    def _choose(self, arrival: Arrival) -> Load | None:
        if not self._workers:
            return None
        try:
            chosen = self._policy.choose(arrival, self._workers)
            if chosen is None or chosen in self._loads:
                return chosen
            problem: Exception = TypeError(f"it returned {chosen!r}, which is none of the workers that it was given")
        except Exception as error:
            problem = error
        if not self._is_told:
            self._is_told = True
            logger.error(
                "the policy %r for %s failed; round robin takes its place for such connections",
                self._policy,
                self._address,
                exc_info=problem,
            )
        return self._fallback.choose(arrival, self._workers)

    def _let_rest(self, seat: Seat, until: float) -> None:
        seat.load.rests = True
        seat.rests_until = until

    def _time_of_change(self, now: float) -> float:
        """When somebody who waits may have a chance although nothing happens."""
        patience = max(self._policy.patience, self._fallback.patience if self._is_told else 0.0)
        times = [seat.rests_until for seat in self._seats.values() if seat.load.rests]
        times += [load.waiting_since + patience for load in self._loads if load.waiting_since is not None]
        return min((time for time in times if time > now), default=math.inf)

    async def _ask_again(self) -> None:
        while True:
            with trio.CancelScope(deadline=self._again_at) as self._timer:
                await trio.sleep_forever()
            self._again_at = math.inf
            self._changed()

    # --- what became of what was given ---

    def taken(self, handed: Handed) -> None:
        """A worker has taken a connection; it is for `Candidate` to say."""
        self._given -= 1
        self._taken += 1
        handed.carrier.close()
        self._changed()

    def refused(self, handed: Handed, seat: Seat) -> None:
        """A worker will not take a connection; it is for `Candidate` to say."""
        self._refused += 1
        self._let_rest(seat, trio.current_time() + _REST)
        self._take_back([handed])

    def lost(self, handed: list[Handed]) -> None:
        """A worker's process has ended before it took these connections; it is for `Candidate` to say."""
        self._moved += len(handed)
        self._take_back(handed)

    def _take_back(self, handed: list[Handed]) -> None:
        self._given -= len(handed)
        if self._is_closed:
            for each in handed:
                each.carrier.close()
            return
        self._line.extendleft(reversed(handed))
        self._changed()

    def close(self) -> None:
        """Close the connections that nobody was given, and hand out no more; at once, and more than once.

        What was given may still be taken. Cancel `run` first.
        """
        self._is_closed = True
        for candidate in list(self._seats):
            self.leave(candidate)
        while self._line:
            self._line.popleft().carrier.close()


class _Trouble:
    """Tells that accepting fails, and that it does so no more: once each, however often it is tried.

    Args:
        where: The address, for people.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._is_told = False
        self._quiet_until = -math.inf
        self._since = 0
        self.failures = 0

    def note(self, error: OSError) -> None:
        """Accepting has failed."""
        self.failures += 1
        self._since += 1
        now = trio.current_time()
        if not self._is_told and now >= self._quiet_until:
            self._is_told = True
            self._quiet_until = now + _QUIET_TIME
            logger.error("cannot accept on %s for now, and goes on trying: %s", self._where, error)

    def note_end(self) -> None:
        """Somebody was accepted."""
        if self._is_told:
            logger.warning("accepts on %s again, after %s failed attempts", self._where, f"{self._since:,}")
            self._is_told = False
        self._since = 0
