"""What a primary and its Node workers say to each other: every message, unchanged, in order, and none of Node's own."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
import trio

import pyipc
from pyipc import cluster
from tests.battery.leaks import resident_size
from tests.cluster.diary import PATIENCE, QUICK
from tests.cluster.node_workers import ANSWERING, NEEDS_NODE, OBEDIENT, heard, made, obedient, run, script

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = NEEDS_NODE

TEXTS = [
    "",
    "text",
    "Grüße, 世界 \U0001f600",
    "\ud83d",
    "\udc00x",
    "\u2028\u2029\x85",
    "\0\x01\x0c\n\r\x1b\x7f",
    '"\\',
    "\x0c",
]
VALUES: list[Any] = [
    *[None, True, False, 0, -1, 1.5, 2**53 - 1, 1e300],
    *TEXTS,
    *[[], {}, [None, [1, ["two"]]], {"": {"type": "x"}, "cmd": "NODE_", "data": [{}]}],
    *[{"type": "order", "data": 1}, {"type": "message", "data": 1}, {"type": "pyipc", "data": 1}, {"cmd": 7}],
    *[{"text": text} for text in TEXTS],
    *[{text: 1} for text in TEXTS],
]


# --- values ---


@pytest.mark.slow
async def test_a_hundred_thousand_messages_each_way_at_the_same_time_all_in_order() -> None:
    count = 100_000
    primary = cluster.Cluster(OBEDIENT, **QUICK)  # without a diary, which would be a long one
    told: list[Any] = []
    is_over = trio.Event()

    @primary.on("message")
    def note(event: cluster.WorkerEvent) -> None:
        told.append(event.data)
        if len(told) == count + 1:
            is_over.set()

    # Numbers beside their doubles, so that nothing can pass for another, and what Node has seen at the end.
    code = """
        let expected = 0;
        process.removeAllListeners('message');
        process.on('message', ([number, double]) => {
            if (number !== expected++ || double !== 2 * number) process.exit(9);
            if (expected === message.count) process.send(`all ${expected}`);
        });
        for (let number = 0; number < message.count; number++) process.send([number, 2 * number]);
    """
    async with primary:
        worker = await primary.fork()
        with trio.fail_after(PATIENCE):
            await run(worker, code, count=count)
            for number in range(count):
                await worker.send([number, 2 * number])
            await is_over.wait()
    told.remove(f"all {count}")
    assert told == [[number, 2 * number] for number in range(count)]


async def test_messages_of_one_mebibyte_go_both_ways_and_stay_in_order() -> None:
    async with obedient() as (_, worker, diary):
        texts = [f"{number}:" + "äx" * (1024 * 1024 // 3) for number in range(8)]
        for number, text in enumerate(texts):
            await worker.send(text)
            await worker.send(number)
        with trio.fail_after(PATIENCE):
            told = await heard(diary, 16)
        assert told == [each for pair in zip(texts, range(8), strict=True) for each in pair]


async def test_every_value_of_json_goes_there_and_back() -> None:
    async with obedient() as (_, worker, diary):
        for value in VALUES:
            await worker.send(value)
        assert await heard(diary, len(VALUES)) == VALUES


async def test_node_reads_what_was_meant_by_it() -> None:
    """Not only what comes back: how long each text is in UTF-16, and what its units are."""
    code = "process.send(message.texts.map((text) => [...Array(text.length).keys()].map((at) => text.charCodeAt(at))))"
    async with obedient() as (_, worker, diary):
        await run(worker, code, texts=TEXTS)
        [units] = await heard(diary)
    for text, there in zip(TEXTS, units, strict=True):
        encoded = text.encode("utf-16-le", "surrogatepass")
        assert there == [int.from_bytes(encoded[at : at + 2], "little") for at in range(0, len(encoded), 2)]


@pytest.mark.parametrize(
    "name", ["news", 'a"b', "back\\slash", '","data":', "grüße \U0001f600", "NODE_x", "with space"]
)
async def test_events_of_any_name_go_both_ways(name: str) -> None:
    primary, _ = made(ANSWERING)
    send, receive = trio.open_memory_channel[Any](8)
    primary.router.on(f"{name} again", lambda message: send.send_nowait(message.data))
    async with primary:
        worker = await primary.fork()
        for data in ({"text": "ä", "cmd": "NODE_x"}, None):
            await worker.emit(name, data)
            with trio.fail_after(PATIENCE):
                assert await receive.receive() == data


async def test_a_message_that_is_too_large_is_refused_here_and_the_end_of_one_who_says_it() -> None:
    primary, diary = made(max_frame_size=100_000, restart="on-failure")
    async with primary:
        worker = await primary.fork()
        with pytest.raises(pyipc.MessageTooLarge):
            await worker.send("x" * 100_000)
        await run(worker, "process.send('x'.repeat(90_000)); process.send('x'.repeat(300_000)); process.send('late')")
        assert "of more than 100,000 bytes (max_frame_size)" in (await diary.seen("exit")).reason
        await diary.seen("ready", count=2)
        await worker.send("on")
        told = await heard(diary, 2)
    assert [each[:2] for each in told] == ["xx", "on"]


# --- what is Node's own ---


@pytest.mark.parametrize(
    "data", [{"cmd": "NODE_x"}, {"a": 1, "cmd": "NODE_CLUSTER", "act": "disconnect"}, {"cmd": "NODE_HANDLE"}]
)
async def test_what_node_would_take_for_its_own_cannot_be_sent_and_says_so(data: object) -> None:
    async with obedient() as (primary, worker, diary):
        for send in (worker.send(data), worker.emit("message", data), primary.broadcast("message", data)):
            with pytest.raises(pyipc.LocalProtocolError, match="begins with NODE_"):
                await send
        await worker.send("the end")
        assert await heard(diary) == ["the end"]


async def test_what_cannot_be_sent_to_a_node_worker_is_broadcast_to_nobody() -> None:
    primary, diary = made()
    async with primary:
        python = await primary.fork("python", exec="tests.cluster.programs.basic:main")
        node = await primary.fork("node")
        with pytest.raises(pyipc.LocalProtocolError, match="begins with NODE_"):
            await primary.broadcast("message", {"cmd": "NODE_x"})
        with pytest.raises(pyipc.PeerLacksFeature, match="have no attachments"):
            await primary.broadcast("message", "with more", attachments=[b"abc"])
        for worker in (python, node):
            await worker.send("the end")
        await heard(diary, 2)
        assert [each.data for each in diary.of("message", "python")] == [["echo", "the end"]]
        assert [each.data for each in diary.of("message", "node")] == ["the end"]


#: What stands where something else is meant to.
STRANGE: list[Any] = [
    "",
    "x",
    "no host",
    "\0",
    "a" * 500,
    "/nowhere/x",
    "80",
    -1,
    65536,
    10**30,
    1.5,
    True,
    None,
    [],
    {},
]
ODD: list[dict[str, Any]] = [
    *[{"act": act} for act in ("online", "queryServer", "listening", "close", "newconn", "unknown", "")],
    *[
        {"act": act, "key": odd, "seq": odd}
        for act in ("queryServer", "listening", "close", "unknown")
        for odd in STRANGE
    ],
    *[{"act": "queryServer", "address": odd, "port": 1, "addressType": 4, "seq": 7} for odd in STRANGE if odd],
    *[{"act": "queryServer", "address": "192.0.2.1", "port": odd, "addressType": 4} for odd in STRANGE],
    *[{"act": "queryServer", "address": "x", "port": -1, "addressType": odd} for odd in ("udp4", "udp6", *STRANGE)],
    *[
        {"act": "queryServer", "address": odd, "port": -1, "addressType": -1}
        for odd in STRANGE
        if odd not in ("x", "no host", "80")  # which are files here
    ],
    *[{"act": "queryServer", "fd": odd, "address": None, "port": None, "addressType": None} for odd in (3, *STRANGE)],
    *[{"act": "listening", "address": odd, "port": 5, "addressType": 4} for odd in STRANGE],
    *[{"act": "listening", "address": "x", "port": odd, "addressType": 4} for odd in STRANGE],
    *[{"ack": odd} for odd in STRANGE],
    *[{"ack": number, "accepted": odd} for number in (0, 99, 10**18) for odd in STRANGE],
    *[{"act": odd} for odd in STRANGE],
]


async def test_internal_messages_of_every_kind_and_spelling_do_nothing_and_nobody_hears_of_them() -> None:
    """As a program may send them by `process.send`, or one that means ill."""
    code = """
        for (const odd of message.odd) process.send({cmd: 'NODE_CLUSTER', ...odd});
        for (const cmd of ['NODE_x', 'NODE_DEBUG_ENABLED', 'NODE_HANDLE_ACK', 'NODE_HANDLE_NACK', 'NODE_SOCKET_COUNT',
                           'NODE_SOCKET_ALL_CLOSED', 'NODE_SOCKET_NOTIFY_CLOSE', 'NODE_SOCKET_GET_COUNT']) {
            process.send({cmd});
            process.send({cmd, key: 'x', count: 'y', ack: 0});
            process.send({cmd, key: {}, act: 'online', type: 'pyipc.event', data: {event: 'message', data: 1}});
        }
        process.send('the end');
    """
    async with obedient() as (primary, worker, diary):
        before = worker.process
        named: list[str] = []
        primary.router.on("**", lambda message: named.append(message.event))
        await run(worker, code, odd=ODD)
        assert await heard(diary) == ["the end"]
        await worker.send("and it goes on")
        assert await heard(diary, 2) == ["the end", "and it goes on"]
        assert worker.process == before
    assert set(named) <= {"message"}
    assert not diary.of("error")
    assert not diary.of("unhealthy")


async def test_one_that_is_killed_by_its_own_trick_is_started_again() -> None:
    """Node takes the answer to a handle that it has not sent for an error of its own, under its own primary as well."""
    primary, diary = made(workers=1, silent=True)
    async with primary:
        await run(primary.worker("1"), "process.send({cmd: 'NODE_HANDLE'})")
        assert (await diary.seen("exit")).code == 1
        await diary.seen("ready", count=2)


async def test_a_handle_that_nobody_asked_for_is_closed_and_its_message_arrives(
    caplog: pytest.LogCaptureFixture,
) -> None:
    code = """
        const net = require('net');
        const server = net.createServer((socket) => {
            process.send({with: 'a socket'}, socket);
        }).listen({port: 0, host: '127.0.0.1', exclusive: true}, () => {
            const client = net.connect(server.address().port, '127.0.0.1');
            client.on('close', () => { process.send('it was closed'); server.close(); });
            client.resume();
        });
    """
    async with obedient() as (_, worker, diary):
        await run(worker, code)
        told = await heard(diary, 2)
        await worker.send("on")
        assert (await heard(diary, 3))[2] == "on"
    assert told == [{"with": "a socket"}, "it was closed"]
    assert "has sent a handle with a message" in caplog.text


# --- who waits for whom ---


async def test_who_sends_to_a_worker_that_does_not_read_waits_and_the_primary_does_not_grow() -> None:
    async with obedient(hang_timeout=None) as (_, worker, diary):
        await run(worker, "Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)")
        before, text, sent = resident_size(), "x" * 65_536, 0
        with trio.move_on_after(1.0):
            while True:
                await worker.send(text)
                sent += len(text)
        print(f"{sent:,} bytes were taken, and then sending waited")
        assert sent < 16_000_000
        assert resident_size() - before < 40_000_000
        worker.kill(9)
        await worker.gone.wait()
        with pytest.raises(pyipc.ConnectionLost):
            await worker.send(text)
        assert not diary.of("message")


async def test_what_a_worker_says_waits_there_while_a_handler_takes_its_time_and_nothing_is_lost() -> None:
    """Nor is the worker taken for one that hangs, though its answers to that wait as well."""
    primary, diary = made(max_frame_size=100_000, heartbeat_interval=0.1, hang_timeout=0.5)
    told: list[Any] = []
    go_on, is_over = trio.Event(), trio.Event()

    @primary.on("message")
    async def note(event: cluster.WorkerEvent) -> None:
        told.append(event.data)
        await go_on.wait()
        if isinstance(event.data, list):
            is_over.set()

    code = """
        let full = 0;
        for (let number = 0; number < 400; number++) if (!process.send(number + ':' + 'x'.repeat(65536))) full++;
        process.send([full]);
    """
    async with primary:
        worker = await primary.fork()
        before = resident_size()
        await run(worker, code)
        await trio.sleep(2.0)
        assert len(told) == 1
        # What may wait here, once as it came and once as it is read.
        assert resident_size() - before < 20_000_000
        go_on.set()
        with trio.fail_after(PATIENCE):
            await is_over.wait()
        assert worker.generation == 1
    assert [each.partition(":")[0] for each in told[:-1]] == [str(number) for number in range(400)]
    assert all(len(each) > 65_536 for each in told[:-1])
    assert told[-1][0] > 300
    assert not diary.of("unhealthy")


# --- last messages ---


@pytest.mark.parametrize("end", ["cluster.worker.disconnect()", ""], ids=["the worker ends it", "the primary ends it"])
async def test_large_last_messages_arrive_whoever_ends_it(end: str) -> None:
    """Not after ``process.exit()`` or ``process.disconnect()``, by which Node throws away what it has not written."""
    code = f"for (let i = 0; i < 5; i++) process.send([i, 'x'.repeat(1e6)]); {end}"
    primary, diary = made(restart="never")
    async with primary:
        worker = await primary.fork()
        await run(worker, code)
        with trio.fail_after(PATIENCE):
            if not end:
                await worker.disconnect()
            await worker.gone.wait()
    assert [each.data[0] for each in diary.of("message")] == [0, 1, 2, 3, 4]
    assert all(len(each.data[1]) == 1_000_000 for each in diary.of("message"))
    assert [each.type for each in diary.events][-2:] == ["disconnect", "exit"]


async def test_what_was_sent_to_a_worker_before_it_is_to_leave_arrives() -> None:
    async with obedient() as (_, worker, diary):
        for number in range(300):
            await worker.send([number, "x" * 10_000])
        with trio.fail_after(PATIENCE):
            await worker.disconnect()
        assert [each.data[0] for each in diary.of("message")] == list(range(300))
        assert [(each.code, each.signal) for each in diary.of("exit")] == [(0, None)]


async def test_what_was_sent_to_a_worker_that_is_about_to_leave_by_itself_arrives(tmp_path: Path) -> None:
    code = """
        let seen = 0;
        process.removeAllListeners('message');
        process.on('message', () => seen++);
        process.once('disconnect', () => require('fs').writeFileSync(message.path, String(seen)));
        process.send('blocked');
        const pause = new Int32Array(new SharedArrayBuffer(4));
        while (!require('fs').existsSync(message.go)) Atomics.wait(pause, 0, 0, 10);
        cluster.worker.disconnect();
    """
    path, go = tmp_path / "seen", tmp_path / "go"
    async with obedient() as (_, worker, diary):
        await run(worker, code, path=str(path), go=str(go))
        await heard(diary)
        sent = 0
        with trio.move_on_after(0.5):
            while True:  # until so much waits here that sending waits; a cancelled send has sent nothing
                await worker.send("x" * 60_000)  # of which two wait here, and are written one after the other
                sent += 1
        go.touch()
        with trio.fail_after(PATIENCE):
            await worker.gone.wait()
        with pytest.raises(pyipc.ConnectionLost, match="nothing was sent"):
            await worker.send("late")
        assert sent > 1
        assert path.read_text("utf-8") == str(sent)
        assert [(each.code, each.voluntary) for each in diary.of("exit")] == [(0, True)]


# --- requests ---


async def test_a_node_worker_answers_and_asks_with_a_few_lines() -> None:
    primary, _ = made(ANSWERING)

    @primary.router.on("primary says")
    def say(message: pyipc.Message[str]) -> str:
        return f"{message.data} of worker {primary.worker_of(message).id}"

    async with primary:
        worker = await primary.fork("a")
        assert await worker.request("add", [20, 22], timeout=PATIENCE) == 42
        assert await worker.request("ask back", "news", timeout=PATIENCE) == "back: news of worker a"
        with pytest.raises(pyipc.RequestError, match="no luck"):
            await worker.request("fail", timeout=PATIENCE)
        results: dict[int, int] = {}

        async def ask(number: int) -> None:
            results[number] = await worker.request("add", [number, 1], timeout=PATIENCE)

        async with trio.open_nursery() as nursery:
            for number in range(500):
                nursery.start_soon(ask, number)
        assert results == {number: number + 1 for number in range(500)}


async def test_a_worker_that_answers_no_requests_cannot_be_asked_and_gets_no_jobs() -> None:
    async with obedient() as (primary, worker, diary):
        assert not worker.takes_jobs
        with pytest.raises(pyipc.PeerLacksFeature):
            await worker.request("add", [1, 2], timeout=PATIENCE)
        with pytest.raises(pyipc.PeerLacksFeature):
            await worker.emit("add", [1, 2], confirm=True)
        able = await primary.fork(node=ANSWERING)
        jobs = [await primary.submit("pid") for _ in range(10)]
        with trio.fail_after(PATIENCE):
            assert {await job.result() for job in jobs} == {able.pid}
        assert not diary.of("message")


LATE = """
    process.on('message', ({type, data, introduce}) => {
        if (introduce) process.send({type: 'pyipc.hello', data: {versions: [1]}});
        if (type === 'pyipc.request') process.send({type: 'pyipc.reply', data: {call: data.call, data: 'done'}});
    });
