"""Python programs that a real Node program has started: as workers of its cluster, and as plain children."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.cluster.node_primary import PROGRAMS, node_program
from tests.cluster.processes import Watched
from tests.conftest import needs_node_channel

if TYPE_CHECKING:
    from tests.cluster.node_primary import Kind

pytestmark = [
    needs_node_channel,
    pytest.mark.usefixtures("nothing_is_left"),
]
#: What Node says of one that was to leave; of children it says nothing.
VOLUNTARY = {"worker": True, "child": None}
both = pytest.mark.parametrize("kind", ["worker", "child"])

MEBIBYTE = 1024 * 1024
#: What a process may grow by while a hundred messages of a mebibyte go through it; Linux counts in 1,024 bytes.
LITTLE = 40 * (1024 if sys.platform == "linux" else MEBIBYTE)
#: Lone halves of surrogate pairs, what JSON escapes, what only JavaScript once minded, and both ends of it all.
TEXTS = ["é", "\u2028\u2029", "😀", "\0\x01\x0c\x7f", "\ud800", "\udc00x", 'NODE_ "quoted" \\', "", "\uffff", "pyipc."]


# --- who it is ---


async def test_a_worker_of_nodes_cluster_is_one_and_knows_its_id() -> None:
    async with node_program() as node:
        pid = await node.fork()
        told = {"id": "1", "pid": pid, "role": "", "is_worker": True, "is_primary": False, "told": []}
        assert await node.told("who are you") == told
        await node.fork("two")
        assert (await node.told("who are you", "two"))["id"] == "2"


async def test_a_plain_child_is_no_worker_of_a_cluster_but_has_a_parent() -> None:
    async with node_program() as node:
        pid = await node.fork(kind="child")
        told = {"id": str(pid), "pid": pid, "role": "", "is_worker": False, "is_primary": True, "told": []}
        assert await node.told("who are you") == told


async def test_a_primary_of_pyipc_that_a_node_program_has_started_stays_one() -> None:
    async with node_program() as node:
        await node.fork(kind="child", program=PROGRAMS / "primary_under_node.py")
        answer = await node.wait_for("message", name="one", timeout=60)
        assert answer["data"] == {"is_primary": True, "workers": [{"id": "1", "told": []}, {"id": "2", "told": []}]}
        assert (await node.wait_for("exit", name="one"))["code"] == 0


@both
async def test_a_channel_that_only_node_can_read_is_an_error_that_says_so(kind: Kind) -> None:
    async with node_program() as node:
        await node.fork(kind=kind, serialization="advanced", program=PROGRAMS / "joining.py")
        assert (await node.wait_for("exit", name="one"))["code"] == 3  # its standard error is this one's


async def test_variables_that_are_left_over_from_another_program_are_an_error_that_says_so() -> None:
    code = "from pyipc import cluster; print(cluster.is_worker); cluster.run_worker(None)"
    left = {"NODE_CHANNEL_FD": "3", "NODE_CHANNEL_SERIALIZATION_MODE": "json", "NODE_UNIQUE_ID": "1"}
    ended = await trio.run_process(
        [sys.executable, "-c", code], env=os.environ | left, capture_stdout=True, capture_stderr=True, check=False
    )
    assert (ended.returncode, ended.stdout.strip()) == (1, b"False")
    assert b"Have Node start this program itself" in ended.stderr


# --- messages ---


@both
async def test_messages_are_the_same_at_the_other_end(kind: Kind) -> None:
    values: list[Any] = [0, -1.5, True, False, None, [], {}, {"cmd": "NODE_"}, {"cmd": 1}, {"type": "x"}, [{"a": None}]]
    async with node_program() as node:
        await node.fork(kind=kind)
        for value in [*values, *TEXTS, {text: text for text in TEXTS}]:
            assert await node.told({"echo": value}) == {"echo": value}


@both
async def test_a_hundred_thousand_messages_each_way_arrive_in_order(kind: Kind) -> None:
    async with node_program() as node:
        await node.fork(kind=kind)
        await node.ask("flood", name="one", count=100_000)
        await node.send({"flood": 100_000})
        # It handles them in order, so it begins with its own when it has them all.
        assert (await node.wait_for("counted", timeout=60, name="one"))["count"] == 100_000
        assert await node.heard() == {"counted": 100_000}
        assert not [each for each in node.reports if each["report"] == "disorder" or "disorder" in str(each)]


@both
async def test_messages_of_a_mebibyte_go_both_ways(kind: Kind) -> None:
    async with node_program() as node:
        await node.fork(kind=kind)
        for _ in range(3):
            await node.ask("big", name="one", pairs=MEBIBYTE // 6)
        for _ in range(3):
            big = await node.wait_for("big", name="one")
            assert (big["size"], big["is_whole"]) == (MEBIBYTE // 6 * 3, True)


@both
async def test_what_is_nodes_own_reaches_no_program_and_harms_none(kind: Kind) -> None:
    thrown: list[dict[str, Any]] = [
        {"cmd": f"NODE_{name}"}
        # Not HANDLE, as it is answered, and a Node that has not really sent one is ended by an assertion then.
        for name in ("HANDLE_ACK", "HANDLE_NACK", "SOCKET_NOTIFY_CLOSE", "SOCKET_ALL_CLOSED", "SOCKET_GET_COUNT")
    ]
    thrown += [{"cmd": f"NODE_{name}"} for name in ("SOCKET_COUNT", "DEBUG_ENABLED", "X", "CLUSTER", "é")]
    thrown += [{"cmd": "NODE_SOCKET_GET_COUNT", "key": "k"}, {"cmd": "NODE_SOCKET_NOTIFY_CLOSE", "key": "k"}]
    acts: tuple[object, ...] = (
        "online",
        "queryServer",
        "listening",
        "newconn",
        "close",
        "exitedAfterDisconnect",
        "what",
        7,
        None,
        {},
    )
    thrown += [{"cmd": "NODE_CLUSTER", "act": act, "key": "k", "seq": 1} for act in acts]
    acks: tuple[object, ...] = (0, 1, -1, "x", None, [], 1e300)
    thrown += [{"cmd": "NODE_CLUSTER", "ack": ack} for ack in acks]
    async with node_program() as node:
        await node.fork(kind=kind)
        assert await node.told({"echo": 0}) == {"echo": 0}
        for message in thrown:
            await node.send(message)
        assert await node.told({"echo": 1}) == {"echo": 1}
        assert not [each for each in node.reports if "NODE_" in str(each.get("data"))]


@both
@pytest.mark.parametrize("args", [[], ["late"]])
async def test_what_cannot_be_read_is_left_out_and_told(kind: Kind, args: list[str]) -> None:
    deep: list[Any] = []
    for _ in range(100):
        deep = [deep]
    async with node_program() as node:
        await node.fork(kind=kind, args=args)
        for message in (
            {"type": "pyipc." + "x" * 3_000, "data": 1},
            {"type": "pyipc.event"},
            {"type": "pyipc.event", "data": {"event": "x" * 300}},
            deep,
        ):
            await node.send(message)
        assert await node.told({"echo": 1}) == {"echo": 1}
    name = {"worker": "the Node primary", "child": "the Node parent"}[kind]
    assert f"{name} has sent an event without a good name; it is left out" in node.stderr
    assert node.stderr.count("the frame was skipped") == 2


@both
@pytest.mark.parametrize(
    ("message", "why"),
    [
        ({"type": "pyipc.reply", "data": {"call": 77}}, "the peer answered call 77, which was never made"),
        ({"type": "pyipc.request"}, "the peer sent a malformed pyipc.request frame"),
        ({"type": "pyipc.goodbye"}, "the peer closed"),
    ],
)
async def test_what_ends_the_channel_is_a_failure_that_says_why(kind: Kind, message: object, why: str) -> None:
    async with node_program() as node:
        await node.fork(kind=kind)
        await node.told({"echo": 1})
        await node.send(message)
        assert (await node.wait_for("exit", name="one"))["code"] == 1
    name = {"worker": "the Node primary", "child": "the Node parent"}[kind]
    assert f"ClusterError: the channel to {name} was closed: {why}" in node.stderr


@both
async def test_what_a_node_program_cannot_do_is_an_error_at_once(kind: Kind) -> None:
    async with node_program() as node:
        await node.fork(kind=kind)
        assert await node.told("refuse") == ["ClusterError"] * 4 + ["LocalProtocolError"] * 2 + ["PeerLacksFeature"] * 2


@both
async def test_each_asks_the_other(kind: Kind) -> None:
    async with node_program() as node:
        await node.fork(kind=kind)
        request = {"type": "pyipc.request", "data": {"call": 7, "event": "add", "data": [1, 2]}}
        assert await node.told(request) == {"type": "pyipc.reply", "data": {"call": 7, "data": 3}}
        assert await node.told({"ask": ["double", 4]}) == 8


@both
async def test_what_is_sent_while_a_program_starts_waits_for_its_handlers(kind: Kind) -> None:
    async with node_program() as node:
        await node.fork(kind=kind, args=["late"])
        for number in range(5):
            await node.send({"echo": number})
        assert [await node.heard() for _ in range(5)] == [{"echo": number} for number in range(5)]


@both
async def test_a_program_that_is_not_ready_gets_answers_and_what_it_waits_for_before_what_is_early(kind: Kind) -> None:
    async with node_program() as node:
        await node.fork(kind=kind, args=["unready"])
        config = {"type": "pyipc.event", "data": {"event": "config", "data": "as told"}}
        await node.send(config)
        await node.send({"echo": 1})
        assert [await node.heard() for _ in range(3)] == [42, "as told", {"echo": 1}]


@both
async def test_who_never_handles_messages_loses_them_once_it_is_ready_and_leaves_in_order(kind: Kind) -> None:
    async with node_program() as node:
        await node.fork(kind=kind, args=["mute"])
        await node.send("for nobody")
        await node.ask("disconnect", name="one")
        assert (await node.wait_for("exit", name="one"))["code"] == 0


@both
async def test_a_node_program_that_does_not_read_is_waited_for(kind: Kind) -> None:
    async with node_program() as node:
        await node.fork(kind=kind)
        before = await node.told("how large")
        await node.post("send", name="one", data={"push": 100, "size": MEBIBYTE}, number=-1)
        await node.post("block", seconds=2, number=-2)
        waited = (await node.heard())["waited"]
        assert waited > 1
        assert await node.told("how large") - before < LITTLE
        assert sum(each["report"] == "big" for each in node.reports) == 100


@both
async def test_a_node_program_is_not_read_while_a_handler_is_slow(kind: Kind) -> None:
    async with node_program() as node:
        await node.fork(kind=kind)
        before = await node.told("how large")
        await node.send({"sleep": 1.5})
        await node.ask("many", name="one", count=100, size=MEBIBYTE)
        assert await node.told("how large") - before < LITTLE


# --- leaving ---


@both
async def test_a_program_whose_parent_disconnects_finishes_and_ends_in_order(kind: Kind) -> None:
    async with node_program() as node:
        await node.fork(kind=kind)
        await node.told({"echo": 1})
        await node.send("report when you leave")
        if kind == "worker":
            await node.send("say goodbye when you leave")
        for number in range(100):
            await node.post("send", name="one", data={"slowly": number}, number=-number)
        await node.ask("disconnect", name="one")
        ended = await node.wait_for("exit", name="one")
        assert (ended["code"], ended["signal"], ended.get("voluntary")) == (0, None, VOLUNTARY[kind])
        assert [each for each in node.kinds() if each != "left"][-2:] == ["disconnect", "exit"]
        assert (await node.wait_for("left"))["count"] == 100, "what had arrived was not handled"
        assert [each["data"] for each in node.reports if each["report"] == "message"][1:] == (
            ["goodbye"] if kind == "worker" else []  # to a child the channel is closed by it
        )


async def test_a_worker_that_is_to_leave_before_its_program_has_begun_does_so() -> None:
    async with node_program() as node:
        await node.fork()
        await node.ask("disconnect", name="one")
        ended = await node.wait_for("exit", name="one")
        assert (ended["code"], ended["signal"], ended["voluntary"]) == (0, None, True)
        await node.fork("child", "child")
        await node.ask("disconnect", name="child")
        assert (await node.wait_for("exit", name="child"))["code"] == 0


@both
async def test_a_program_that_disconnects_says_so_and_ends_in_order(kind: Kind) -> None:
    async with node_program() as node:
        await node.fork(kind=kind)
        await node.send("leave")
        ended = await node.wait_for("exit", name="one")
        assert (ended["code"], ended["signal"], ended.get("voluntary")) == (0, None, VOLUNTARY[kind])
        assert node.kinds()[-2:] == ["disconnect", "exit"]


@both
async def test_what_is_said_last_arrives(kind: Kind) -> None:
    """Node itself loses these."""
    async with node_program() as node:
        await node.fork(kind=kind)
        await node.send({"last": 5, "size": 200_000})
        for _ in range(5):
            big = await node.wait_for("big", name="one")
            assert (big["size"], big["is_whole"]) == (600_000, True)
        assert (await node.wait_for("exit", name="one"))["code"] == 0


async def test_a_parent_that_hangs_up_by_the_last_message_is_not_harmed_by_what_comes_behind_it() -> None:
    async with node_program() as node:
        await node.fork(kind="child")
        await node.send("hang up")
        assert (await node.wait_for("exit", name="one"))["code"] == 0
        await node.fork("two")  # it is there


@both
async def test_sigterm_lets_a_program_finish(kind: Kind) -> None:
    async with node_program() as node:
        await node.fork(kind=kind)
        await node.told({"echo": 1})
        await node.send("say goodbye when you leave")
        await node.told({"echo": 2})
        await node.ask("kill", name="one", signal="SIGTERM")
        assert await node.heard() == "goodbye"
        ended = await node.wait_for("exit", name="one")
        assert (ended["code"], ended["signal"], ended.get("voluntary")) == (
            0,
            None,
            False if kind == "worker" else None,
        )


@both
async def test_sigint_does_as_well_since_process_managers_on_node_stop_by_it(kind: Kind) -> None:
    async with node_program() as node:
        await node.fork(kind=kind)
        await node.told({"echo": 1})
        await node.ask("kill", name="one", signal="SIGINT")
        assert (await node.wait_for("exit", name="one"))["code"] == 0


@both
async def test_a_program_that_is_killed_is_seen_to_be(kind: Kind) -> None:
    async with node_program() as node:
        await node.fork(kind=kind)
        await node.told({"echo": 1})
        await node.ask("kill", name="one", signal="SIGKILL")
        ended = await node.wait_for("exit", name="one")
        assert (ended["code"], ended["signal"]) == (None, "SIGKILL")
        await node.fork("two", kind=kind)
        assert await node.told({"echo": 2}, "two") == {"echo": 2}


@both
async def test_when_the_node_program_is_killed_what_it_has_started_ends(kind: Kind) -> None:
    async with node_program() as node:
        process = Watched(await node.fork(kind=kind))
        await node.told({"echo": 1})
        await node.kill()
        assert await process.wait(10)


async def test_a_worker_that_hangs_ends_as_well() -> None:
    async with node_program() as node:
        process = Watched(await node.fork())
        await node.told({"echo": 1})
        await node.send("hang")
        node.process.send_signal(signal.SIGKILL)
        assert await process.wait(15)
        await node.wait_ended()
