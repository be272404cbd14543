"""R13: a server is started again with hundreds of clients. All are back before long, not in step; nothing is lost."""

from __future__ import annotations

import random
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import trio

import pyipc
from pyipc.backoff import Backoff
from pyipc.options import Options
from pyipc.testing import Faults, FaultyTransport
from tests.battery.leaks import leak_gate
from tests.battery.sizes import sized
from tests.certificates import authority_file, leaf, leaf_file
from tests.cli.processes import eventually
from tests.conftest import CANNOT_RUN
from tests.test_work_idle import files_allowed

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from trio.testing import MockClock

    from tests.battery.conftest import Tally

pytestmark = pytest.mark.time_limit(240)

needs_unix = pytest.mark.skipif(sys.platform == "win32", reason=f"{CANNOT_RUN} needs Unix domain sockets")

CLIENTS = sized(200, least=100)
#: Seconds in which all are to be back, and how many the machine may take.
PROMISED, PATIENCE = 10.0, 100.0


def crowding(times: Iterable[float], begin: float, end: float, parts: int) -> float:
    """How many times the mean the busiest of some equal parts of a time has."""
    counts = Counter(int((when - begin) / (end - begin) * parts) for when in times if begin <= when < end)
    return max(counts.values()) / (sum(counts.values()) / parts)


# --- when they try -------------------------------------------------------------------------------------------------


def attempts(clients: int, seed: int, *, until: float, jitter: bool = True) -> list[list[float]]:
    """When clients try that have all lost their server at 0.0, which nobody finds; by client."""
    options = Options(reconnect_jitter=jitter)
    found = []
    for client in range(clients):
        backoff = Backoff(options, random.Random(f"{seed} {client}").random)
        now, times = 0.0, []
        while now < until:
            now += backoff.next_delay()
            times.append(now)
        found.append(times)
    return found


def test_those_who_were_left_at_one_moment_do_not_try_in_step() -> None:
    """A minute after they have all lost their server, nothing shows that it was at the same moment."""
    tried = attempts(2_000, seed=13, until=130.0)
    peak = crowding([when for times in tried for when in times], 60.0, 120.0, parts=120)
    print(f"while it is away: {peak:.2f} times the mean in the busiest half second")
    assert peak <= 2.0
    in_step = attempts(2_000, seed=13, until=130.0, jitter=False)
    assert crowding([when for times in in_step for when in times], 60.0, 120.0, parts=120) > 10, "this measures nothing"


@pytest.mark.parametrize("away", [30.0, 60.0, 300.0])
def test_when_the_server_is_there_again_they_come_over_the_whole_interval(away: float) -> None:
    """What is left of an interval is short more often than long, so that at first twice as many come as on average.

    It is a whole interval in which all have come, and never are there more than those twice as many.
    """
    came = [next(when for when in times if when >= away) for times in attempts(20_000, seed=7, until=away + 20)]
    interval = Options().reconnect_max_interval
    assert max(came) <= away + interval
    peak = crowding(came, away, away + interval, parts=10)
    print(f"after {away:g} s away: {peak:.2f} times the mean in the busiest second of ten")
    assert peak <= 2.0


@pytest.mark.parametrize("jitter", [True, False])
async def test_a_server_that_only_lost_them_gets_them_back_spread_over_the_first_interval(
    jitter: bool, autojump_clock: MockClock
) -> None:
    """As when a proxy between them was started again: the server is there all the time."""
    random.seed(13)
    came: list[float] = []
    transport = FaultyTransport(Faults())
    async with pyipc.Server("memory:r13", max_connections_per_peer=400) as server, trio.open_nursery() as nursery:

        async def stay() -> None:
            endpoint = pyipc.Endpoint("memory:r13", transport=transport)
            async with pyipc.connect(endpoint, reconnect_jitter=jitter, reconnect_interval=1.0):
                await trio.sleep_forever()

        count = 400
        for _ in range(count):
            nursery.start_soon(stay)
        await eventually(lambda: len(server.connections) == count)
        server.on_connect(lambda connection: came.append(trio.current_time()))
        lost = trio.current_time()
        for link in transport.links:
            await link.reset()
        await trio.sleep(2.0)
        assert len(came) == count
        peak = crowding(came, lost, lost + 1.000_001, parts=5)
        print(f"{peak:.2f} times the mean in the busiest fifth of the first interval")
        assert peak <= 2.0 if jitter else peak == 5.0
        nursery.cancel_scope.cancel()


