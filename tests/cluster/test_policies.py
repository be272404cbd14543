"""Who gets a connection, with workers that are made up: fair, patient, sticky, and never stuck."""

from __future__ import annotations

import collections
import heapq
import random
from typing import TYPE_CHECKING

import pytest

from pyipc.cluster.policies import (
    Arrival,
    LeastLoaded,
    Load,
    Policy,
    ReusePort,
    RoundRobin,
    Shared,
    Sticky,
    policy_from,
)
from pyipc.transports import Peer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

NAMES = ["a", "b", "c", "d"]


def arrival(host: str = "127.0.0.1", now: float = 0.0) -> Arrival:
    return Arrival("tcp://127.0.0.1:1", Peer(address=f"tcp://{host}:1", host=host), now=now)


def loads(*names: str, limit: int = 4) -> list[Load]:
    return [Load(name, limit=limit) for name in names]


class Simulation:
    """Workers that take connections after a while and have them open for a while; time passes as it is told.

    Args:
        policy: Who chooses.
        take_after: Seconds until a worker takes a connection that it was given.
        open_for: Seconds for which the connection is open then.
    """

    def __init__(
        self,
        policy: Policy,
        workers: Sequence[Load],
        take_after: Callable[[Load], float],
        open_for: Callable[[Load], float] = lambda load: 1e9,
    ) -> None:
        self.policy = policy
        self.workers = list(workers)
        self.take_after = take_after
        self.open_for = open_for
        self.now = 0.0
        self.line: collections.deque[Arrival] = collections.deque()
        self.given: collections.Counter[str] = collections.Counter()
        self.unacked: dict[Load, list[float]] = {load: [] for load in workers}
        self.most_unacked: collections.Counter[str] = collections.Counter()
        self.events: list[tuple[float, int, str, Load]] = []
        self.order: list[str] = []

    def hand_out(self) -> None:
        while self.line:
            self.line[0].now = self.now
            load = self.policy.choose(self.line[0], self.workers)
            if load is None or not load.has_room:
                return
            self.line.popleft()
            self.given[load.worker] += 1
            self.order.append(load.worker)
            self.unacked[load].append(self.now)
            self._count(load)
            self._later(self.take_after(load), "taken", load)

    def _count(self, load: Load) -> None:
        load.unacked = len(self.unacked[load])
        load.waiting_since = self.unacked[load][0] if load.unacked else None
        self.most_unacked[load.worker] = max(self.most_unacked[load.worker], load.unacked)

    def _later(self, delay: float, what: str, load: Load) -> None:
        if delay < 1e6:
            heapq.heappush(self.events, (self.now + delay, len(self.order), what, load))

    def until(self, time: float) -> None:
        """Let time pass."""
        while True:
            patience = [load.waiting_since + self.policy.patience for load in self.workers if load.waiting_since]
            times = [each for each in patience if each > self.now] if self.line else []
            times += [self.events[0][0]] if self.events else []
            if not times or min(times) > time:
                break
            self.now = min(times)
            while self.events and self.events[0][0] <= self.now:
                _, _, what, load = heapq.heappop(self.events)
                if what == "taken":
                    self.unacked[load].pop(0)
                    self._count(load)
                    load.open += 1
                    self._later(self.open_for(load), "closed", load)
                else:
                    load.open -= 1
                    self.closed(load)
            self.hand_out()
        self.now = time

    def closed(self, load: Load) -> None:
        """A connection has ended."""


# --- round robin ---


@pytest.mark.parametrize("seed", range(100))
def test_round_robin_shares_400_connections_evenly_in_a_burst_and_as_a_trickle(seed: int) -> None:
    chance = random.Random(seed)
    burst = chance.choice([True, False])
    count = chance.choice([2, 3, 4, 4, 4, 16])

    def take_after(load: Load) -> float:
        # Some are slow now and then, by more than it is patient for; they catch up with what they have missed.
        is_late = sum(simulation.given.values()) < 300 and chance.random() < 0.05
        return 0.15 if is_late else chance.choice([0.0001, 0.002, 0.03])

    simulation = Simulation(RoundRobin(), loads(*(f"w{number}" for number in range(count))), take_after)
    for _ in range(400):
        simulation.line.append(arrival())
        simulation.hand_out()
        if not burst:
            simulation.until(simulation.now + chance.expovariate(1000))
    simulation.until(1000)
    assert sum(simulation.given.values()) == 400
    assert all(abs(given - 400 / count) <= 1 for given in simulation.given.values()), simulation.given


def test_round_robin_takes_strict_turns() -> None:
    simulation = Simulation(RoundRobin(), loads(*NAMES), take_after=lambda _: 0.001)
    for _ in range(40):
        simulation.line.append(arrival())
        simulation.hand_out()
        simulation.until(simulation.now + 0.01)
    assert simulation.order == NAMES * 10


