"""R12: the clock on the wall jumps an hour back and forth, runs fast or slow, and the machine is suspended.

Conversations with links that break go on as ever while the wall clock is set: whoever must be remembered is, no peer
is given up or kept by mistake, and pauses between attempts keep their length. After ten minutes in which a program
stood still, with messages, streams and hellos half-way, its connections are the same, and everything comes to its end.
"""

from __future__ import annotations

import itertools
import random
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import pyipc
from pyipc.testing import Faults, FaultyTransport, pair
from tests.battery.conversation import QUICK, Conversation
from tests.battery.leaks import leak_gate
from tests.battery.sizes import sized

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from trio.testing import MockClock

    from tests.battery.conftest import Tally

pytestmark = pytest.mark.time_limit(60)

HOUR = 3_600.0
SUSPENDED = 600.0


class Wall:
    """A clock that is set all the time, and notes which of our modules look at it."""

    def __init__(self, offset: Callable[[int], float]) -> None:
        self._real = time.time
        self._offset = offset
        self.looks = 0
        self.watchers: set[str] = set()

    def now(self) -> float:
        """What it says."""
        self.looks += 1
        asker = sys._getframe(1).f_globals.get("__name__", "")
        if asker.startswith("pyipc."):
            self.watchers.add(asker)
        return self._real() + self._offset(self.looks)

    def now_ns(self) -> int:
        """The same in nanoseconds."""
        return int(self.now() * 1e9)


@pytest.fixture(params=["an hour back", "an hour forth", "back and forth", "slow", "fast"])
def wall(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Wall:
    """What the time of day is for this whole process."""
    began, draw = time.monotonic(), random.Random(12)
    offsets: dict[str, Callable[[int], float]] = {
        "an hour back": lambda look: -HOUR if look > 5 else 0.0,
        "an hour forth": lambda look: HOUR if look > 5 else 0.0,
        "back and forth": lambda _: draw.uniform(-HOUR, HOUR),
        "slow": lambda _: -0.9 * (time.monotonic() - began),
        "fast": lambda _: 100 * (time.monotonic() - began),
    }
    wall = Wall(offsets[request.param])
    monkeypatch.setattr(time, "time", wall.now)
    monkeypatch.setattr(time, "time_ns", wall.now_ns)
    return wall


def test_a_conversation_goes_on_whatever_the_time_of_day(wall: Wall, tally: Tally) -> None:
    """Links break and fall silent; whom the server remembers, and for how long, is no matter of the time of day."""
    seeds = sized(20, least=3)
    connects = resent = 0

    async def converse(seed: int) -> None:
        nonlocal connects, resent
        draw = random.Random(seed)

        def faults() -> Faults:
            return Faults(seed=seed, tear=draw.choice((0.02, 0.1)), delay=(0.0, 0.1), hold_interval=0.1)

        conversation = Conversation(seed)
        transport = FaultyTransport(faults(), inbound=faults())
        server = conversation.server(f"memory:wall-{seed}")
        async with leak_gate(), server, trio.open_nursery() as nursery:
            nursery.start_soon(heal, transport)
            await conversation.hold(server, pyipc.Endpoint(server.addresses[0], transport=transport))
            nursery.cancel_scope.cancel()
        conversation.check()
        connects += conversation.outcomes["connects"]
        resent += conversation.outcomes["resent"]

    async def heal(transport: FaultyTransport) -> None:
        await trio.sleep(20)
        transport.faults, transport.inbound = Faults(), None

    for seed in range(seeds):
        print(f"seed {seed}")
        trio.run(converse, seed, clock=trio.testing.MockClock(autojump_threshold=0))
    assert connects > 2 * seeds
    assert resent > 0
    assert wall.watchers == set()
    time.time()
    assert wall.looks > 0
    tally.add(seeds=seeds, lost=0)


async def test_pauses_between_attempts_keep_their_length(wall: Wall, autojump_clock: MockClock) -> None:
    attempts: list[float] = []
    async with pyipc.connect(
        "memory:nobody", wait=False, reconnect_interval=1.0, reconnect_max_interval=8.0, reconnect_jitter=False
    ) as client:
        client.on_failed_connect(lambda error: attempts.append(trio.current_time()))
        await trio.sleep(35)
    pauses = [after - before for before, after in itertools.pairwise(attempts)]
    assert pauses == pytest.approx([1, 2, 4, 8, 8, 8])
    assert wall.watchers == set()


async def test_who_is_remembered_is_so_for_as_long_as_was_said(wall: Wall, autojump_clock: MockClock) -> None:
    router = pyipc.Router()
    router.on("e", lambda message: None)
    async with pair(router, server_options={"session_timeout": 120.0}, client_options=QUICK) as (client, server):
        await client.emit("e", confirm=True)
        await client.aclose()
        for seconds, sessions in ((119, 1), (2, 0)):
            await trio.sleep(seconds)
            assert server.statistics().sessions == sessions
    assert wall.watchers == set()


@pytest.mark.parametrize("seed", range(sized(20, least=3)))
async def test_after_standing_still_for_ten_minutes_all_goes_on(seed: int, mock_clock: MockClock, tally: Tally) -> None:
    """Suspended three times, at moments that the seed draws: with requests, a stream and events half-way."""
    draw = random.Random(seed)
    router = pyipc.Router()
    handled: list[int] = []
    ended: list[pyipc.Disconnected] = []

    @router.on("slow")
    async def slow(message: pyipc.Message[int]) -> int:
        await trio.sleep(draw.uniform(0, 5))
        return message.data

    @router.on("rows")
    async def rows(message: pyipc.Message[int]) -> AsyncIterator[int]:
        for number in range(message.data):
            if number % 10 == 0:
                await trio.sleep(0.2)
            yield number

    @router.on("event")
    async def event(message: pyipc.Message[int]) -> None:
        await trio.sleep(0.1)
        handled.append(message.data)

    def faults() -> Faults:
        return Faults(seed=seed, delay=(0.0, 0.3), split=draw.choice((None, 5)))

    async def ask(client: pyipc.Client) -> None:
        for number in range(10):
            assert await client.request("slow", number, timeout=None) == number

    async def take(client: pyipc.Client) -> None:
        async with client.stream("rows", 100, timeout=None) as stream:
            assert [row async for row in stream] == list(range(100))

    async def confirm(client: pyipc.Client) -> None:
        for number in range(10):
            await client.emit("event", number, confirm=True, timeout=None)

    both: dict[str, Any] = {"heartbeat_interval": 1.0, "frame_timeout": 5.0, "handshake_timeout": 5.0}
    transport = FaultyTransport(faults(), inbound=faults())
    with trio.fail_after(10_000):
        async with (
            leak_gate(),
            pair(router, faults=transport, client_options=both, server_options=both) as (client, server),
        ):
            server.on_disconnect(ended.append)
            suspensions = {draw.randrange(10, 100) for _ in range(3)}
            async with trio.open_nursery() as nursery:
                for task in (ask, take, confirm):
                    nursery.start_soon(task, client)
                try:
                    for tick in range(100):
                        mock_clock.jump(SUSPENDED if tick in suspensions else 0.1)
                        await trio.testing.wait_all_tasks_blocked()
                finally:
                    mock_clock.autojump_threshold = 0
            assert handled == list(range(10))
            assert (client.statistics().connects, ended) == (1, [])
    tally.add(messages=120, lost=0)
