"""What a receiver remembers of events that are to be confirmed: which are being handled, and how the others ended.

A sender that loses its connection cannot know whether its last events were handled, so it sends them again. The
receiver recognizes them by their numbers: those of a session, which outlives its connections, or of one connection.
"""

from __future__ import annotations

import collections
import enum
import secrets
import weakref
from typing import TYPE_CHECKING, Any, Final

import trio

from pyipc.protocol.conversation import SessionTerms

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyipc.connection import Connection
    from pyipc.options import Options
    from pyipc.timers import Timer, Timers
    from pyipc.transports.port import Peer

__all__ = ["HANDLED", "MAX_OUTCOMES_SIZE", "Receipts", "Session", "Sessions", "Standing", "Verdict"]

#: How an event ended: a code, which is empty where it was handled, a message, and data of the handler's, encoded.
Verdict = tuple[str, str, bytes | None]
#: How most of them end. One for all, as there may be many.
HANDLED: Final[Verdict] = ("", "", None)
#: Bytes of messages and data of outcomes that are kept for one sender. Beyond it an outcome is only a code.
MAX_OUTCOMES_SIZE: Final = 256 * 1024
# What has never held anything: a deque takes most of a kilobyte as soon as it is made. This one stays empty.
_NO_NUMBERS: collections.deque[int] = collections.deque(maxlen=0)
# Of sessions without a connection there may be many, but not with many numbers each.
_MAX_IDLE_NUMBERS = 1_000_000
# Nor with many bytes in all; beyond it outcomes of those that leave are only codes.
_MAX_IDLE_SIZE = 16 * 1024 * 1024
# Identities whose terms are kept ready, so that idle connections of one user share them.
_MAX_TERMS = 1_024
# Who a peer is, and under which name it wants to be remembered.
_Key = tuple[Any, str]


class Standing(enum.Enum):
    """What is known of a number, if not how it ended."""

    NEW = "new"
    RUNNING = "running"
    FORGOTTEN = "forgotten"


class Receipts:
    """The numbers of one sender, none of which is much above its lowest: whoever lets them in has checked that.

    Attributes:
        lowest: Numbers below are forgotten; the sender does not want to know of them any more.
        size: Bytes of messages and data that are kept.
    """

    __slots__ = ("_changed", "_numbers", "_order", "lowest", "size")

    def __init__(self) -> None:
        self._numbers: dict[int, Verdict | None] = {}
        # The same numbers as they came: to look for the first one in a dictionary takes as long as it has lost entries.
        self._order: collections.deque[int] = _NO_NUMBERS
        self._changed: trio.lowlevel.ParkingLot | None = None
        self.lowest: int = 0
        self.size: int = 0

    def __len__(self) -> int:
        return len(self._numbers)

    def look(self, number: int, lowest: int) -> Standing | Verdict:
        """What is known of a number.

        Args:
            number: Of an event that has arrived.
            lowest: The lowest that the sender may still want to know of, as it came with the event.
        """
        if lowest > self.lowest:
            self._forget_below(lowest)
        if number < self.lowest:
            return Standing.FORGOTTEN
        try:
            verdict = self._numbers[number]
        except KeyError:
            return Standing.NEW
        return Standing.RUNNING if verdict is None else verdict

    def begin(self, number: int) -> None:
        """A number that is `NEW` is being handled from now on."""
        self._numbers[number] = None
        if self._order is _NO_NUMBERS:
            self._order = collections.deque()
        self._order.append(number)

    def settle(self, number: int, verdict: Verdict) -> Verdict:
        """Note how a number ended; say what is kept of that, and may be told."""
        _, message, data = verdict
        size = len(message) + len(data or b"")
        if self.size + size > MAX_OUTCOMES_SIZE:
            verdict, size = (verdict[0], "", None), 0
        if number in self._numbers:  # else it was forgotten meanwhile
            self._numbers[number] = verdict
            self.size += size
        self.wake()
        return verdict

    def shorten(self) -> None:
        """Keep of outcomes no more than their codes."""
        self.size = 0
        for number, verdict in self._numbers.items():
            if verdict is not None and (verdict[1] or verdict[2]):
                self._numbers[number] = (verdict[0], "", None)

    def _forget_below(self, lowest: int) -> None:
        self.lowest = lowest
        numbers = self._numbers
        # They are in the order in which they came, which is theirs. A peer that keeps to no order gains nothing: what
        # hides behind a higher number is forgotten with that one, and until then it is not answered either.
        order = self._order
        while order and order[0] < lowest:
            verdict = numbers.pop(order.popleft())
            if verdict is not None:
                self.size -= len(verdict[1]) + len(verdict[2] or b"")

    @property
    def is_busy(self) -> bool:
        """Whether an event is being handled."""
        return None in self._numbers.values()

    def is_superseded(self, connection: Connection) -> bool:
        """Whether all that is left of a connection's events comes again over another, or already has."""
        return False

    async def wait_for_change(self) -> None:
        """Wait until something has ended, or a connection.

        Cancellation: changes nothing.
        """
        if self._changed is None:
            self._changed = trio.lowlevel.ParkingLot()
        await self._changed.park()

    def wake(self) -> None:
        """Let those who wait look again."""
        if self._changed is not None:
            self._changed.unpark_all()


