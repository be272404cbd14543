"""Which worker an accepted connection is handed to.

Pure: a policy is told what has arrived and how the workers are doing, and answers with one of them. It touches no
socket and no clock; `handing` does, and asks again whenever something has changed.

::

    Cluster("app:main", workers=4, policy="least-loaded")
    Cluster("app:main", workers=4, policy=Sticky(key=lambda arrival: arrival.peer.host or ""))
    Cluster("app:main", workers=4, policy=lambda arrival, workers: min(workers, key=lambda load: load.lag))
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from pyipc.transports import Peer

__all__ = [
    "Arrival",
    "LeastLoaded",
    "Load",
    "Policy",
    "PolicyFunction",
    "ReusePort",
    "RoundRobin",
    "Shared",
    "Sticky",
    "policy_from",
]

# How many turns a worker that was passed over may catch up with. Enough for a hiccup during a burst, and no flood for
# one that was stopped for minutes.
_MAX_CREDIT: Final = 32


@dataclasses.dataclass(slots=True, eq=False)
class Arrival:
    """A connection that was accepted and is to be handed to a worker. To be read; `handing` keeps it.

    Attributes:
        address: What it was accepted on, such as ``"tcp://127.0.0.1:8000"``.
        peer: Who is on the other side: its `host` over the network, its `pid` and `uid` on a Unix socket.
        first_bytes: What the peer has sent first, if the policy has a `peek_size`.
        now: When this is asked, in seconds of the clock of `Load.waiting_since`.
    """

    address: str
    peer: Peer
    first_bytes: bytes = b""
    now: float = 0.0


@dataclasses.dataclass(slots=True, eq=False)
class Load:
    """How a worker is doing: one process of it, for the connections of one address. To be read; `handing` keeps it.

    All of it is as of now when a policy is asked. That `in_flight` or `lag` has changed is no reason to ask it again.

    Attributes:
        worker: The id of the worker. While it is reloaded, two processes have the same.
        role: Its role.
        open: Connections that were handed to it, over all addresses, and are open there.
        unacked: Connections of this address that it was given and has not taken yet.
        limit: How many of those there may be.
        waiting_since: When it was given the oldest of those; ``None`` if there is none.
        in_flight: Requests and jobs of the primary that it works on.
        lag: Seconds by which its event loop was late when it was last heard of.
        rests: Whether it has just refused one, and is given none for a moment.
        turns: How many turns it has had, as round robin counts.
    """

    worker: str
    role: str = ""
    open: int = 0
    unacked: int = 0
    limit: int = 4
    waiting_since: float | None = None
    in_flight: int = 0
    lag: float = 0.0
    rests: bool = False
    turns: int = 0

    @property
    def has_room(self) -> bool:
        """Whether it can be given one more now."""
        return self.unacked < self.limit and not self.rests


class Policy(ABC):
    """Chooses the worker for a connection.

    Attributes:
        patience: Seconds since it was given its oldest connection for which a worker without room may be waited for.
            Whoever returns ``None`` for longer than that is asked again only when something changes.
        peek_size: How many of the first bytes it wants to see, at most; 0 for none.
        peek_timeout: Seconds to wait for them. Who sends nothing for so long is chosen for without.
        depends_on_arrival: Whether it matters which connection it is. If not, nobody behind one that has to wait is
            asked for.
    """

    patience: float = 0.0
    peek_size: int = 0
    peek_timeout: float = 1.0
    depends_on_arrival: bool = True

    @abstractmethod
    def choose(self, arrival: Arrival, workers: Sequence[Load]) -> Load | None:
        """The worker that gets a connection.

        Args:
            arrival: The connection.
            workers: Whom it can be handed to, at least one; those that joined first come first.

        Returns:
            One of ``workers``, or ``None`` to wait until something has changed. If the one has no room, the connection
            waits as well.
        """


PolicyFunction: TypeAlias = Callable[[Arrival, Sequence[Load]], "Load | None"]


class RoundRobin(Policy):
    """Each worker in turn.

    The turn of a worker without room is waited for, so that a burst is shared as evenly as what trickles in; but only
    until its oldest connection has waited for ``patience``. From then on it is passed over until it takes that one,
    and catches up afterwards, within limits. So a blocked worker costs the others one patience, once.

    Args:
        patience: Seconds.
    """

    depends_on_arrival = False

    def __init__(self, *, patience: float = 0.1) -> None:
        if not patience >= 0:
            raise ValueError(f"patience must be 0 s or more, not {patience!r}")
        self.patience = patience

    def __repr__(self) -> str:
        return f"RoundRobin(patience={self.patience:g})"

    def choose(self, arrival: Arrival, workers: Sequence[Load]) -> Load | None:
        """The worker that has had the fewest turns, of those that are not passed over."""
        floor = max(load.turns for load in workers) - _MAX_CREDIT
        chosen: Load | None = None
        for load in workers:
            if load.turns < floor:
                load.turns = floor
            if (chosen is None or load.turns < chosen.turns) and (load.has_room or self._waits_for(load, arrival.now)):
                chosen = load
        if chosen is None or not chosen.has_room:
            return None
        chosen.turns += 1
        return chosen

    def _waits_for(self, load: Load, now: float) -> bool:
        since = load.waiting_since
        return since is not None and not load.rests and now < since + self.patience


class LeastLoaded(Policy):
    """The worker with the least to do: connections that it has or is about to take, requests and jobs.

    A slow worker holds its connections for longer, and so gets fewer. Among equals they take turns.
    """

    depends_on_arrival = False

    def __repr__(self) -> str:
        return "LeastLoaded()"

    def choose(self, arrival: Arrival, workers: Sequence[Load]) -> Load | None:
        """The least loaded of those that have room."""
        chosen = min((load for load in workers if load.has_room), key=_weight, default=None)
        if chosen is not None:
            chosen.turns += 1
        return chosen


def _weight(load: Load) -> tuple[int, int]:
    return load.open + load.unacked + load.in_flight, load.turns


class Sticky(Policy):
    """Connections of one key go to one worker, for as long as that worker lives.

    Which worker a key went to is remembered by the worker's id, and so outlives its reload. When a worker is gone, its
    keys move to others, each where its hash says, and stay there; nothing moves because workers are added or come back.
    A connection whose worker has no room waits for it.

    Args:
        key: What connections have in common that belong together, found out from an `Arrival`. By default the host of
            the peer, or its user and process on a Unix socket.
        max_keys: How many keys are remembered; the one that was not used for longest is forgotten first. It goes to
            another worker then only if its hash says so.
        peek_size: How many of the first bytes ``key`` is to see in `Arrival.first_bytes`, at most.
        peek_timeout: Seconds to wait for them.
    """

    def __init__(
        self,
        *,
        key: Callable[[Arrival], str | bytes] | None = None,
        max_keys: int = 65_536,
        peek_size: int = 0,
        peek_timeout: float = 1.0,
    ) -> None:
        if key is not None and not callable(key):
            raise TypeError(f"key must be a function of an Arrival, not {key!r}")
        if max_keys < 1 or peek_size < 0 or not peek_timeout >= 0:
            raise ValueError("max_keys must be 1 or more, peek_size and peek_timeout 0 or more")
        self._key = key or _who
        self._max_keys = max_keys
        self._workers: collections.OrderedDict[bytes, str] = collections.OrderedDict()
        self.peek_size = peek_size
        self.peek_timeout = peek_timeout

    def __repr__(self) -> str:
        return f"<Sticky, keys: {len(self._workers)} of {self._max_keys}>"

    def choose(self, arrival: Arrival, workers: Sequence[Load]) -> Load | None:
        """The worker of the arrival's key."""
        found = self._key(arrival)
        if not isinstance(found, str | bytes):
            raise TypeError(f"the key of a connection must be str or bytes, not {type(found).__name__}")
        # Long keys are kept as hashes, so that peers do not decide how much is remembered.
        text = found.encode("utf-8", "surrogatepass") if isinstance(found, str) else found
        key = hashlib.blake2b(text, digest_size=16).digest()
        load = self._of(self._workers.get(key), workers)
        if load is None:
            load = max(workers, key=lambda load: _rank(key, load.worker))
            # The latest process of that worker, if there are two.
            load = self._of(load.worker, workers)
            assert load is not None
            self._workers[key] = load.worker
            if len(self._workers) > self._max_keys:
                self._workers.popitem(last=False)
        self._workers.move_to_end(key)
        return load if load.has_room else None

    @staticmethod
    def _of(worker: str | None, workers: Sequence[Load]) -> Load | None:
        return next((load for load in reversed(workers) if load.worker == worker), None)