# --- a real storm --------------------------------------------------------------------------------------------------


class Shop:
    """A server that answers what a client asks with a message of its topic."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []
        self.came: list[float] = []

    def server(self, *where: Any) -> pyipc.Server:
        """Another server, with the same books."""
        server = pyipc.Server(*where, close_timeout=1.0, max_connections_per_peer=10_000, max_connections=10_000)

        @server.on("ask")
        async def ask(message: pyipc.Message[tuple[int, int]]) -> None:
            client, number = message.data
            self.asked.append((client, number))
            await server.publish(f"answers.{client}", number)

        server.on("ping", lambda message: message.data)
        server.on_connect(lambda connection: self.came.append(trio.current_time()))
        return server


@pytest.mark.skipif(files_allowed() < 2 * CLIENTS + 100, reason=f"{CANNOT_RUN} ulimit -n allows too few open files")
@pytest.mark.parametrize("scheme", [pytest.param("unix", marks=needs_unix), "tcp", "tls"])
@pytest.mark.parametrize("away", [0.0, 1.0])
async def test_all_are_back_in_time(scheme: str, away: float, tmp_path: Path, tally: Tally) -> None:
    shop = Shop()
    trust = pyipc.TLS(ca=authority_file(tmp_path)) if scheme == "tls" else None
    shown = pyipc.TLS(cert=leaf_file(tmp_path / "server.pem", leaf("127.0.0.1"))) if scheme == "tls" else None
    where = f"unix:{tmp_path}/s" if scheme == "unix" else f"{scheme}://127.0.0.1:0"
    answered: dict[int, list[int]] = {}
    subscribed = 0

    async def live(client: pyipc.Client, number: int) -> None:
        nonlocal subscribed
        async with client.subscribe(f"answers.{number}") as answers:
            subscribed += 1
            async for answer in answers:
                answered.setdefault(number, []).append(answer.data)

    async def be_client(address: Any, number: int, clients: dict[int, pyipc.Client]) -> None:
        # On a machine that is this busy a welcome may be late, and a server without one passes for a plain one.
        endpoint = pyipc.Endpoint(address, tls=trust)
        async with pyipc.connect(endpoint, handshake_timeout=PATIENCE, connect_timeout=PATIENCE) as client:
            clients[number] = client
            await live(client, number)

    async with leak_gate(), trio.open_nursery() as nursery:
        clients: dict[int, pyipc.Client] = {}
        with trio.CancelScope() as scope:  # a cancelled server closes at once, and sends nothing
            async with shop.server(pyipc.Endpoint(where, tls=shown)) as server:
                (address,) = server.addresses
                for number in range(CLIENTS):
                    nursery.start_soon(be_client, address, number, clients)
                await eventually(lambda: subscribed == CLIENTS, "all to be connected")
                scope.cancel()
        await eventually(lambda: not any(client.connected for client in clients.values()), "all to have lost it")
        shop.came.clear()
        for number, client in clients.items():
            for question in range(3):
                client.emit_nowait("ask", (number, question))
        await trio.sleep(away)
        again = trio.current_time()
        async with (
            shop.server(pyipc.Endpoint(address, tls=shown)) as server,
            pyipc.connect(pyipc.Endpoint(address, tls=trust)) as bystander,
        ):
            slowest = 0.0
            with trio.fail_after(PATIENCE):
                while sum(map(len, answered.values())) < 3 * CLIENTS:
                    began = trio.current_time()
                    await bystander.request("ping", 1, timeout=PATIENCE)
                    slowest = max(slowest, trio.current_time() - began)
                    await trio.sleep(0.01)
            seconds = trio.current_time() - again
            tries = sum(client.statistics().failed_connects for client in clients.values())
            peak = max(Counter(int((when - again) / 0.05) for when in shop.came).values())
            print(
                f"{scheme}, {away:g} s away: {CLIENTS} clients are back, with what they had queued, in {seconds:.2f} s "
                f"(promised: {PROMISED:g}); {peak} in the busiest 50 ms; {tries} attempts failed; "
                f"a request of somebody else took {slowest * 1000:.0f} ms at most"
            )
            nursery.cancel_scope.cancel()
    # The subscription was there before what was queued: else nothing would have come for it.
    assert answered == {number: [0, 1, 2] for number in range(CLIENTS)}
    assert sorted(shop.asked) == [(number, question) for number in range(CLIENTS) for question in range(3)]
    tally.add(reconnects=CLIENTS)
