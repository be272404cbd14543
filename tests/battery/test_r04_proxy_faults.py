"""R4: a proxy between client and server delays, cuts, joins, tears, half-closes, resets, and falls silent.

Each seed is a conversation with plain and confirmed events, requests, a stream, a topic and attachments, over real
sockets; the first connections of each go through misfortunes that the seed draws. Whatever was confirmed was handled,
once; plain events arrive at most once and in order; a request gets its own answer or an error; a stream is the
beginning of what was made; the client always comes back. Over UDP datagrams are dropped, doubled, reordered and cut.
"""

from __future__ import annotations

import collections
import random
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from pyipc.testing import Faults
from tests.battery.conversation import CONFIRMED, EVENTS, NEWS, REQUESTS, Conversation, Datagrams
from tests.battery.leaks import leak_gate
from tests.battery.proxy import Misfortune, proxy
from tests.battery.sizes import sized
from tests.battery.wires import fresh_address, over_local_and_tcp
from tests.conftest import is_wine

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from tests.battery.conftest import Tally

#: Connections of a conversation that something happens to. From then on all goes well, so that each comes to its end.
BAD_CONNECTIONS = 4
#: How many conversations are held before it is looked whether they have left anything behind.
BATCH = 10
#: Seeds that have failed once, which are always run.
KEPT: tuple[int, ...] = ()

#: Seconds of the system's own time for which nothing may happen before the clock of a test jumps. On Linux what is sent
#: over the loopback has arrived when the call returns.
THRESHOLD = 0.0 if sys.platform == "linux" else 0.01


def faults_of_streams(draw: random.Random, *, inbound: bool) -> Faults:
    """What happens to one direction of a connection."""
    kinds: list[Callable[[], dict[str, Any]]] = [
        dict,
        lambda: {"tear": draw.uniform(0.01, 0.2)},
        lambda: {"reset_after": draw.randrange(6_000)},
        lambda: {"half_close_after": draw.randrange(6_000)},
        # A server that never answers the hello would be taken for one of node-ipc, which has no answer.
        lambda: {"blackhole_after": draw.randrange(500, 6_000)} if inbound else {},
        lambda: {"split": 1, "reset_after": draw.randrange(1_000)},
    ]
    drawn = draw.choice(kinds)()
    if draw.random() < 0.3:
        drawn["delay"] = (0.0, draw.uniform(0, 0.2))
    if draw.random() < 0.3:
        drawn["coalesce"] = draw.choice([3, 1_000])
    if "split" not in drawn and draw.random() < 0.2:
        drawn["split"] = draw.choice([20, 100])
    return Faults(seed=draw.randrange(2**32), **drawn)


def misfortunes(draw: random.Random) -> Callable[[int], Misfortune]:
    """What happens to each connection of a conversation."""
    bad = [
        Misfortune(faults_of_streams(draw, inbound=False), faults_of_streams(draw, inbound=True))
        for _ in range(BAD_CONNECTIONS)
    ]
    return lambda number: bad[number] if number < BAD_CONNECTIONS else Misfortune()


async def over_a_stream(transport: str, folder: Path, seed: int) -> collections.Counter[str]:
    conversation = Conversation(seed)
    async with conversation.server(fresh_address(transport, folder)) as server:
        draw = misfortunes(random.Random(seed))
        async with proxy(fresh_address(transport, folder), server.addresses[0], draw) as address:
            await conversation.hold(server, address)
    conversation.check()
    return conversation.outcomes


def run_all(
    seeds: Sequence[int], folder: Path, one: Callable[[int], Awaitable[collections.Counter[str]]]
) -> collections.Counter[str]:
    """Run each seed to its end; one that fails is printed."""
    outcomes: collections.Counter[str] = collections.Counter()

    async def run(batch: Sequence[int]) -> None:
        async with leak_gate(folder):
            for seed in batch:
                try:
                    with trio.fail_after(600):  # of the test's clock
                        outcomes.update(await one(seed))
                except BaseException:
                    print(f"the seed was {seed}; add it to KEPT")
                    raise

    for first in range(0, len(seeds), BATCH):
        clock = trio.testing.MockClock(autojump_threshold=THRESHOLD)
        trio.run(run, seeds[first : first + BATCH], clock=clock)
    return outcomes


@pytest.mark.time_limit(120)
@over_local_and_tcp
def test_what_a_proxy_does_to_a_conversation(transport: str, tmp_path: Path, tally: Tally) -> None:
    seeds = [*KEPT, *range(3 if is_wine() else sized(200))]
    outcomes = run_all(seeds, tmp_path, lambda seed: over_a_stream(transport, tmp_path, seed))
    print(dict(outcomes))
    assert outcomes["connects"] > len(seeds)
    if not is_wine():  # where they are too few to lead to everything
        for outcome in ("answered", "lost", "whole streams", "lost streams", "resent"):
            assert outcomes[outcome] > 0, f"no seed of {len(seeds)} has led to this: {outcome}"
    tally.add(seeds=len(seeds), messages=len(seeds) * (EVENTS + CONFIRMED + 2 * REQUESTS + NEWS), lost=0)


def faults_of_datagrams(draw: random.Random) -> Faults:
    """What happens to one direction of a connection over UDP."""
    drop, duplicate, reorder, tear = (draw.choice((0.0, draw.uniform(0, 0.4))) for _ in range(4))
    return Faults(
        seed=draw.randrange(2**32),
        delay=(0.0, draw.choice((0.0, 0.05))),
        drop=drop,
        duplicate=duplicate,
        reorder=reorder,
        tear=tear,
        hold_interval=0.2,
    )


async def over_datagrams(seed: int) -> collections.Counter[str]:
    conversation = Datagrams(seed)
    draw = random.Random(seed)
    misfortune = Misfortune(faults_of_datagrams(draw), faults_of_datagrams(draw))
    async with (
        conversation.server() as server,
        proxy("udp://127.0.0.1:0", server.addresses[0], lambda _: misfortune) as address,
    ):
        await conversation.hold(address)
    conversation.check()
    return conversation.outcomes


@pytest.mark.time_limit(120)
def test_what_a_proxy_does_to_datagrams(tmp_path: Path, tally: Tally) -> None:
    seeds = [*KEPT, *range(sized(100))]
    outcomes = run_all(seeds, tmp_path, over_datagrams)
    print(dict(outcomes))
    assert 0 < outcomes["handled"] < len(seeds) * EVENTS
    for outcome in ("answered", "lost", "doubled", "disordered"):
        assert outcomes[outcome] > 0, f"no seed of {len(seeds)} has led to this: {outcome}"
    tally.add(seeds=len(seeds), messages=len(seeds) * (EVENTS + REQUESTS))