def test_a_blocked_worker_costs_one_patience_and_holds_its_limit() -> None:
    blocked, *others = workers = loads(*NAMES)
    simulation = Simulation(RoundRobin(), workers, take_after=lambda load: 1e9 if load is blocked else 0.001)
    simulation.line.extend(arrival() for _ in range(400))
    simulation.now = 1.0
    simulation.hand_out()
    simulation.until(1.09)
    assert simulation.given == dict.fromkeys(NAMES, 4)  # its turn is waited for
    simulation.until(1.2)  # 0.1 s of patience, and what the others take
    assert simulation.given["a"] == 4
    assert [simulation.given[load.worker] for load in others] == [132] * 3
    # It wakes up, and catches up, but not with all that it has missed.
    simulation.unacked[blocked].clear()
    simulation._count(blocked)
    simulation.take_after = lambda _: 0.001
    simulation.line.extend(arrival() for _ in range(100))
    simulation.hand_out()
    simulation.until(3)
    assert 25 + 32 - 8 <= simulation.given["a"] - 4 <= 25 + 32
    assert max(simulation.given[load.worker] for load in others) - min(simulation.given[x.worker] for x in others) <= 1


def test_round_robin_waits_when_all_are_full_and_passes_over_who_rests() -> None:
    policy, workers = RoundRobin(), loads("a", "b", limit=1)
    workers[0].rests = True
    assert policy.choose(arrival(), workers) is workers[1]
    workers[1].unacked, workers[1].waiting_since = 1, 0.0
    assert policy.choose(arrival(now=0.05), workers) is None
    assert policy.choose(arrival(now=5.0), workers) is None


def test_patience_is_checked() -> None:
    with pytest.raises(ValueError, match="patience"):
        RoundRobin(patience=-1)
    with pytest.raises(ValueError, match="patience"):
        RoundRobin(patience=float("nan"))


# --- least loaded ---


class Clients(Simulation):
    """As many clients as there are, each of which comes back as soon as it was served."""

    def closed(self, load: Load) -> None:
        self.line.append(arrival())


@pytest.mark.parametrize("seed", range(20))
def test_a_slower_worker_gets_less_than_half_its_share(seed: int) -> None:
    chance = random.Random(seed)
    slow, *_ = workers = loads(*NAMES)
    speed = {load: 0.1 if load is slow else 0.01 for load in workers}
    simulation = Clients(
        LeastLoaded(),
        workers,
        take_after=lambda load: speed[load] * chance.random() / 10,
        open_for=lambda load: chance.expovariate(1 / speed[load]),
    )
    simulation.line.extend(arrival() for _ in range(chance.choice([8, 20, 60])))
    simulation.hand_out()
    simulation.until(8)
    assert sum(simulation.given.values()) > 1_000
    assert simulation.given["a"] < sum(simulation.given.values()) / 4 / 2


def test_least_loaded_counts_all_that_a_worker_has_to_do_and_takes_turns_among_equals() -> None:
    policy, workers = LeastLoaded(), loads(*NAMES)
    assert [chosen.worker for _ in range(8) if (chosen := policy.choose(arrival(), workers))] == NAMES * 2
    workers[0].open, workers[1].unacked, workers[2].in_flight, workers[3].open = 2, 1, 2, 2
    assert policy.choose(arrival(), workers) is workers[1]
    workers[1].rests = True
    for load in workers:
        load.unacked = load.limit
    assert policy.choose(arrival(), workers) is None


@pytest.mark.parametrize("policy", [RoundRobin(), LeastLoaded(), Sticky()])
def test_a_blocked_worker_holds_at_most_its_limit(policy: Policy) -> None:
    chance = random.Random(1)
    blocked, *_ = workers = loads(*(f"w{number}" for number in range(7)))
    simulation = Simulation(
        policy,
        workers,
        take_after=lambda load: 1e9 if load is blocked else chance.random() / 50,
        open_for=lambda _: chance.random() / 10,
    )
    for _ in range(500):
        simulation.line.append(arrival(f"10.0.0.{chance.randrange(250)}"))
        simulation.hand_out()
        simulation.until(simulation.now + 0.002)
    assert max(simulation.most_unacked.values()) <= 4
    assert simulation.given["w0"] <= 4


# --- sticky ---


def places(policy: Sticky, workers: Sequence[Load], keys: int = 1_000) -> dict[str, str]:
    found = {}
    for number in range(keys):
        chosen = policy.choose(arrival(f"host-{number}"), workers)
        assert chosen is not None
        found[f"host-{number}"] = chosen.worker
    return found


@pytest.mark.parametrize("seed", range(10))
def test_no_key_moves_while_its_worker_lives_and_only_those_of_a_dead_one_do(seed: int) -> None:
    chance = random.Random(seed)
    policy, workers = Sticky(), loads(*(f"{seed}-{number}" for number in range(4)))
    before = places(policy, workers)
    assert all(150 < count < 350 for count in collections.Counter(before.values()).values())  # spread, by a hash
    for round in range(10):
        dead = chance.choice(workers)
        workers.remove(dead)
        after = places(policy, workers)
        assert {key for key in before if before[key] != after[key]} == {
            key for key in before if before[key] == dead.worker
        }
        # It comes back, and another is added: nothing moves.
        workers += [dead, Load(f"{seed}-new-{round}")]
        chance.shuffle(workers)
        assert places(policy, workers) == after
        before = after


