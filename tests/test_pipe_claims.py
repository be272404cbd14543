"""What pipes ask of Windows when one process has their name and others serve it; where there is no Windows as well."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any, cast

import pytest
import trio
import trio.testing

from pyipc import parse_address
from pyipc.errors import AddressError, AddressInUse, ConnectionClosed, ListenError
from pyipc.transports import PipeInstance, pipe_claim
from pyipc.transports.pipe import PipeTransport
from pyipc.transports.pipe_backlog import BACKLOG
from pyipc.transports.pipe_claim import PipeClaim
from pyipc.transports.port import Peer
from tests.windows import ME, SOMEBODY, FakeWindows

if TYPE_CHECKING:
    from collections.abc import Iterator

ADDRESS = parse_address("pipe:world")
FIRST_INSTANCE = 0x8_0000


@pytest.fixture
def windows() -> FakeWindows:
    return FakeWindows()


@pytest.fixture(autouse=True)
def everything_is_freed() -> Iterator[None]:
    yield
    left = list(pipe_claim._UNDER_WAY)
    pipe_claim._UNDER_WAY.clear()
    assert left == []


async def claim(windows: FakeWindows, **options: Any) -> PipeClaim:
    claimed = await PipeTransport(windows=windows).claim(ADDRESS, options)
    assert isinstance(claimed, PipeClaim)
    return claimed


async def test_nothing_is_registered_by_who_takes_the_name(windows: FakeWindows) -> None:
    """A file belongs to the completion port of one process for the rest of its life."""
    claimed = await claim(windows)
    assert len(windows.named("create_named_pipe")) == BACKLOG
    handle = min(windows.instances)
    windows.take(handle)
    instance = await claimed.accept()
    assert (instance.handle, claimed.address, claimed.sockets) == (handle, ADDRESS, ())
    assert windows.registered == set()
    assert repr(claimed) == f"<PipeClaim on pipe:world, {BACKLOG} instances free, 0 taken>"
    assert repr(instance) == f"<PipeInstance, handle {handle}>"
    await claimed.aclose()
    assert windows.open == {handle}, "what was accepted stays open"
    instance.close()
    instance.close()
    assert not windows.open
    assert repr(instance) == "<PipeInstance, closed>"


async def test_the_name_and_who_may_use_it_are_those_of_a_listener(windows: FakeWindows) -> None:
    claimed = await claim(windows, allow=[SOMEBODY])
    await claimed.aclose()
    asked = windows.named("security"), [call[:-1] for call in windows.named("create_named_pipe")]
    windows.calls.clear()
    listener = await PipeTransport(windows=windows).listen(ADDRESS, {"allow": [SOMEBODY]})
    await listener.aclose()
    assert asked == (windows.named("security"), [call[:-1] for call in windows.named("create_named_pipe")])
    assert not windows.open


async def test_a_name_that_is_taken(windows: FakeWindows, autojump_clock: trio.testing.MockClock) -> None:
    first = await claim(windows)
    with pytest.raises(AddressInUse, match="another program has the pipe"):
        await claim(windows)
    await first.aclose()
    assert not windows.open


@pytest.mark.parametrize("call", ["create_named_pipe", "create_event"])
async def test_what_windows_refuses_leaves_nothing_open(windows: FakeWindows, call: str) -> None:
    windows.failures[call].append(8)
    with pytest.raises((ListenError, OSError)):
        await claim(windows)
    assert not windows.open


async def test_a_client_is_handed_out_once_there_is_an_instance_for_the_next_one(windows: FakeWindows) -> None:
    claimed = await claim(windows)
    handle = min(windows.instances)
    accepted: list[PipeInstance] = []

    async def accept() -> None:
        accepted.append(await claimed.accept())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        await trio.testing.wait_all_tasks_blocked()
        # Windows decides which instance a client takes, so all of them are watched, and by one thread.
        assert sorted(windows.named("connect_named_pipe")) == [(each,) for each in windows.instances]
        assert len(windows.named("wait_event")) == 1
        windows.take(handle)
    assert [each.handle for each in accepted] == [handle]
    assert sum(not instance.is_taken for instance in windows.instances.values()) == BACKLOG
    accepted[0].close()
    await claimed.aclose()
    assert not windows.open


@pytest.mark.parametrize("code", [535, 232])
async def test_a_client_that_was_there_before_is_not_waited_for(windows: FakeWindows, code: int) -> None:
    claimed = await claim(windows)
    windows.connecting[min(windows.instances)] = code
    instance = await claimed.accept()
    assert not windows.named("wait_event")
    instance.close()
    await claimed.aclose()
    assert not windows.open


async def test_whoever_comes_between_two_calls_of_accept_is_not_lost(windows: FakeWindows) -> None:
    claimed = await claim(windows)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(claimed.accept)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    first, second, *_ = sorted(windows.instances)
    windows.take(second)
    windows.take(first)
    found = {(await claimed.accept()).handle, (await claimed.accept()).handle}
    assert found == {first, second}
    assert len(windows.named("connect_named_pipe")) == BACKLOG, "each is asked once, and goes on being under way"
    await claimed.aclose()
    assert windows.open == found


async def test_clients_that_wait_in_line_are_handed_out_when_it_retires(windows: FakeWindows) -> None:
    claimed = await claim(windows)
    with trio.move_on_after(0):
        await claimed.accept()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(claimed.accept)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    first, second, *_ = sorted(windows.instances)
    windows.take(first)
    windows.take(second)
    assert sorted(each.handle for each in claimed.retire()) == [first, second]
    await claimed.aclose()
    assert windows.open == {first, second}
    assert list(claimed.retire()) == []


async def test_an_instance_that_cannot_be_watched_is_replaced(windows: FakeWindows) -> None:
    claimed = await claim(windows)
    one, two, *_ = sorted(windows.instances)
    windows.connecting[one] = 1450
    with pytest.raises(OSError, match="1450"):
        await claimed.accept()
    assert one not in windows.open
    windows.take(two)
    assert (await claimed.accept()).handle == two
    assert sum(not instance.is_taken for instance in windows.instances.values()) == BACKLOG
    await claimed.aclose()


async def test_an_instance_that_fails_while_it_is_watched_is_replaced(windows: FakeWindows) -> None:
    claimed = await claim(windows)
    one = min(windows.instances)

    async def accept() -> None:
        with pytest.raises(OSError, match="109"):
            await claimed.accept()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        await trio.testing.wait_all_tasks_blocked()
        windows.connecting[one] = 109
        windows.set_event(windows.instances[one].event)
    assert one not in windows.open
    windows.connecting.clear()
    await claimed.aclose()
    assert not windows.open


async def test_the_last_instance_is_kept_whatever_becomes_of_it(windows: FakeWindows) -> None:
    claimed = await claim(windows)
    windows.failures["create_named_pipe"].extend([1450] * 20)
    windows.connecting.update(dict.fromkeys(windows.instances, 1450))
    for _ in range(5):
        with pytest.raises(OSError, match="1450"):
            await claimed.accept()
        assert windows.instances, "the name is still ours"
    windows.failures.clear()
    windows.connecting.clear()
    with trio.move_on_after(0):
        await claimed.accept()
    windows.take(min(windows.instances))
    (await claimed.accept()).close()
    assert sum(not instance.is_taken for instance in windows.instances.values()) == BACKLOG
    await claimed.aclose()
    assert not windows.open


@pytest.mark.parametrize("waits", [True, False])
async def test_closing_wakes_whoever_waits_and_frees_everything_once(windows: FakeWindows, waits: bool) -> None:
    claimed = await claim(windows)

    async def accept() -> None:
        with pytest.raises(ConnectionClosed, match="the listener on pipe:world is closed"):
            await claimed.accept()

    async with trio.open_nursery() as nursery:
        if waits:
            nursery.start_soon(accept)
            await trio.testing.wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            scope.cancel()
            await claimed.aclose()
        assert scope.cancelled_caught
    assert not windows.open
    await claimed.aclose()
    await accept()
    closed = [handle for (handle,) in windows.named("close_handle")]
    assert len(closed) == len(set(closed)) == BACKLOG + 1


async def test_what_windows_may_still_write_to_is_not_freed(windows: FakeWindows) -> None:
    windows.is_slow = True
    claimed = await claim(windows)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(claimed.accept)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    await claimed.aclose()
    del claimed
    gc.collect()
    assert len(pipe_claim._UNDER_WAY) == BACKLOG
    pipe_claim._UNDER_WAY.clear()


# --- on the way ---


async def test_from_one_process_to_another(windows: FakeWindows) -> None:
    claimed = await claim(windows)
    windows.take(min(windows.instances))
    instance = await claimed.accept()
    number = instance.duplicate_into(4711)
    assert windows.named("duplicate_handle") == [(instance.handle, 4711)]
    assert instance.handle in windows.open, "it stays open here"
    windows.open.add(number)
    arrived = PipeInstance(number, windows=windows)
    told: list[bool] = []
    arrived.on_close = lambda: told.append(number in windows.open)
    link = PipeTransport(windows=windows).adopter(ADDRESS, {})(arrived)
    assert windows.registered == {number}
    assert link.peer == Peer(address="pipe:world", pid=4321, sid=ME)
    assert arrived.handle == -1, "the link has it now"
    arrived.close()
    assert not told
    await link.aclose()
    assert told == [False], "it is told once, when it is closed"
    instance.close()
    await claimed.aclose()
    assert not windows.open


async def test_clients_of_another_user_are_told_apart_where_they_are_served(windows: FakeWindows) -> None:
    windows.client = SOMEBODY
    adopt = PipeTransport(windows=windows).adopter(ADDRESS, {"allow": [SOMEBODY]})
    link = adopt(PipeInstance(windows._new_handle(), windows=windows))
    assert link.peer.sid == SOMEBODY
    await link.aclose()
    windows.is_client_dynamic = True
    link = adopt(PipeInstance(windows._new_handle(), windows=windows))
    assert link.needs_handshake
    windows.reads.append(b"hello")
    await link.handshake()
    assert link.peer.sid == SOMEBODY
    await link.aclose()


def test_an_instance_that_cannot_be_registered_is_still_the_callers(windows: FakeWindows) -> None:
    instance = PipeInstance(windows._new_handle(), windows=windows)
    windows.failures["register"].append(6)
    with pytest.raises(OSError, match="6"):
        PipeTransport(windows=windows).adopter(ADDRESS, {})(instance)
    instance.close()
    assert not windows.open


def test_something_else_than_an_instance(windows: FakeWindows) -> None:
    with pytest.raises(TypeError, match="is the instance of a pipe, and not 'a socket'"):
        PipeTransport(windows=windows).adopter(ADDRESS, {})(cast("Any", "a socket"))


def test_whom_windows_is_to_let_in_is_checked_before_anybody_comes(windows: FakeWindows) -> None:
    with pytest.raises(ValueError, match="security identifier"):
        PipeTransport(windows=windows).adopter(ADDRESS, {"allow": ["WD"]})


async def test_there_are_no_pipes_elsewhere() -> None:
    transport = PipeTransport()
    transport._windows = None
    with pytest.raises(AddressError, match="only Windows has named pipes"):
        await transport.claim(ADDRESS, {})
    with pytest.raises(AddressError, match="only Windows has named pipes"):
        transport.adopter(ADDRESS, {})