def _who(arrival: Arrival) -> str:
    peer = arrival.peer
    return peer.host if peer.host is not None else f"{peer.uid}/{peer.pid}"


def _rank(key: bytes, worker: str) -> bytes:
    return hashlib.blake2b(worker.encode("utf-8", "surrogatepass"), key=key, digest_size=8).digest()


@dataclasses.dataclass(frozen=True)
class Shared:
    """No choosing: each worker gets the listening socket itself, and the kernel wakes whom it likes."""


@dataclasses.dataclass(frozen=True)
class ReusePort:
    """No choosing: each worker listens by itself with SO_REUSEPORT, and the kernel spreads by a hash.

    What waits for a worker that ends is reset by the kernel.
    """


class _Function(Policy):
    """A plain function as a policy."""

    def __init__(self, function: PolicyFunction) -> None:
        self._function = function

    def __repr__(self) -> str:
        return f"<policy {self._function!r}>"

    def choose(self, arrival: Arrival, workers: Sequence[Load]) -> Load | None:
        return self._function(arrival, workers)


_NAMED: Final[dict[str, Callable[[], Policy | Shared | ReusePort]]] = {
    "round-robin": RoundRobin,
    "least-loaded": LeastLoaded,
    "sticky": Sticky,
    "shared": Shared,
    "reuse-port": ReusePort,
}


def policy_from(policy: str | Policy | Shared | ReusePort | PolicyFunction) -> Policy | Shared | ReusePort:
    """A policy from its name, from a function, or as it is.

    Args:
        policy: ``"round-robin"``, ``"least-loaded"``, ``"sticky"``, ``"shared"``, ``"reuse-port"``; a policy; or a
            function of an `Arrival` and the `Load` of each worker that returns one of those, or ``None`` to wait.

    Raises:
        ValueError: There is no policy of that name.
        TypeError: That is no policy.
    """
    if isinstance(policy, str):
        if policy not in _NAMED:
            raise ValueError(f"there is no policy {policy!r}; there are {', '.join(map(repr, _NAMED))}, or a function")
        return _NAMED[policy]()
    if isinstance(policy, Policy | Shared | ReusePort):
        return policy
    if isinstance(policy, type) or not callable(policy):
        raise TypeError(
            f"a policy is a name such as 'round-robin', an instance of Policy, or a function of (arrival, workers); "
            f"not {policy!r}"
        )
    if inspect.iscoroutinefunction(policy):
        raise TypeError(f"a policy decides at once, in a plain function; {policy!r} is an async one")
    return _Function(policy)
