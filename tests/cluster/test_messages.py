"""What a primary and its workers say to each other: early, last and large words, and all that a client can do."""

from __future__ import annotations

import hashlib
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

import pyipc
from pyipc import cluster
from tests.cluster.programs import talking

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PROGRAM = "tests.cluster.programs.talking:"
ROOT = str(Path(__file__).parents[2])


def make(program: str, **settings: Any) -> cluster.Cluster:
    """A cluster of workers that run a function of `tests.cluster.programs.talking`."""
    return cluster.Cluster(PROGRAM + program, cwd=ROOT, **settings)


# --- all that can be said, both ways ---


async def test_the_primary_can_say_to_a_worker_all_that_a_client_can_say() -> None:
    async with make("answering", workers=1) as primary:
        worker = primary.workers["1"]
        for number in range(100):
            await worker.emit("keep", number)
        await worker.emit("keep", "confirmed", confirm=True)
        assert await worker.request("kept") == [*range(100), "confirmed"]
        assert await worker.request("add", [1, 2], result=int) == 3
        async with worker.stream("rows", 5) as rows:
            assert [row async for row in rows] == [0, 1, 2, 3, 4]
        answer = await worker.request("reversed", attachments=[b"abc"])
        assert (answer.data, answer.attachments) == (3, (b"cba",))
        with pytest.raises(pyipc.RemoteError) as refused:
            await worker.request("fail")
        assert refused.value.code == "no"
        with pytest.raises(pyipc.NoHandler):
            await worker.request("nonsense")
        with pytest.raises(pyipc.RequestTimeout):
            await worker.request("for ever", timeout=0.01)
        assert worker.in_flight == 0


async def test_no_name_is_the_clusters_own() -> None:
    primary = make("named_alike", workers=1)
    for name in talking.NAMES:
        primary.router.on(name, lambda message: ["heard", message.event])
    async with primary:
        for name in talking.NAMES:
            assert await primary.worker("1").request(name) == ["heard", name]


async def test_a_cancelled_request_is_cancelled_in_the_worker() -> None:
    waiting = trio.Event()
    primary = make("answering", workers=1)
    primary.router.on("waiting", lambda message: waiting.set())
    async with primary, trio.open_nursery() as nursery:
        worker = primary.workers["1"]
        nursery.start_soon(worker.request, "for ever")
        await waiting.wait()
        assert worker.in_flight == 1
        nursery.cancel_scope.cancel()
    assert nursery.cancel_scope.cancelled_caught


async def test_the_handler_of_a_cancelled_request_has_ended() -> None:
    waiting = trio.Event()
    primary = make("answering", workers=1)
    primary.router.on("waiting", lambda message: waiting.set())
    async with primary:
        worker = primary.workers["1"]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.request, "for ever")
            await waiting.wait()
            nursery.cancel_scope.cancel()
        assert await worker.request("cancelled", timeout=30) is True


async def test_a_worker_can_say_to_the_primary_all_that_a_client_can_say() -> None:
    primary = make("answering", workers=1)

    @primary.router.on("rows")
    async def rows(message: pyipc.Message[int]) -> AsyncIterator[int]:
        for number in range(message.data):
            yield number

    @primary.router.on("square")
    async def square(message: pyipc.Message[int]) -> list[Any]:
        await trio.lowlevel.checkpoint()
        return [primary.worker_of(message).id, message.data**2]

    said: list[Any] = []
    primary.on("message", lambda event: said.append((event.worker.id, event.data)))
    async with primary:
        worker = primary.workers["1"]
        assert await worker.request("ask", ["square", 12]) == ["1", 144]
        assert await worker.request("take rows", 4) == [0, 1, 2, 3]
        await worker.request("say", ["a", {"b": 1}, None])
    assert said == [("1", "a"), ("1", {"b": 1}), ("1", None)]


async def test_a_request_that_nobody_handles_is_an_error_in_the_worker() -> None:
    async with make("answering", workers=1) as primary:
        with pytest.raises(pyipc.RemoteError, match="nobody"):
            await primary.workers["1"].request("ask", ["nobody handles this"])


