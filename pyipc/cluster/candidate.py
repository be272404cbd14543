"""One worker process as seen by those who hand connections to it: what it was given, what it has taken.

Owns the notes that the worker writes, and the numbers by which both call a connection.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
from typing import TYPE_CHECKING, Protocol

import trio

from pyipc.cluster.policies import Arrival, Load

if TYPE_CHECKING:
    from pyipc.cluster.courier import Carrier, Courier, Header

__all__ = ["Candidate", "Condition", "Handed", "Hander", "Seat"]

logger: logging.Logger = logging.getLogger("pyipc.cluster")


class Condition(Protocol):
    """How a worker process is doing, as of now: a `pyipc.cluster.process.WorkerProcess`."""

    @property
    def in_flight(self) -> int:
        """Requests and jobs of the primary that it works on."""
        ...

    @property
    def lag(self) -> float:
        """Seconds by which its event loop was late when it was last heard of."""
        ...


class Hander(Protocol):
    """Who gives connections, and hears what became of them: a `pyipc.cluster.handing.Handing`."""

    name: str

    def leave(self, candidate: Candidate) -> None:
        """The candidate has ended, and can be given no more."""

    def taken(self, handed: Handed) -> None:
        """A worker has taken a connection, and will serve it."""

    def refused(self, handed: Handed, seat: Seat) -> None:
        """A worker would not take a connection."""

    def lost(self, handed: list[Handed]) -> None:
        """A worker's process has ended before it took these, in the order in which they were given."""


@dataclasses.dataclass(slots=True, eq=False)
class Handed:
    """A connection that is to be handed over, or was.

    Attributes:
        carrier: The primary's own copy, open until a worker has taken the connection.
        arrival: What policies are told about it.
        given_at: When it was given to somebody, in trio's time.
    """

    carrier: Carrier
    arrival: Arrival
    given_at: float = 0.0


@dataclasses.dataclass(slots=True, eq=False)
class Seat:
    """The place of a candidate among those who get the connections of one address.

    Attributes:
        candidate: Whose.
        hander: Who gives the connections.
        load: How the candidate is doing, for policies.
        given: What it was given and has not taken, by number; the oldest first.
        rests_until: Until when it is given nothing, if its load says that it rests.
    """

    candidate: Candidate
    hander: Hander
    load: Load
    given: dict[int, Handed] = dataclasses.field(default_factory=dict)
    rests_until: float = 0.0

    def look(self) -> None:
        """See how the candidate is doing, for who is about to choose."""
        self.load.in_flight = self.candidate.condition.in_flight
        self.load.lag = self.candidate.condition.lag

    def add(self, number: int, handed: Handed, now: float) -> None:
        """It was given a connection."""
        handed.given_at = now
        self.given[number] = handed
        self._count()

    def remove(self, number: int) -> Handed:
        """It has taken a connection, or will not."""
        handed = self.given.pop(number)
        self._count()
        return handed

    def _count(self) -> None:
        self.load.unacked = len(self.given)
        self.load.waiting_since = next(iter(self.given.values())).given_at if self.given else None


class Candidate:
    """A worker process that can be handed connections, of any number of addresses.

    Args:
        courier: What carries them; it belongs to the candidate from here on.
        condition: How the process is doing.
        worker: The id of the worker.
        role: Its role.
    """

    def __init__(self, courier: Courier, condition: Condition, *, worker: str, role: str = "") -> None:
        self._courier = courier
        self.condition: Condition = condition
        self.worker: str = worker
        self.role: str = role
        self._numbers = itertools.count(1)
        self._seats: list[Seat] = []
        self._given: dict[int, Seat] = {}
        self._open: set[int] = set()
        self._is_over = False

    def __repr__(self) -> str:
        state = "over" if self._is_over else f"open: {len(self._open)}, given: {len(self._given)}"
        return f"<Candidate {self.worker!r}, {state}>"

    @property
    def is_over(self) -> bool:
        """Whether its process has ended."""
        return self._is_over

    @property
    def open_connections(self) -> int:
        """How many connections it has taken that are open there."""
        return len(self._open)

    # --- for those who hand over ---

    def sit(self, hander: Hander, limit: int) -> Seat:
        """A place among those who get the connections of one address.

        Args:
            hander: Who gives them.
            limit: How many it may have been given and not taken.
        """
        seat = Seat(self, hander, Load(worker=self.worker, role=self.role, open=len(self._open), limit=limit))
        self._seats.append(seat)
        return seat

    def stand_up(self, seat: Seat) -> None:
        """Give up a place. What was given may still be taken."""
        self._seats.remove(seat)

    def give(self, seat: Seat, handed: Handed, now: float) -> None:
        """Send a connection to the process.

        Raises:
            trio.WouldBlock: There is no room now.
            trio.BrokenResourceError, trio.ClosedResourceError: The process is gone; `run` is about to find out.
        """
        number = next(self._numbers)
        self._courier.send_nowait({"claim": seat.hander.name, "number": number}, handed.carrier)
        self._given[number] = seat
        seat.add(number, handed, now)

    # --- what the worker writes ---

    async def run(self) -> None:
        """Read what the worker writes until its process has ended, and then let others have what it has not taken.

        Cancellation: nothing is decided about what it was given, until `close`.
        """
        try:
            while True:
                self._note(await self._courier.receive())
        except (trio.EndOfChannel, trio.ClosedResourceError):
            self._end()

    def _note(self, header: Header) -> None:
        match header:
            case {"taken": int(number)} if (seat := self._given.pop(number, None)) is not None:
                handed = seat.remove(number)
                self._open.add(number)
                self._count_open()
                seat.hander.taken(handed)
            case {"refused": [*numbers]}:
                for number in numbers:
                    if isinstance(number, int) and (seat := self._given.pop(number, None)) is not None:
                        seat.hander.refused(seat.remove(number), seat)
            case {"closed": [*numbers]}:
                self._open.difference_update(number for number in numbers if isinstance(number, int))
                self._count_open()
            case _:
                logger.error("worker %r has written a note that means nothing: %s", self.worker, sorted(header))

    def _count_open(self) -> None:
        for seat in self._seats:
            seat.load.open = len(self._open)

    def close(self) -> None:
        """Close the courier, once the process has ended or must not matter any more; more than once does nothing.

        What it has not taken, as far as `run` has read, goes to others.
        """
        self._courier.close()
        self._end()

    def _end(self) -> None:
        self._is_over = True
        self._open.clear()
        for seat in list(self._seats):
            seat.hander.leave(self)
        given, self._given = self._given, {}
        lost: dict[Hander, list[Handed]] = {}
        for number, seat in given.items():
            lost.setdefault(seat.hander, []).append(seat.remove(number))
        for hander, handed in lost.items():
            hander.lost(handed)
