"""What policies are told of how a worker is doing: what is so at the moment when they choose, of both kinds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from pyipc import cluster
from tests.cluster.diary import QUICK, Diary
from tests.conformance.sides import until
from tests.conftest import needs_node_channel

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.usefixtures("nothing_is_left")

needs_node = [
    needs_node_channel,
]
KINDS = [
    pytest.param({"exec": "tests.cluster.programs.busy:main"}, id="python"),
    pytest.param({"node": str(Path(__file__).with_name("node") / "busy.js")}, id="node", marks=needs_node),
]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_policy_sees_what_a_worker_has_to_do_when_it_chooses(kind: dict[str, Any]) -> None:
    seen: list[tuple[str, int, float]] = []

    def choose(arrival: cluster.Arrival, workers: Sequence[cluster.Load]) -> cluster.Load:
        seen.extend((load.worker, load.in_flight, load.lag) for load in workers)
        return workers[0]

    # After the first pulse there is none but those of this test.
    settings = {**QUICK, "heartbeat_interval": 1_000.0, "hang_timeout": None}
    primary = cluster.Cluster(workers=0, policy=choose, **settings)
    diary = Diary(primary)
    async with primary:
        worker = await primary.fork("w", **kind)
        process = worker.current
        assert process is not None
        await until(lambda: process.pulses > 0)
        address = (await diary.seen("listening")).address
        assert address is not None

        async def ask(lag: float) -> tuple[str, int, float]:
            process.on_pulse({"lag": lag})
            async with await trio.open_tcp_stream("127.0.0.1", address.port) as stream:
                assert await stream.receive_some() == b"w"
            return seen.pop()

        assert await ask(0.5) == ("w", 0, 0.5)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(worker.request, "hold")
            job = await primary.submit("hold")
            await until(lambda: worker.in_flight == 4)
            assert await ask(0.25) == ("w", 4, 0.25)
            await worker.emit("release")
        await job.result()
        assert await ask(0.0) == ("w", 0, 0.0)
    assert seen == []


@pytest.mark.parametrize("kind", KINDS)
async def test_a_connection_of_a_worker_counts_no_more_once_it_has_ended(kind: dict[str, Any]) -> None:
    """Node does not tell: there it is so from the next pulse on."""
    primary = cluster.Cluster(workers=0, **QUICK, heartbeat_interval=0.02)
    diary = Diary(primary)
    async with primary:
        worker = await primary.fork(**kind)
        address = (await diary.seen("listening")).address
        assert address is not None
        for _ in range(3):
            async with await trio.open_tcp_stream("127.0.0.1", address.port) as stream:
                assert await stream.receive_some() == b"1"
        process = worker.current
        assert process is not None
        pulses = process.pulses
        await until(lambda: process.pulses > pulses + 1)  # by then it has said that it has taken them
        await until(lambda: worker.info().connections == 0)
