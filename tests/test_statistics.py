"""Statistics: each counter is documented, and there is a test in which it moves."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

import pyipc
from pyipc.testing import pair
from pyipc.transports import Link, Listener, Transport, transport_for
from tests.statistics_page import CLASSES, meanings, page
from tests.wire import hello, join

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from trio.testing import MockClock

TESTS = Path(__file__).resolve().parent
COUNTERS = sorted(
    {
        field.name
        for kind in CLASSES.values()
        if kind is not pyipc.Disconnected
        for field in dataclasses.fields(kind)
        if field.name != "connection"
    }
)


def test_the_page_is_the_one_that_the_code_makes() -> None:
    written = (TESTS.parent / "docs" / "reference" / "statistics.md").read_text("utf-8")
    assert written == page(), "python -m tests.statistics_page > docs/reference/statistics.md"


@pytest.mark.parametrize("kind", CLASSES.values(), ids=lambda kind: kind.__name__)
def test_every_field_says_what_it_means(kind: type[object]) -> None:
    assert dataclasses.is_dataclass(kind)
    said = meanings(kind)
    assert list(said) == [field.name for field in dataclasses.fields(kind)]
    assert all(text.endswith(".") and len(text) > 8 for text in said.values())


def test_no_class_is_left_out() -> None:
    from pyipc import statistics

    assert {kind.__name__ for kind in CLASSES.values()} == set(statistics.__all__)


def moved_in(source: str) -> Iterator[str]:
    """The attributes and keywords that a test expects to have a value other than none: in asserts, or waited for."""
    for node in ast.walk(ast.parse(source)):
        expectations = [node.test] if isinstance(node, ast.Assert) else []
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"until", "settled"}:
            expectations += node.args
        for expectation in expectations:
            if ast.unparse(expectation).endswith(("== 0", "is False", "== (0, 0)")):
                continue
            for part in ast.walk(expectation):
                if isinstance(part, ast.Attribute):
                    yield part.attr
                elif isinstance(part, ast.keyword) and part.arg is not None and ast.unparse(part.value) != "0":
                    yield part.arg


MOVED = {name for path in TESTS.rglob("test_*.py") for name in moved_in(path.read_text("utf-8"))}


@pytest.mark.parametrize("counter", COUNTERS)
def test_there_is_a_test_in_which_it_moves(counter: str) -> None:
    assert counter in MOVED, f"no test expects {counter} to be anything but zero"


def test_what_moves_is_read_as_written() -> None:
    source = "assert a.x == 1\nassert b.y == 0\nuntil(lambda: c.z > 1)\nassert R(u=1, v=0) == d\nprint(e.w)"
    assert set(moved_in(source)) >= {"x", "z", "u"}
    assert not set(moved_in(source)) & {"y", "v", "w"}


# --- those that no other test is about ----------------------------------------------------------------------------


async def test_attachments_are_counted_on_both_sides() -> None:
    router = pyipc.Router()
    router.on("sizes", lambda message: [len(each) for each in message.attachments])
    async with pair(router) as (client, server):
        assert await client.request("sizes", attachments=[b"1234", b"12"]) == [4, 2]
        await client.emit("sizes", attachments=[b"123"])
        await client.request("sizes")
        (connection,) = server.connections
        ours, theirs = client.statistics().connection, connection.statistics()
        assert ours is not None
        assert (ours.attachments_sent, ours.attachments_sent_size) == (3, 9)
        assert (theirs.attachments_received, theirs.attachments_received_size) == (3, 9)


async def test_what_waits_for_a_connection_is_weighed() -> None:
    frame = b'{"type":"e","data":null}\f'
    with pytest.raises(pyipc.Undelivered):
        async with pyipc.connect("memory:nobody", wait=False, close_timeout=0.01) as client:
            await client.emit("e")
            await client.emit("e")
            statistics = client.statistics()
            assert (statistics.offline_messages, statistics.offline_size) == (2, 2 * len(frame))


class Failing(Transport):
    """Listens, but for want of something accepts nobody the first times."""

    def __init__(self, failures: int = 1) -> None:
        self._failures = failures

    async def connect(self, address: pyipc.Address, options: Mapping[str, object]) -> Link:
        raise AssertionError("nobody connects")

    async def listen(self, address: pyipc.Address, options: Mapping[str, object]) -> Listener:
        return FailingListener(await transport_for("memory").listen(address, options), self._failures)


class FailingListener(Listener):
    def __init__(self, listener: Listener, failures: int) -> None:
        self._listener = listener
        self._failures = failures

    @property
    def address(self) -> pyipc.Address:
        return self._listener.address

    async def accept(self) -> Link:
        if self._failures:
            self._failures -= 1
            raise OSError("too many open files")
        return await self._listener.accept()

    async def aclose(self) -> None:
        await self._listener.aclose()


async def test_failures_to_accept_are_counted(autojump_clock: MockClock) -> None:
    endpoint = pyipc.Endpoint("memory:failing", transport=Failing())
    async with pyipc.Server(endpoint) as server, pyipc.connect("memory:failing"):
        await trio.sleep(1)
        assert server.statistics().accept_errors == 1
        assert server.statistics().accepted == 1


async def test_whoever_cannot_accept_tries_again_but_not_at_once(autojump_clock: MockClock) -> None:
    """A server that has run out of descriptors must neither turn its whole time to that nor stay away for ever."""
    endpoint = pyipc.Endpoint("memory:failing", transport=Failing(failures=100))
    async with pyipc.Server(endpoint) as server, pyipc.connect("memory:failing") as client:
        server.on("now", lambda message: trio.current_time())
        began = trio.current_time()
        assert 1 <= await client.request("now") - began <= 25
        assert server.statistics().accept_errors == 100


async def test_a_drain_says_what_could_not_be_sent(autojump_clock: MockClock) -> None:
    async with pyipc.Server(close_timeout=0.1) as server:
        peer = join(server, buffer_size=1_000)
        await peer.send(hello())
        await peer.read_until("pyipc.welcome")
        (connection,) = server.connections
        for _ in range(3):
            await connection.emit("large", "x" * 2_000)
        report = await server.drain(timeout=0.1)
        assert (report.left, report.cut_off, report.undelivered) == (0, 1, 3)
        await peer.link.aclose()


async def test_what_is_printed_shows_the_state() -> None:
    server = pyipc.Server("memory:repr")
    assert "not running" in repr(server)
    async with server:
        assert "listening, 0 connections" in repr(server)
        async with pyipc.connect("memory:repr") as client:
            assert "connected, 0 queued" in repr(client)
            await trio.testing.wait_all_tasks_blocked()
            (connection,) = server.connections
            assert "open protocol=pyipc/1" in repr(connection)
            assert "new, 0 waiting" in repr(client.stream("rows"))
        assert "closed" in repr(client)
        await connection.wait_closed()
        assert "closed" in repr(connection)
    assert "closed" in repr(server)