class Session(Receipts):
    """The numbers of a client that comes back.

    Args:
        key: By what it is found.
        resized: Called with it when it has become larger or smaller while it has no connection.

    Attributes:
        key: By what it is found.
        incarnation: Another text for each, also where they are found by the same.
        connections: Those that it has now.
    """

    __slots__ = ("_newest", "_resized", "connections", "incarnation", "key")

    def __init__(self, key: _Key, resized: Callable[[Session], None]) -> None:
        super().__init__()
        self._resized = resized
        self.key: _Key = key
        self.incarnation: str = secrets.token_hex(16)
        self.connections: list[Connection] = []
        # What has ended is not to be kept for as long as a session is.
        self._newest: weakref.ref[Connection] | None = None

    def join(self, connection: Connection) -> None:
        """Another connection belongs to it."""
        self.connections.append(connection)
        self._newest = weakref.ref(connection)
        self.wake()

    def settle(self, number: int, verdict: Verdict) -> Verdict:
        """Note how a number ended; say what is kept of that, and may be told."""
        verdict = super().settle(number, verdict)
        if not self.connections:
            self._resized(self)
        return verdict

    def is_superseded(self, connection: Connection) -> bool:
        """Whether all that is left of a connection's events comes again over another, or already has."""
        if connection in self.connections:
            return False
        return self._newest is not None and self._newest() is not connection


