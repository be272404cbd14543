"""What a Node primary sends before a worker has handlers waits, in order; answers do not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from pyipc.cluster.node.patience import PatientLink, event_name_in
from pyipc.transports import Peer, memory_link_pair

if TYPE_CHECKING:
    from pyipc.transports import Link


def frame(type: str, data: Any = None) -> bytes:
    return json.dumps({"type": type, "data": data}, separators=(",", ":")).encode() + b"\x0c"


REQUEST = frame("pyipc.request", {"call": 1, "event": "sum", "data": [1]})
REPLY, ERROR = frame("pyipc.reply", {"call": 1}), frame("pyipc.error", {"call": 2})


def made() -> tuple[PatientLink, Link]:
    one, other = memory_link_pair(Peer(address="node"), Peer(address="worker"))
    return PatientLink(one), other


async def received(link: PatientLink) -> bytes:
    with trio.fail_after(5):
        return await link.receive()


async def nothing_comes(link: PatientLink) -> None:
    with trio.move_on_after(0.02) as scope:
        await link.receive()
    assert scope.cancelled_caught


@pytest.mark.parametrize(
    ("text", "event"),
    [
        (frame("message", 1), "message"),
        (frame('a "name" \u2028', 1), 'a "name" \u2028'),
        (frame("x" * 2_000, 1), "x" * 2_000),
        (REQUEST, "sum"),
        (REPLY, None),
        (frame("pyipc.cancel", {"call": 1}), None),
        (frame("pyipc.request", {"call": 1}), None),
        (frame("pyipc.request", 1), None),
        (b'{"type":7}\x0c', None),
        (b'{"type":', None),
        (b'{"type":"pyipc.' + b"x" * 3_000 + b'"}\x0c', None),
        (b"\xff\x0c", None),
        (b"x" * 5_000, None),
    ],
)
def test_the_name_of_what_is_in_a_frame(text: bytes, event: str | None) -> None:
    assert event_name_in(text) == event


async def test_each_message_waits_for_a_handler_of_its_name_and_all_behind_it_wait_with_it() -> None:
    link, node = made()
    wanted: list[str] = []
    await node.send(frame("message", 1) + frame("message", 2) + frame("other", 3) + REQUEST + frame("message", 4))
    await nothing_comes(link)
    link.begin(wanted.append)
    await nothing_comes(link)
    link.taking("message")
    assert await received(link) == frame("message", 1) + frame("message", 2)
    link.taking("sum")
    await nothing_comes(link)
    link.taking("other")
    assert await received(link) == frame("other", 3) + REQUEST + frame("message", 4)
    assert list(dict.fromkeys(wanted)) == ["message", "other"]
    await node.send(frame("message", 5))
    assert await received(link) == frame("message", 5)


async def test_a_handler_that_is_there_is_found_at_once() -> None:
    link, node = made()
    link.begin(lambda event: link.taking(event))
    await node.send(frame("message", 1))
    assert await received(link) == frame("message", 1)


async def test_answers_pass_what_waits() -> None:
    link, node = made()
    link.begin(lambda event: None)
    await node.send(frame("message", 1) + REPLY + frame("message", 2) + ERROR)
    assert await received(link) == REPLY + ERROR
    link.settle()
    assert await received(link) == frame("message", 1) + frame("message", 2)


async def test_of_what_cannot_be_told_whether_it_is_an_answer_it_is_none() -> None:
    link, node = made()
    link.begin(lambda event: link.taking(event))
    await node.send(frame("pyipc." + "x" * 3_000) + REPLY)
    assert await received(link) == REPLY
    assert await received(link) == frame("pyipc." + "x" * 3_000)


@pytest.mark.parametrize("wake", ["taking", "settle"])
async def test_who_waits_is_woken(wake: str) -> None:
    link, node = made()
    link.begin(lambda event: None)
    await node.send(frame("message", 1))
    got: list[bytes] = []

    async def receive() -> None:
        got.append(await link.receive())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        link.settle() if wake == "settle" else link.taking("message")
        with trio.fail_after(5):
            while not got:
                await trio.lowlevel.checkpoint()
    assert got == [frame("message", 1)]


async def test_the_end_lets_everything_through_and_comes_last() -> None:
    link, node = made()
    link.begin(lambda event: None)
    await node.send(frame("message", 1))
    await node.aclose()
    assert await received(link) == frame("message", 1)
    assert await received(link) == b""


async def test_once_much_waits_nothing_more_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyipc.cluster.node.patience._MAX_HELD", 100)
    link, node = made()
    link.begin(lambda event: None)
    await node.send(frame("message", "x" * 200))
    await nothing_comes(link)
    await node.send(REPLY)
    await nothing_comes(link)
    link.taking("message")
    assert await received(link) == frame("message", "x" * 200)
    assert await received(link) == REPLY


async def test_cancellation_loses_nothing() -> None:
    link, node = made()
    link.taking("message")
    link.begin(lambda event: None)
    await node.send(frame("message", 1))
    with trio.CancelScope() as scope:
        scope.cancel()
        await link.receive()
    assert await received(link) == frame("message", 1)
