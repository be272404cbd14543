"""How many peers a server has, and who of them has to make room for another."""

from __future__ import annotations

import collections
import functools
import itertools
import math
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from pyipc.connection import Connection
    from pyipc.options import Options
    from pyipc.transports.port import Link, Peer

__all__ = ["DatagramSeats", "Seats", "Strangers", "origin_of"]

# After so many seconds whoever means to say who it is has done so, unless this side is very busy.
_LONG: Final = 1.0


class Seats:
    """Counts peers up to the quotas.

    Args:
        options: The quotas.

    Attributes:
        taken: How many peers there are.
    """

    def __init__(self, options: Options) -> None:
        self._limit = options.max_connections
        self._limit_of_origin = options.max_connections_per_peer
        self.taken: int = 0
        self._by_origin: collections.Counter[object] = collections.Counter()

    @property
    def are_full(self) -> bool:
        """Whether there is no room for anybody, wherever it comes from."""
        return self.taken >= self._limit

    def take(self, peer: Peer) -> str | None:
        """Count a peer in, or say why there is no room for it."""
        if self.are_full:
            return f"the server has {self._limit:,} connections already (max_connections)"
        origin = origin_of(peer)
        if origin is not None and self._by_origin[origin] >= self._limit_of_origin:
            count = self._by_origin[origin]
            return f"{origin[0]} {origin[1]} has {count:,} connections already (max_connections_per_peer)"
        self.taken += 1
        if origin is not None:
            self._by_origin[origin] += 1
        return None

    def change(self, before: Peer, now: Peer) -> str | None:
        """Count a peer anew of which more is known now; where there is no room, say why, and count it as before."""
        self.leave(before)
        refusal = self.take(now)
        if refusal is not None:
            self.take(before)  # which was free a moment ago
        return refusal

    def leave(self, peer: Peer) -> None:
        """Count a peer out."""
        self.taken -= 1
        origin = origin_of(peer)
        if origin is not None:
            self._by_origin[origin] -= 1
            if not self._by_origin[origin]:
                del self._by_origin[origin]


class Strangers:
    """Counts those of whom it is not known yet who they are, so that by silence alone nobody takes every seat.

    They have a seat as well, for as long as `handshake_timeout` lets them, or until another needs it after a while: so
    many that come at once are served one after the other, and those who are silent keep nobody out for long. They are
    told apart by where they come from; where that is not known either, as on a pipe of Windows, they all count as one.

    Args:
        options: The quota.
    """

    def __init__(self, options: Options) -> None:
        self._limit_of_origin = options.max_handshakes
        # Of each where it comes from, and since when it is there; oldest first.
        self._origins: dict[Link, tuple[object, float]] = {}
        self._by_origin: collections.Counter[object] = collections.Counter()

    def enter(self, link: Link) -> str | None:
        """Count one in, or say why there is no room for it."""
        origin = origin_of(link.peer)
        count = self._by_origin[origin]
        if count >= self._limit_of_origin:
            who = "peers of unknown origin have" if origin is None else f"{origin[0]} {origin[1]} has"
            return f"{who} {count:,} connections already of which nobody knows who they are (max_handshakes)"
        self._origins[link] = origin, trio.current_time()
        self._by_origin[origin] += 1
        return None

    def overdue(self, peer: Peer) -> Link | None:
        """Who of the same origin has said nothing for longest, if others would have been known long ago."""
        origin = origin_of(peer)
        link, since = next(((link, since) for link, (where, since) in self._origins.items() if where == origin))
        return link if trio.current_time() - since >= _LONG else None

    def leave(self, link: Link) -> None:
        """Count one out: it is known now, or gone. Does nothing for one that is not counted."""
        if link in self._origins:
            origin, _ = self._origins.pop(link)
            self._by_origin[origin] -= 1
            if not self._by_origin[origin]:
                del self._by_origin[origin]


class DatagramSeats:
    """Counts peers over datagrams, apart from all others: anybody can make up any number of them.

    One that has not introduced itself, or not shown that it is where it says, keeps its seat until another needs it.
    The one that was silent for longest goes, and of those who may not even exist before all others; who may not exist
    itself pushes out none but its like.

    Args:
        options: The quotas.
    """

    def __init__(self, options: Options) -> None:
        self._seats = Seats(options)
        # By origin, as one that has its share finds room among its own; the connection, once there is one.
        self._sitting: dict[object, dict[Link, Connection | None]] = {}

    def take(self, link: Link) -> str | None:
        """Count a peer in, pushing out others if need be, or say why there is no room for it."""
        while (refusal := self._seats.take(link.peer)) is not None:
            goes = self._who_goes(link)
            if goes is None:
                return refusal
            other, connection = goes
            self.leave(other)
            _push_out(connection, "a peer that was silent for longer than others had to make room")
        self._sitting.setdefault(origin_of(link.peer), {})[link] = None
        return None

    def seat(self, link: Link, connection: Connection) -> None:
        """Tell which connection a peer that was counted in has."""
        link.tell_forgotten(functools.partial(_push_out, connection))
        self._sitting[origin_of(link.peer)][link] = connection

    def leave(self, link: Link) -> None:
        """Count a peer out. Does nothing for one that was pushed out."""
        origin = origin_of(link.peer)
        sitting = self._sitting.get(origin, {})
        if link in sitting:
            del sitting[link]
            if not sitting:
                del self._sitting[origin]
            self._seats.leave(link.peer)

    def _who_goes(self, newcomer: Link) -> tuple[Link, Connection] | None:
        crowds = self._sitting.values() if self._seats.are_full else [self._sitting[origin_of(newcomer.peer)]]
        return min(
            (
                (link, connection)
                for link, connection in itertools.chain.from_iterable(crowd.items() for crowd in crowds)
                if connection is not None and _is_expendable(connection) and (newcomer.verified or not link.verified)
            ),
            key=lambda one: (one[0].verified, _heard_at(one[1])),
            default=None,
        )


def origin_of(peer: Peer) -> tuple[str, object] | None:
    """What connections of one origin are counted by."""
    if peer.host is not None:
        return "host", peer.host
    if peer.uid is not None:
        return "uid", peer.uid
    return None if peer.sid is None else ("user", peer.sid)


def _is_expendable(connection: Connection) -> bool:
    """Whether it may have to make room: nothing shows that the peer is there, or that it cares."""
    link = connection._link
    return link.expires and not (link.verified and connection._conversation.protocol != "plain")


def _heard_at(connection: Connection) -> float:
    """When something last came from the peer; one that has just come is not counted as silent."""
    return connection._reader.time if connection._running else math.inf


def _push_out(connection: Connection, why: str) -> None:
    """End a connection at once, its handlers too: nobody need be there to hear what they would answer."""
    connection._end("crowded", why, by_peer=False)
    connection._crew.cancel()
