"""Handing connections to workers in one process: what policies see, and what is done with what they say."""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING

import pytest
import trio

from pyipc.cluster.handing import Handing
from pyipc.cluster.listeners import HandedStream, TrioListener
from pyipc.cluster.policies import LeastLoaded, Policy, RoundRobin, Sticky, policy_from
from tests.battery.leaks import leak_gate
from tests.cluster.test_handing import take_all
from tests.cluster.worlds import CLAIM, TcpSource, clients, local_workers, primary, settled
from tests.conftest import CANNOT_RUN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyipc.cluster.policies import Arrival, Load

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason=f"{CANNOT_RUN} Windows has no SCM_RIGHTS")


async def test_a_policy_that_fails_is_told_once_and_round_robin_takes_its_place(
    caplog: pytest.LogCaptureFixture,
) -> None:
    answers = iter([ValueError("no"), "nonsense", None, ["nonsense"], ValueError("no")])

    def policy(arrival: Arrival, workers: Sequence[Load]) -> Load | None:
        answer = next(answers, workers[0])
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[return-value]

    taken: list[str] = []
    made = policy_from(policy)
    assert isinstance(made, Policy)
    async with (
        leak_gate(),
        primary(made) as (handing, source),
        local_workers("a", "b") as workers,
        trio.open_nursery() as nursery,
    ):
        for worker in workers:
            await nursery.start(take_all, worker, taken)
            handing.join(worker.candidate)
        with clients(source, 10):
            await settled()
            assert len(taken) == 10
        assert len([record for record in caplog.records if "round robin takes its place" in record.message]) == 1
        nursery.cancel_scope.cancel()


async def test_sticky_by_first_bytes_which_are_still_there_for_the_worker() -> None:
    seen: dict[str, set[bytes]] = {"a": set(), "b": set(), "c": set()}
    policy = Sticky(key=lambda arrival: arrival.first_bytes[:4], peek_size=100, peek_timeout=60)
    async with (
        leak_gate(),
        primary(policy, max_waiting=8) as (handing, source),  # beside those that have said nothing
        local_workers("a", "b", "c") as workers,
        trio.open_nursery() as nursery,
    ):
        for worker in workers:

            async def serve(stream: HandedStream, name: str = worker.candidate.worker) -> None:
                seen[name].add(await stream.receive_some())

            nursery.start_soon(trio.serve_listeners, serve, [TrioListener(worker.receiving.open(CLAIM))])
            handing.join(worker.candidate)
        with clients(source, 60) as peers:
            await settled()
            assert handing.statistics().waiting == 60  # for their first bytes
            for number, peer in enumerate(peers):
                peer.sendall(b"%04d rest" % (number % 20))
            await settled()
            assert handing.statistics().taken == 60
        assert sorted(text for texts in seen.values() for text in texts) == sorted(b"%04d rest" % n for n in range(20))
        nursery.cancel_scope.cancel()


async def test_who_says_nothing_is_chosen_for_without(autojump_clock: trio.testing.MockClock) -> None:
    keys: list[bytes] = []

    def key(arrival: Arrival) -> bytes:
        keys.append(arrival.first_bytes)
        return b"same"

    taken: list[str] = []
    async with (
        leak_gate(),
        primary(Sticky(key=key, peek_size=10, peek_timeout=3)) as (handing, source),
        local_workers("a") as (worker,),
        trio.open_nursery() as nursery,
    ):
        await nursery.start(take_all, worker, taken)
        handing.join(worker.candidate)
        with clients(source, 1):
            await trio.sleep(2.9)
            assert taken == []
            await trio.sleep(0.2)
            assert (taken, keys) == (["a"], [b""])
        with clients(source, 1) as (peer,):
            peer.close()  # has nothing to say any more
            await trio.sleep(0.1)
            assert taken == ["a", "a"]
        nursery.cancel_scope.cancel()


async def test_one_sticky_connection_that_waits_does_not_hold_up_others() -> None:
    taken: list[str] = []
    policy = Sticky(key=lambda arrival: arrival.first_bytes, peek_size=10, peek_timeout=60)
    async with (
        leak_gate(),
        primary(policy) as (handing, source),
        local_workers("blocked", "open") as (blocked, opened),
        trio.open_nursery() as nursery,
    ):
        blocked.receiving.open(CLAIM)
        handing.join(blocked.candidate)
        with clients(source, 1) as (first,):
            first.sendall(b"key")
            await settled()
            await nursery.start(take_all, opened, taken)
            handing.join(opened.candidate)
            with clients(source, 40) as peers:
                for number, peer in enumerate(peers):
                    peer.sendall(b"key" if number < 20 else b"other%d" % number)
                await settled()
                assert set(taken) == {"open"}
                statistics = handing.statistics()
                assert statistics.given == 4  # the limit of the one that is blocked
                assert statistics.waiting == 41 - 4 - len(taken)
        nursery.cancel_scope.cancel()


async def test_policies_hear_of_the_load_over_all_addresses() -> None:
    async with leak_gate(), primary(LeastLoaded()) as (handing, source), local_workers("w") as (worker,):
        inlet = worker.receiving.open(CLAIM)
        handing.join(worker.candidate)
        other = Handing("b", TcpSource(), RoundRobin())
        other.join(worker.candidate)
        loads = [*handing._loads, *other._loads]
        assert [(load.worker, load.role) for load in loads] == [("w", "web")] * 2
        with clients(source, 2):
            carrier, closed = await inlet.accept()
            await settled()
            assert [(load.open, load.unacked) for load in loads] == [(1, 1), (1, 0)]
            carrier.close()
            closed()
            await settled()
            assert [load.open for load in loads] == [0, 0]
        other.close()
        other._source.close()  # type: ignore[attr-defined]


async def test_what_policies_hear_is_as_of_now() -> None:
    seen: list[tuple[int, float]] = []

    def choose(arrival: Arrival, workers: Sequence[Load]) -> Load:
        seen.extend((load.in_flight, load.lag) for load in workers)
        return workers[0]

    async with leak_gate(), primary(policy_from(choose)) as (handing, source), local_workers("w") as (worker,):  # type: ignore[arg-type]
        worker.receiving.open(CLAIM)
        handing.join(worker.candidate)
        for in_flight, lag in ((0, 0.0), (3, 0.5), (1, 0.25)):
            worker.condition.in_flight, worker.condition.lag = in_flight, lag
            with clients(source, 1):
                await settled()
            assert seen == [(in_flight, lag)]
            seen.clear()


def test_settings_are_checked() -> None:
    for wrong in ({"max_handovers": 0}, {"max_waiting": 0}):
        with pytest.raises(ValueError, match="1 or more"):
            Handing("a", None, RoundRobin(), **wrong)  # type: ignore[arg-type]


async def test_unix_peers_are_known_by_their_process(tmp_path: object) -> None:
    from pyipc.cluster.origin import origin

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        peer = origin(ours)
    import os

    assert (peer.pid, peer.uid, peer.host) == (os.getpid(), os.getuid(), None)
    with socket.socket() as unconnected:
        assert origin(unconnected).address == "unknown"