class Sessions:
    """The sessions of one server.

    Args:
        options: How many, and for how long.
        timers: The server's clock.

    Attributes:
        instance: What tells this server from the one that it will be when it is started again.
        duplicates: Events that came again and were recognized.
        redelivered: Events that came again from before this server was started.
    """

    def __init__(self, options: Options, timers: Timers) -> None:
        self._options = options
        self._timers = timers
        self._sessions: dict[_Key, Session] = {}
        # Those without a connection: when each is to be forgotten, the next one first; how many numbers it had when its
        # last connection had ended, and how many bytes it counts for.
        self._idle: dict[_Key, tuple[float, int, int]] = {}
        self._idle_numbers = 0
        self._idle_size = 0
        # How many of them each peer has, and how many of their numbers.
        self._sessions_of: collections.Counter[object] = collections.Counter()
        self._numbers_of: collections.Counter[object] = collections.Counter()
        self._terms: dict[object, SessionTerms] = {}
        self._timer: Timer | None = None
        self.instance: str = secrets.token_hex(16)
        self.duplicates: int = 0
        self.redelivered: int = 0

    def __len__(self) -> int:
        return len(self._sessions)

    def terms_for(self, peer: Peer) -> SessionTerms:
        """What a peer is told about being remembered."""
        identity = identity_of(peer)
        terms = self._terms.get(identity)
        if terms is None:
            if len(self._terms) >= _MAX_TERMS:
                self._terms.clear()
            terms = SessionTerms(
                self.instance, self._options.session_timeout, lambda name: self._open((identity, name)).incarnation
            )
            self._terms[identity] = terms
        return terms

    def _open(self, key: _Key) -> Session:
        """The session of a peer that is about to enter it; until then it is one without a connection."""
        session = self._sessions.get(key)
        if session is None:
            session = self._sessions[key] = Session(key, self._recount)
        if not session.connections:
            self._idle_for_now(session)
        return session

    def enter(self, connection: Connection, name: str, incarnation: str) -> None:
        """A connection has said which session it belongs to, and was told what that is called here."""
        key = (identity_of(connection._link.peer), name)
        session = self._sessions.get(key)
        if session is None or session.incarnation != incarnation:
            # What its peer sends again, in the belief that it is remembered, would be handled twice.
            connection.abort("session", "the session was forgotten before it was entered")
            return
        self._take_from_idle(key)
        connection._receipts = session
        session.join(connection)

    def leave(self, connection: Connection) -> None:
        """A connection has ended. May be called more than once."""
        session = connection._receipts
        if not isinstance(session, Session) or connection not in session.connections:
            return
        session.connections.remove(connection)
        session.wake()
        if session.connections or self._sessions.get(session.key) is not session:
            return
        self._idle_for_now(session)

    def _idle_for_now(self, session: Session) -> None:
        """A session has no connection from now on."""
        self._take_from_idle(session.key)
        self._idle[session.key] = (trio.current_time() + self._options.session_timeout, len(session), 0)
        self._idle_numbers += len(session)
        self._sessions_of[session.key[0]] += 1
        self._numbers_of[session.key[0]] += len(session)
        self._recount(session)
        while len(self._idle) > self._options.max_sessions:
            self._forget_one_of(self._sessions_of)
        while self._idle_numbers > _MAX_IDLE_NUMBERS and len(self._idle) > 1:
            self._forget_one_of(self._numbers_of)
        self._forget_later()

    def _recount(self, session: Session) -> None:
        """Count what a session without a connection keeps, and make it keep less if that is too much."""
        if self._sessions.get(session.key) is not session:
            return
        expires, numbers, counted = self._idle[session.key]
        self._idle_size -= counted
        if self._idle_size + session.size > _MAX_IDLE_SIZE:
            session.shorten()
        self._idle[session.key] = expires, numbers, session.size
        self._idle_size += session.size

    def _take_from_idle(self, key: _Key) -> None:
        if key not in self._idle:
            return
        identity = key[0]
        _, numbers, size = self._idle.pop(key)
        self._idle_numbers -= numbers
        self._idle_size -= size
        self._sessions_of[identity] -= 1
        self._numbers_of[identity] -= numbers
        if not self._sessions_of[identity]:
            del self._sessions_of[identity], self._numbers_of[identity]

    def _forget_one_of(self, shares: collections.Counter[object]) -> None:
        """Forget the oldest session of the peer that has most of what there is too much of: others pay for nobody."""
        greediest = max(shares, key=shares.__getitem__)
        self._forget(next(key for key in self._idle if key[0] == greediest))

    def _forget(self, key: _Key) -> None:
        self._take_from_idle(key)
        del self._sessions[key]

    def _forget_later(self) -> None:
        if self._timer is None and self._idle:
            self._timer = self._timers.call_at(next(iter(self._idle.values()))[0], self._expire)

    def _expire(self, late: float) -> None:
        self._timer = None
        now = trio.current_time()
        while self._idle and next(iter(self._idle.values()))[0] <= now:
            self._forget(next(iter(self._idle)))
        self._forget_later()


def identity_of(peer: Peer) -> Any:
    """Who a peer is, as the kernel or TLS tells: what it must have in common with whom it was before."""
    if peer.certificate is not None:
        return peer.certificate.names or peer.certificate.fingerprint
    if peer.sid is not None:
        return peer.sid
    if peer.uid is not None:
        return peer.uid
    return (peer.host, None if peer.host is not None else peer.address)