async def test_twenty_megabytes_go_there_and_back() -> None:
    async with make("answering", workers=1) as primary:
        text = "0123456789" * 2_000_000
        digest = hashlib.sha256(text.encode()).hexdigest()
        assert await primary.workers["1"].request("digest", text) == digest
        answer = await primary.workers["1"].request("reversed", attachments=[text.encode()])
        assert answer.attachments == (text.encode()[::-1],)


async def test_calls_a_hundred_deep_between_primary_and_worker_finish() -> None:
    primary = make("answering", workers=1)

    @primary.router.on("up")
    async def up(message: pyipc.Message[int]) -> int:
        return 0 if message.data == 0 else 1 + await primary.worker_of(message).request("down", message.data - 1)

    async with primary:
        assert await primary.workers["1"].request("down", 100) == 100


# --- what comes before its handler ---


async def test_what_is_sent_to_a_worker_that_starts_waits_for_its_handler_name_by_name() -> None:
    async with make("slow_to_listen") as primary:
        worker = await primary.fork(wait=False)

        async def emit(name: str) -> None:
            for number in range(3):
                await worker.emit(name, number)

        async with trio.open_nursery() as nursery:
            # In the wrong order on purpose: what waits must not keep what is needed first.
            nursery.start_soon(emit, "later")
            nursery.start_soon(emit, "sooner")
            nursery.start_soon(worker.emit, "config", ["sooner", "later"])
        assert await worker.request("got") == [
            ["sooner", 0],
            ["sooner", 1],
            ["sooner", 2],
            ["later", 0],
            ["later", 1],
            ["later", 2],
        ]