def test_the_keys_of_a_dead_worker_are_shared_by_all_others() -> None:
    policy, workers = Sticky(), loads(*NAMES)
    before = places(policy, workers)
    after = places(policy, workers[1:])
    moved = collections.Counter(after[key] for key in before if before[key] == "a")
    assert set(moved) == {"b", "c", "d"}


def test_a_reload_moves_no_key_and_the_new_process_gets_the_connections() -> None:
    policy, old = Sticky(), loads(*NAMES)
    before = places(policy, old)
    new = loads(*NAMES)
    for number in range(1_000):
        key = f"host-{number}"
        chosen = policy.choose(arrival(key), [*old, *new])
        assert chosen in new
        assert chosen is not None
        assert chosen.worker == before[key]
    assert places(policy, new) == before


def test_a_key_waits_for_its_worker_and_no_key_is_lost_by_that() -> None:
    policy, workers = Sticky(), loads(*NAMES)
    before = places(policy, workers)
    load = next(load for load in workers if load.worker == before["host-1"])
    load.rests = True
    assert policy.choose(arrival("host-1"), workers) is None
    load.rests = False
    assert policy.choose(arrival("host-1"), workers) is load


def test_the_key_that_was_not_used_for_longest_is_forgotten_first() -> None:
    policy = Sticky(max_keys=3)
    policy.choose(arrival("a"), loads("one"))
    for host in ("b", "c"):
        policy.choose(arrival(host), loads("two"))
    policy.choose(arrival("a"), loads("one"))
    policy.choose(arrival("d"), loads("two"))  # b is forgotten, a is not
    assert repr(policy) == "<Sticky, keys: 3 of 3>"
    both = loads("one", "two")
    chosen = policy.choose(arrival("a"), both)
    assert chosen is not None
    assert chosen.worker == "one"


def test_keys() -> None:
    policy = Sticky(key=lambda arrival: arrival.first_bytes[:2], peek_size=10, peek_timeout=0.5)
    assert (policy.peek_size, policy.peek_timeout) == (10, 0.5)
    workers = loads(*(f"w{number}" for number in range(20)))
    seen = set()
    for text in (b"aa1", b"aa2", b"aa3"):
        one = arrival()
        one.first_bytes = text
        seen.add(policy.choose(one, workers))
    assert len(seen) == 1
    # On a Unix socket it is the process that counts.
    by_default = Sticky()
    chosen = {
        by_default.choose(Arrival("unix:/x", Peer(address="unix", pid=pid, uid=1, gid=1)), workers)
        for pid in range(100)
        for _ in range(2)
    }
    assert len(chosen) > 10
    with pytest.raises(TypeError, match="must be str or bytes, not int"):
        Sticky(key=lambda arrival: 7).choose(arrival(), workers)  # type: ignore[arg-type, return-value]
    with pytest.raises(TypeError, match="function of an Arrival"):
        Sticky(key="host")  # type: ignore[arg-type]
    for wrong in ({"max_keys": 0}, {"peek_size": -1}):
        with pytest.raises(ValueError, match="max_keys"):
            Sticky(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="peek_timeout"):
        Sticky(peek_timeout=-1.0)


# --- names and functions ---


def test_policies_by_name() -> None:
    kinds = {
        "round-robin": RoundRobin,
        "least-loaded": LeastLoaded,
        "sticky": Sticky,
        "shared": Shared,
        "reuse-port": ReusePort,
    }
    for name, kind in kinds.items():
        policy = policy_from(name)
        assert type(policy) is kind
        assert policy_from(policy) is policy
        assert repr(policy)
    with pytest.raises(ValueError, match="no policy 'random'; there are 'round-robin'"):
        policy_from("random")
    for wrong in (RoundRobin, 7, None):
        with pytest.raises(TypeError, match="a policy is a name"):
            policy_from(wrong)  # type: ignore[arg-type]

    async def late(arrival: Arrival, workers: Sequence[Load]) -> Load:
        return workers[0]

    with pytest.raises(TypeError, match="decides at once"):
        policy_from(late)  # type: ignore[arg-type]


def test_a_function_is_a_policy() -> None:
    def last(arrival: Arrival, workers: Sequence[Load]) -> Load | None:
        return workers[-1] if arrival.peer.host == "127.0.0.1" else None

    policy = policy_from(last)
    assert isinstance(policy, Policy)
    workers = loads(*NAMES)
    assert policy.choose(arrival(), workers) is workers[-1]
    assert policy.choose(arrival("10.0.0.1"), workers) is None
    assert "last" in repr(policy)
