"""The small file for Node programs, examples/node/pyipc-channel.js: all that it offers, and what goes wrong."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

import pyipc
from pyipc import cluster
from tests.cluster.diary import PATIENCE, ROOT, Diary
from tests.conftest import needs_node_channel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PROGRAMS = Path(__file__).with_name("node")
SAYABLE: list[object] = [
    None,
    0,
    "",
    [],
    {"data": None},
    "zwölf 🦜 \u2028 \0",
    {"cmd": "NODE_x"},
    {"type": "pyipc.ready"},
]

pytestmark = [
    needs_node_channel,
    pytest.mark.usefixtures("nothing_is_left"),
]


@asynccontextmanager
async def helped(
    router: pyipc.Router | None = None,
) -> AsyncIterator[tuple[cluster.Cluster, cluster.WorkerHandle]]:
    """A cluster with a worker that has loaded it."""
    primary = cluster.Cluster(str(PROGRAMS / "helped.mjs"), workers=1, router=router, restart="never")
    with trio.fail_after(PATIENCE):
        async with primary:
            yield primary, primary.worker("1")


async def test_the_primary_asks_and_is_answered() -> None:
    async with helped() as (primary, worker):
        assert await worker.request("add", [1, 2]) == 3
        for data in SAYABLE:
            assert await worker.request("same", data) == data
        assert await worker.request("once")
        job = await primary.submit("add", [3, 4])
        assert await job.result() == 7


async def test_what_a_handler_throws_is_an_error_of_the_one_who_has_asked() -> None:
    async with helped() as (_, worker):
        for event, message in {
            "fail": "no luck",
            "fail with nothing": "null",
            "fail beyond words": "the handler has thrown what cannot be told",
            "unspeakable": "Do not know how to serialize a BigInt",
            "ask the unspeakable": "Do not know how to serialize a BigInt",
            "twice": "there is a handler for add already",
        }.items():
            with pytest.raises(pyipc.RemoteError) as failed:
                await worker.request(event)
            assert (failed.value.code, failed.value.message) == ("handler-failed", message)
        with pytest.raises(pyipc.NoHandler):
            await worker.request("nonsense")
        assert await worker.request("add", [1, 2]) == 3


async def test_who_waits_no_more_aborts_the_handler() -> None:
    router = pyipc.Router()
    begun = trio.Event()
    router.on("begun", lambda message: begun.set())
    async with helped(router) as (_, worker):
        with pytest.raises(pyipc.RequestTimeout):
            await worker.request("never", "timed out", timeout=0.05)
        await begun.wait()
        begun = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.request, "never", "cancelled")
            await begun.wait()
            nursery.cancel_scope.cancel()
        assert await worker.request("aborted") == ["timed out", "cancelled"]


async def test_the_worker_asks_and_is_answered() -> None:
    router = pyipc.Router()
    cancelled = trio.Event()
    router.on("add", lambda message: sum(message.data))

    @router.on("refuse")
    def refuse(message: pyipc.Message[None]) -> None:
        raise pyipc.Refused("later", "come back", {"seconds": 5})

    @router.on("never")
    async def never(message: pyipc.Message[None]) -> None:
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    async with helped(router) as (_, worker):
        assert await worker.request("ask", ["add", [1, 2]]) == ["answer", 3]
        assert await worker.request("ask", ["add", [1, 2], {"timeout": 20_000}]) == ["answer", 3]
        assert await worker.request("ask", ["refuse"]) == ["later", "come back", {"seconds": 5}]
        assert (await worker.request("ask", ["nonsense"]))[0] == "no-handler"
        told = await worker.request("ask", ["never", None, {"timeout": 20}])
        assert told == ["timeout", "no answer to never within 20 ms", None]
        await cancelled.wait()


async def test_no_timeout_is_as_long_as_it_takes() -> None:
    router = pyipc.Router()

    @router.on("slow")
    async def slow(message: pyipc.Message[None]) -> str:
        await trio.sleep(0.1)  # a timer of Node that has overflown is over by then
        return "answered"

    async with helped(router) as (_, worker):
        assert await worker.request("ask patiently") == ["answered"] * 4


async def test_frames_with_nothing_in_them_are_no_harm() -> None:
    async with helped() as (_, worker):
        for type in ("event", "request", "cancel", "reply", "error"):
            for more in ({}, {"data": None}, {"data": 7}):
                await worker.send({"type": f"pyipc.{type}", **more})
        assert await worker.request("add", [1, 2]) == 3


async def test_named_events_and_plain_messages_keep_apart() -> None:
    router = pyipc.Router()
    heard: list[object] = []
    router.on("heard", lambda message: heard.append(message.data))
    async with helped(router) as (primary, worker):
        diary = Diary(primary)
        await worker.emit("news", {"a": 1})
        await worker.send("plain")
        await diary.seen("message")
        assert [event.data for event in diary.of("message")] == [{"plain": "plain"}]
        assert heard == [["first", {"a": 1}], ["second", {"a": 1}]]


async def test_what_takes_more_than_a_request_is_refused_here() -> None:
    async with helped() as (_, worker):
        with pytest.raises(pyipc.PeerLacksFeature):
            await worker.emit("news", confirm=True)
        with pytest.raises(pyipc.PeerLacksFeature):
            await worker.request("same", attachments=[b"bytes"])
        with pytest.raises(pyipc.PeerLacksFeature):
            async with worker.stream("same"):
                pass


async def test_a_worker_that_is_to_leave_answers_first() -> None:
    router = pyipc.Router()
    begun = trio.Event()
    router.on("begun", lambda message: begun.set())
    async with helped(router) as (primary, worker):
        answers: list[object] = []

        async def ask() -> None:
            answers.append(await worker.request("after", [200, "answered"]))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await begun.wait()
            await primary.reload()
        assert answers == ["answered"]
        assert await worker.request("add", [1, 2]) == 3
        assert worker.generation == 2


async def test_between_node_and_node() -> None:
    """In a Node primary, for its workers and other children; and what comes of requests when they end."""
    with trio.fail_after(PATIENCE):
        done = await trio.run_process(
            ["node", PROGRAMS / "helping.js"], capture_stdout=True, capture_stderr=True, check=False
        )
    assert (done.returncode, done.stderr) == (0, b"")
    of_worker, of_child = [json.loads(line) for line in done.stdout.splitlines()]
    no_handler = "no-handler: nothing here handles the request 'nonsense'"
    assert of_worker[:4] == of_child[:4] == [8, 2, "new", no_handler]
    assert of_worker[4:] == of_child[4:] == ["disconnected: the channel has ended", "disconnected: Channel closed"]


async def test_other_workers_cannot_reach_it_and_are_told_at_once() -> None:
    async with helped() as (primary, _):
        with trio.fail_after(PATIENCE):
            python = await primary.fork("python", exec="tests.cluster.programs.talking:colleague", cwd=str(ROOT))
            await primary.fork("other", role="node", node=str(PROGRAMS / "helped.mjs"))
            for who in ({"id": "1"}, {"role": "node"}):
                for error in await python.request("fail to reach", who):
                    assert "cannot be reached by other workers: Node programs" in error
