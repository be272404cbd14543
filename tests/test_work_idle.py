"""What an idle connection costs a server, counted instead of timed: memory, objects, tasks.

The bounds are a tenth above what was counted when they were written. Ten thousand connections are ten thousand times as
much, so who makes one of them grow should know, and have a reason.
"""

from __future__ import annotations

import gc
import math
import socket
import sys
import tracemalloc
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

import pyipc

if sys.platform != "win32":
    import resource

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio.lowlevel import Task

COUNT = 200
#: Both ends of every connection, and what a test has open besides.
FILES = 2 * COUNT + 50


def files_allowed() -> float:
    """How many files this process may have open."""
    if sys.platform == "win32":
        return math.inf
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return math.inf if soft == resource.RLIM_INFINITY else soft


pytestmark = [
    pytest.mark.time_limit(30),
    pytest.mark.skipif(
        files_allowed() < FILES, reason=f"cannot run here: it takes {FILES} open files, and ulimit -n allows fewer"
    ),
]

HELLO = b'{"type":"pyipc.hello","data":{"versions":[1],"heartbeat":null}}\f'


@contextmanager
def crowd() -> Iterator[list[socket.socket]]:
    """Sockets that have not called anybody yet, so that what is counted later is the server's alone."""
    sockets = [socket.socket() for _ in range(COUNT)]
    try:
        for each in sockets:
            each.settimeout(10)
        yield sockets
    finally:
        for each in sockets:
            each.close()


async def call(server: pyipc.Server, callers: list[socket.socket], first: bytes = b"") -> None:
    """Connect them all, say something, and wait until the server has nothing left to do."""
    (address,) = server.addresses
    for start in range(0, len(callers), 50):  # fewer than fit in any backlog
        for caller in callers[start : start + 50]:
            caller.connect(("127.0.0.1", address.port))
            caller.sendall(first)
        await settled(server, start + 50, bytes_each=len(first))


async def settled(server: pyipc.Server, count: int, bytes_each: int = 0) -> None:
    """Wait until there are so many connections, each of which has read so much and waits for more."""
    with trio.fail_after(10):
        while [each.statistics().bytes_received for each in server.connections] != [bytes_each] * count:  # noqa: ASYNC110
            await trio.sleep(0.001)  # the kernel tells the server, and nobody else, when bytes have come
    await trio.testing.wait_all_tasks_blocked()


def traced() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def objects() -> int:
    """How many objects the garbage collector looks at: half of what accepting costs is its work."""
    gc.collect()
    return len(gc.get_objects())


@pytest.fixture
def tracing() -> Iterator[None]:
    # A tracer, such as that of coverage, keeps something of its own for every frame, coroutines included.
    tracer = sys.gettrace()
    sys.settrace(None)
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()
        sys.settrace(tracer)


async def leave(server: pyipc.Server, callers: list[socket.socket]) -> None:
    for caller in callers:
        caller.close()
    await settled(server, 0)


@pytest.mark.parametrize(("first", "most"), [(b"", 8_100), (HELLO, 10_200)], ids=["plain", "introduced"])
async def test_memory(tracing: None, first: bytes, most: int) -> None:
    async with pyipc.Server("tcp://127.0.0.1:0", max_connections_per_peer=2 * COUNT) as server:
        # Fill what is filled once, and with more: a set into which much was put and taken out again may grow at any
        # time up to what holds twice as much.
        with crowd() as some, crowd() as others:
            await call(server, [*some, *others], first)
            await leave(server, [*some, *others])
        with crowd() as callers:
            before = traced()
            await call(server, callers, first)
            each = (traced() - before) / COUNT
            print(f"{each:,.0f} bytes for each idle connection")
            assert each <= most
            await leave(server, callers)
        left = (traced() - before) / COUNT
        assert left <= 100, "what a connection took was not given back"


async def test_objects() -> None:
    async with pyipc.Server("tcp://127.0.0.1:0") as server:
        with crowd() as others:  # make what is made once
            await call(server, others)
            await leave(server, others)
        with crowd() as callers:
            before = objects()
            await call(server, callers)
            each = (objects() - before) / COUNT
            print(f"{each:.3f} objects for each idle connection")
            assert each <= 53


class TaskCount(trio.abc.Instrument):
    def __init__(self) -> None:
        self.names: Counter[str] = Counter()

    def task_spawned(self, task: Task) -> None:
        self.names[task.name] += 1

    def task_exited(self, task: Task) -> None:
        self.names[task.name] -= 1


def nurseries_below(task: Task) -> int:
    return len(task.child_nurseries) + sum(
        nurseries_below(child) for nursery in task.child_nurseries for child in nursery.child_tasks
    )


@pytest.mark.parametrize("first", [b"", HELLO], ids=["plain", "introduced"])
async def test_one_task_and_no_nursery(first: bytes) -> None:
    count = TaskCount()
    async with pyipc.Server("tcp://127.0.0.1:0") as server:
        root = trio.lowlevel.current_root_task()
        assert root is not None
        await trio.testing.wait_all_tasks_blocked()
        with crowd() as callers:
            nurseries = nurseries_below(root)
            trio.lowlevel.add_instrument(count)
            await call(server, callers, first)
            trio.lowlevel.remove_instrument(count)
            assert +count.names == Counter({"pyipc.server.Server._serve": COUNT})
            assert nurseries_below(root) == nurseries