"""


async def test_jobs_reach_one_who_introduces_itself_when_it_is_ready_already(tmp_path: Path) -> None:
    primary, _ = made(script(tmp_path, LATE))
    async with primary:
        worker = await primary.fork()
        job = await primary.submit("work")
        await worker.send({"introduce": True})
        with trio.fail_after(PATIENCE):
            assert await job.result() == "done"


async def test_jobs_reach_one_whose_introduction_is_read_after_it_was_found_to_be_ready() -> None:
    primary, _ = made(ANSWERING)
    # What it says first and that it is ready are there at once then.
    primary.on("online", lambda _: time.sleep(0.3))
    async with primary:
        job = await primary.submit("add", [20, 22])
        await primary.fork()
        with trio.fail_after(PATIENCE):
            assert await job.result() == 42


async def test_jobs_survive_the_kill_of_the_node_worker_that_has_them() -> None:
    primary, diary = made(ANSWERING, workers=2)
    async with primary:
        # For each worker to have said that it can be asked.
        for worker in primary.workers.values():
            assert await worker.request("add", [1, 1], timeout=PATIENCE) == 2
        victim = primary.worker("1")
        assert victim.current is not None
        jobs = [await primary.submit("add", [number, 0]) for number in range(100)]
        victim.current.kill()
        with trio.fail_after(PATIENCE):
            assert [await job.result() for job in jobs] == list(range(100))
        await diary.seen("ready", "1", count=2)


async def test_requests_under_way_are_lost_with_the_worker_and_say_so() -> None:
    primary, _ = made(ANSWERING, restart="never")
    errors: list[pyipc.ConnectionLost] = []
    async with primary:
        worker = await primary.fork()
        assert await worker.request("add", [1, 1], timeout=PATIENCE) == 2

        async def ask() -> None:
            with pytest.raises(pyipc.ConnectionLost) as caught:
                await worker.request("never")
            errors.append(caught.value)

        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(ask)
                while worker.in_flight < 5:  # noqa: ASYNC110 - of that there is no event
                    await trio.sleep(0.01)
                worker.kill(9)
    assert [each.maybe_handled for each in errors] == [True] * 5
