"""Workers that talk to each other without their primary in between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

import pyipc
from pyipc import cluster

PROGRAM = "tests.cluster.programs.talking:colleague"
ROOT = str(Path(__file__).parents[2])


def make(**settings: Any) -> cluster.Cluster:
    return cluster.Cluster(PROGRAM, cwd=ROOT, **settings)


async def test_workers_send_and_ask_each_other_and_know_from_whom_it_comes() -> None:
    async with make(workers=2) as primary:
        one, two = primary.workers.values()
        for number in range(50):
            await one.request("tell", ["2", number])
        assert await two.request("heard", 50) == [["1", number] for number in range(50)]
        await two.emit("hear", "from above")
        assert (await two.request("heard", 51))[-1] == ["primary", "from above"]
        assert await two.request("ask", ["1", "who are you", None]) == ["1", 1, "2"]
        assert await one.request("ask", ["1", "who are you", None]) == ["1", 1, "1"]  # itself, why not


async def test_a_worker_is_a_full_client_of_another() -> None:
    async with make(workers=2) as primary:
        one, two = primary.workers.values()
        assert await one.request("try", "2") == {"rows": [0, 1, 2], "published": 5, "large": 5_000_000}
        assert await two.request("heard", 1) == [["1", "confirmed"]]


async def test_workers_ask_each_other_a_hundred_deep() -> None:
    async with make(workers=2) as primary:
        assert await primary.workers["1"].request("ask up", ["2", 100]) == 100


async def test_by_role_the_ready_ones_of_the_role_take_turns() -> None:
    async with make(workers=1) as primary:
        for id in ("mail-1", "mail-2"):
            await primary.fork(id, role="mail")
        asked = [await primary.workers["1"].request("ask role", "mail") for _ in range(6)]
        assert sorted(id for id, *_ in asked) == ["mail-1"] * 3 + ["mail-2"] * 3
        # The one that asks is none of those who are asked.
        asked = [await primary.workers["mail-1"].request("ask role", "mail") for _ in range(2)]
        assert [id for id, *_ in asked] == ["mail-2"] * 2


async def test_a_worker_that_is_not_there_is_an_error_at_once() -> None:
    async with make(workers=1) as primary:
        worker = primary.workers["1"]
        errors = await worker.request("fail to reach", {"id": "nobody"})
        assert [error.split(";")[0] for error in errors] == ["there is no worker 'nobody'"] * 2
        errors = await worker.request("fail to reach", {"role": "none"})
        assert [error.split(";")[0] for error in errors] == ["there is no other worker of the role 'none'"] * 2
        with pytest.raises(ValueError, match="other than 'primary'"):
            await primary.fork("primary")


async def test_who_asks_for_a_worker_that_starts_waits_for_it() -> None:
    async with make(workers=1) as primary:
        await primary.fork("late", wait=False)
        assert await primary.workers["1"].request("ask", ["late", "who are you", None]) == ["late", 1, "1"]


async def test_a_worker_that_is_killed_is_found_again_when_it_was_started_again() -> None:
    async with make(workers=2) as primary:
        one = primary.workers["1"]
        assert await one.request("ask", ["2", "who are you", None]) == ["2", 1, "1"]
        with pytest.raises(pyipc.RemoteError, match="ConnectionLost"):
            await one.request("ask", ["2", "exit", 9])
        assert await one.request("ask", ["2", "who are you", None]) == ["2", 2, "1"]


async def test_what_is_under_way_between_workers_is_finished_while_one_of_them_is_replaced() -> None:
    begun = trio.Event()
    primary = make(workers=2)
    primary.router.on("begun", lambda message: begun.set())
    async with primary:
        one = primary.workers["1"]
        generations: list[int] = []

        async def ask() -> None:
            generations.append(await one.request("ask", ["2", "slow", 0.5]))

        assert (await one.request("ask", ["2", "who are you", None]))[1] == 1
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await begun.wait()
            await primary.reload()
        assert generations == [1]
        assert (await one.request("ask", ["2", "who are you", None]))[1] == 2


async def test_a_worker_that_has_left_is_unknown_and_one_of_its_name_is_found_again() -> None:
    async with make(workers=1) as primary:
        one, two = primary.workers["1"], await primary.fork("two")
        await one.request("tell", ["two", 1])
        await two.disconnect()
        assert len(await one.request("fail to reach", {"id": "two"})) == 2
        again = await primary.fork("two")
        await one.request("tell", ["two", 2])
        assert await again.request("heard", 1) == [["1", 2]]


async def test_the_last_words_to_another_worker_arrive() -> None:
    async with make(workers=1) as primary:
        leaving = await primary.fork("leaving", role="last words")
        await leaving.disconnect()
        assert await primary.workers["1"].request("heard", 1) == [["leaving", "goodbye"]]
