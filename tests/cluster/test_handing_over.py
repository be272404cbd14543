"""Connections that the primary accepts and workers serve, through a whole cluster; on Windows pipes as well."""

from __future__ import annotations

import secrets
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

import pyipc
from pyipc import cluster

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROOT = Path(__file__).parents[2]
LONG = 40.0

pytestmark = pytest.mark.time_limit(110)


def addresses() -> list[str]:
    local = f"cluster-{secrets.token_hex(6)}"
    return ["tcp://127.0.0.1:0", local]


@asynccontextmanager
async def serving(address: str, **settings: Any) -> AsyncIterator[tuple[cluster.Cluster, pyipc.Address]]:
    """Two workers that serve an address, and where that is."""
    env = {"ADDRESS": address, **settings.pop("env", {})}
    primary = cluster.Cluster(
        "tests.cluster.programs.basic:serving",
        workers=2,
        cwd=str(ROOT),
        env=env,
        ready_timeout=2 * LONG,
        restart_interval=0.01,
        **settings,
    )
    found: list[pyipc.Address] = []
    known = trio.Event()

    def note(event: cluster.WorkerEvent) -> None:
        assert event.address is not None
        found.append(event.address)
        known.set()

    primary.on("listening", note)
    async with primary:
        await known.wait()
        yield primary, found[0]


async def ask(address: pyipc.Address, event: str, data: object = None) -> Any:
    async with pyipc.connect(address, connect_timeout=LONG) as client:
        return await client.request(event, data, timeout=LONG)


@pytest.mark.parametrize("address", addresses(), ids=["tcp", "local"])
async def test_workers_take_turns_and_another_takes_the_place_of_one_that_ends(address: str) -> None:
    async with serving(address) as (primary, place):
        answers = [await ask(place, "who") for _ in range(8)]
        assert sorted(answers) == ["1"] * 4 + ["2"] * 4
        async with pyipc.connect(place, connect_timeout=LONG) as client:
            serving_worker = primary.workers[await client.request("who", timeout=LONG)]
            assert serving_worker.info().connections >= 1
            with pytest.raises(pyipc.ConnectionLost):
                await client.request("end", timeout=LONG)
            # The client comes back, to whoever is there.
            assert await client.request("who", timeout=LONG) in {"1", "2"}
        assert {await ask(place, "who") for _ in range(4)} <= {"1", "2"}
        large = "x" * 500_000
        assert await ask(place, "echo", large) == large
        with trio.fail_after(LONG):
            while any(worker.info().connections for worker in primary.workers.values()):  # noqa: ASYNC110 - notes come
                await trio.sleep(0.01)


async def test_streams_of_trio_are_handed_over() -> None:
    async with serving("tcp://127.0.0.1:0", env={"SERVE": "streams"}) as (_, place):
        heard = []
        for number in range(6):
            async with await trio.open_tcp_stream("127.0.0.1", place.port) as stream:
                await stream.send_all(b"%d" % number)
                heard.append((await stream.receive_some()).decode())
        assert sorted(text.split()[0] for text in heard) == ["1"] * 3 + ["2"] * 3
        assert [text.split(" ", 1)[1] for text in heard] == [f"heard {number}" for number in range(6)]


async def test_workers_accept_by_themselves_where_they_share_the_socket() -> None:
    async with serving("tcp://127.0.0.1:0", policy="shared") as (_, place):
        assert {await ask(place, "who") for _ in range(6)} <= {"1", "2"}


@pytest.mark.skipif(sys.platform != "win32", reason="cannot run here: pipes are of Windows")
async def test_the_client_of_a_pipe_is_identified_where_it_is_served() -> None:
    async with serving(f"pipe:{secrets.token_hex(6)}") as (_, place):
        assert await ask(place, "who") in {"1", "2"}