async def test_a_request_to_a_worker_that_starts_waits_for_its_handler() -> None:
    async with make("slow_to_listen") as primary:
        worker = await primary.fork(wait=False)
        answers: list[Any] = []

        async def ask() -> None:
            answers.append(await worker.request("got"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await worker.emit("config", ["one"])
        assert answers == [[]]


async def test_once_a_worker_is_ready_nothing_waits_for_a_handler_any_more() -> None:
    async with make("never_listening") as primary:
        worker = await primary.fork(wait=False)
        with pytest.raises(pyipc.NoHandler):
            await worker.request("nobody handles this")
        await worker.emit("nobody hears this")


async def test_who_sends_to_a_worker_that_never_listens_gets_an_error_when_that_ends() -> None:
    async with make("slow_to_listen", restart="never") as primary:
        worker = await primary.fork(wait=False)

        async def kill() -> None:
            while worker.state != "online":
                await worker.wait_changed()
            worker.kill(signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(kill)
            with pytest.raises(pyipc.ConnectionLost, match="nothing was sent"):
                await worker.request("got")


async def test_a_broadcast_reaches_workers_that_are_starting() -> None:
    async with make("slow_to_listen") as primary:
        workers = [await primary.fork(wait=False) for _ in range(2)]
        report = await primary.broadcast("config", ["a"])
        assert (report.sent, report.dropped) == (2, 0)
        assert [await worker.request("got") for worker in workers] == [[], []]


async def test_a_broadcast_during_a_reload_reaches_old_and_new_processes() -> None:
    async with make("slow_to_keep", workers=2) as primary, trio.open_nursery() as nursery:
        nursery.start_soon(primary.reload)
        began = [trio.Event(), trio.Event()]

        @primary.on("online")
        def note(event: cluster.WorkerEvent) -> None:
            if event.generation == 2:
                next(each for each in began if not each.is_set()).set()

        for each in began:
            await each.wait()
        report = await primary.broadcast("keep", "a")
        assert (report.sent, report.dropped) == (2, 0)
        while any(each.generation == 1 for each in primary.workers.values()):
            await next(iter(primary.workers.values())).wait_changed()
        assert [await each.request("kept") for each in primary.workers.values()] == [["a"], ["a"]]


async def test_what_a_worker_says_waits_for_handlers_that_are_registered_in_the_block() -> None:
    async with make("talkative", workers=2) as primary:
        said: dict[str, list[int]] = {"1": [], "2": []}
        sent: dict[str, list[int]] = {"1": [], "2": []}
        done = trio.Event()

        @primary.router.on("said")
        def hear(message: pyipc.Message[int]) -> None:
            said[primary.worker_of(message).id].append(message.data)

        @primary.on("message")
        def take(event: cluster.WorkerEvent) -> None:
            assert event.worker is not None
            sent[event.worker.id].append(event.data)
            if all(len(each) == 100 for each in sent.values()):
                done.set()

        await done.wait()
        assert said == sent == {"1": list(range(100)), "2": list(range(100))}


async def test_what_a_forked_worker_says_waits_for_handlers_of_its_own() -> None:
    async with make("talkative") as primary:
        worker = await primary.fork()
        sent: list[int] = []
        done = trio.Event()

        @worker.on("message")
        def take(event: cluster.WorkerEvent) -> None:
            sent.append(event.data)
            if len(sent) == 100:
                done.set()

        await done.wait()
        assert sent == list(range(100))


async def test_a_worker_can_ask_before_it_is_ready() -> None:
    router = pyipc.Router()
    router.on("settings", lambda message: {"color": "blue"})
    async with cluster.Cluster(PROGRAM + "curious", workers=1, cwd=ROOT, router=router) as primary:
        assert await primary.workers["1"].request("told") == {"color": "blue"}


async def test_a_worker_that_asks_before_it_is_ready_is_told_at_once_that_nobody_will_answer() -> None:
    with pytest.raises(cluster.WorkerFailed, match="nothing here handles the request 'settings'"):
        async with make("curious", workers=1):
            pytest.fail("it cannot be ready")


async def test_primary_and_worker_may_ask_each_other_before_the_worker_is_ready() -> None:
    primary = make("ask_and_be_asked", workers=1)

    @primary.router.on("who am i")
    async def tell(message: pyipc.Message[None]) -> str:
        return f"worker {await primary.worker_of(message).request('name')}"

    async with primary:
        assert await primary.workers["1"].request("answer") == "worker 1"


# --- the last words, and the dead ---


@pytest.mark.parametrize("program", ["returning", "raising", "exiting", "drained"])
async def test_the_last_words_of_a_worker_arrive_before_its_end(program: str) -> None:
    events: list[Any] = []
    primary = make(program, restart="never")
    for name in cluster.EVENTS:
        if name != "message":
            primary.on(name, lambda event: events.append(event.type))

    @primary.on("message")
    async def hear(event: cluster.WorkerEvent) -> None:
        await trio.sleep(0.02)  # it is slower than they come
        events.append(event.data if isinstance(event.data, str) else (event.data[0], len(event.data[1])))

    async with primary:
        worker = await primary.fork(wait=False)
        if program == "drained":
            while not worker.is_ready:
                await worker.wait_changed()
            await worker.disconnect()
        await worker.gone.wait()
    said = [(number, 1_000_000) for number in range(5)]
    assert [each for each in events if each not in ("ready", "error")] == [
        "setup",
        "fork",
        "online",
        *said,
        "last",
        "disconnect",
        "exit",
    ]


async def test_what_is_sent_to_a_dead_worker_raises_where_it_is_sent() -> None:
    async with make("answering", workers=1, restart="never") as primary:
        worker = primary.workers["1"]
        with pytest.raises(pyipc.ConnectionLost) as lost:
            await worker.request("exit", 7)
        assert lost.value.maybe_handled
        await worker.gone.wait()
        for send in (worker.send(1), worker.emit("keep", 1), worker.emit("keep", 1, confirm=True)):
            with pytest.raises(pyipc.ConnectionLost):
                await send
        with pytest.raises(pyipc.ConnectionLost):
            await worker.request("kept")
        with pytest.raises(pyipc.ConnectionLost):
            async with worker.stream("rows", 1):
                pass
        report = await primary.broadcast("keep", 1)
        assert (report.sent, report.dropped) == (0, 0)


async def test_a_worker_that_is_killed_while_it_is_asked_takes_nobody_along() -> None:
    waiting = trio.Event()
    primary = make("answering", workers=1)
    primary.router.on("waiting", lambda message: waiting.set())
    async with primary:
        worker = primary.workers["1"]
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(pyipc.ConnectionLost) as lost:
                    await worker.request("for ever")
                assert lost.value.maybe_handled

            nursery.start_soon(ask)
            await waiting.wait()
            process = worker.current
            assert process is not None
            process.kill()
        while worker.current is process or not worker.is_ready:
            await worker.wait_changed()
        assert await worker.request("add", [2, 3]) == 5
        assert worker.restarts == 1


# --- topics ---


async def test_topics_reach_primary_and_workers_alike() -> None:
    primary = make("subscribing")
    async with primary, primary.subscribe("news.*") as news:
        first, second = await primary.fork(), await primary.fork()
        await primary.publish("news.primary", 1)
        await first.request("publish", ["news.first", 2])
        await second.request("publish", ["news.second", 3])
        got = [(message.event, message.data) for message in [await news.get() for _ in range(3)]]
        assert got == [("news.primary", 1), ("news.first", 2), ("news.second", 3)]
        for worker in (first, second):
            assert await worker.request("got", 3) == [
                ["news.primary", 1],
                ["news.first", 2],
                ["news.second", 3],
            ]


async def test_a_worker_too_slow_for_what_is_published_misses_some_and_keeps_its_connection() -> None:
    async with make("subscribing", workers=2, max_frame_size=1024 * 1024) as primary:
        slow, other = primary.workers.values()
        process = slow.current
        async with trio.open_nursery() as nursery:
            nursery.start_soon(slow.request, "sleep", 1.0)
            dropped = 0
            for number in range(60):
                report = await primary.publish("news.large", [number, "x" * 500_000])
                dropped += report.dropped
                if report.sent == 2:
                    await other.request("got", number + 1)
        assert dropped > 0
        await primary.publish("news.last", "last")
        got = await slow.request("got until", "last")
        numbers = [data for topic, data in got if topic == "news.large"]
        assert numbers == sorted(set(numbers))
        assert 0 < len(numbers) < 60
        assert slow.current is process
        assert [each.restarts for each in (slow, other)] == [0, 0]


# --- back-pressure ---


async def test_a_primary_that_does_not_keep_up_holds_its_worker_back(tmp_path: Path) -> None:
    go_on = trio.Event()
    got: list[int] = []
    all_there = trio.Event()
    primary = make("flooding", args=[str(tmp_path / "how far")])

    @primary.router.on("flood")
    async def take(message: pyipc.Message[list[Any]]) -> None:
        await go_on.wait()
        got.append(message.data[0])
        if len(got) == 200:
            all_there.set()

    async with primary:
        await primary.fork()
        far, before = "", ""
        while far != before or not far:
            before = far
            await trio.sleep(0.2)
            far = (tmp_path / "how far").read_text() if (tmp_path / "how far").exists() else ""
        assert int(far) < 40  # of two hundred megabytes; what is under way is bounded
        go_on.set()
        await all_there.wait()
        assert got == list(range(200))


async def test_a_worker_that_does_not_keep_up_holds_whoever_sends_to_it_back(tmp_path: Path) -> None:
    async with make("not_reading", args=[str(tmp_path / "go on")]) as primary:
        worker = await primary.fork()
        sent = 0

        async def flood() -> None:
            nonlocal sent
            for _ in range(200):
                await worker.emit("flood", "x" * 1_000_000)
                sent += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood)
            before = -1
            while sent != before or sent < 1:
                before = sent
                await trio.sleep(0.2)
            assert sent < 40
            await trio.Path(tmp_path / "go on").touch()
        assert await worker.request("taken") <= 200
    # It leaves only when all was handled.
