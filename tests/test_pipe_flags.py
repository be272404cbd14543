"""What pipes ask of Windows, and in which order; where there is no Windows as well.

Some of it Wine accepts and does not enforce, and some of it goes wrong too rarely to be waited for, so it is looked at
here: flags, the security of a pipe, that its name is never free, and that no handle is left open or closed too soon.
"""

from __future__ import annotations

import functools
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from pyipc import parse_address
from pyipc.errors import (
    AddressError,
    AddressInUse,
    ConnectError,
    ConnectionClosed,
    ConnectionLost,
    HandshakeFailed,
    ListenError,
)
from pyipc.transports.pipe import PipeTransport
from pyipc.transports.pipe_backlog import BACKLOG
from pyipc.transports.pipe_link import PipeLink
from pyipc.transports.pipe_listener import PipeListener
from pyipc.transports.port import Peer
from pyipc.transports.windows_api import WindowsApi
from tests.conftest import CANNOT_RUN
from tests.windows import ME, SOMEBODY, FakeWindows, windows_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyipc.transports.port import Link

ADDRESS = parse_address("pipe:world")
NAME = r"\\.\pipe\world"

OVERLAPPED = 0x4000_0000
FIRST_INSTANCE = 0x8_0000
DUPLEX = 0x3
REJECT_REMOTE_CLIENTS = 0x8
IDENTIFICATION_ONLY = 0x11_0000
READ_WRITE = 0xC000_0000


@pytest.fixture
def windows() -> FakeWindows:
    return FakeWindows()


async def listen(windows: FakeWindows, text: str = "pipe:world", **options: Any) -> PipeListener:
    listener = await PipeTransport(windows=windows).listen(parse_address(text), options)
    assert isinstance(listener, PipeListener)
    return listener


async def connect(windows: FakeWindows, text: str = "pipe:world", **options: Any) -> Link:
    return await PipeTransport(windows=windows).connect(parse_address(text), options)


# --- creating ---


async def test_how_instances_are_created(windows: FakeWindows) -> None:
    listener = await listen(windows)
    created = windows.named("create_named_pipe")
    assert len(created) == BACKLOG > 1
    for number, (name, open_mode, pipe_mode, instances, out_size, in_size, timeout, _) in enumerate(created):
        assert name == NAME
        # Whoever makes the first one says who may use the pipe; so it must be us, and only it can be the first.
        assert open_mode == DUPLEX | OVERLAPPED | (FIRST_INSTANCE if number == 0 else 0)
        assert pipe_mode == REJECT_REMOTE_CLIENTS  # and a stream of bytes: each of those flags is 0
        assert (instances, out_size, in_size, timeout) == (255, 65_536, 65_536, 0)
    assert windows.registered == set(windows.instances)
    await listener.aclose()
    assert not windows.open


@pytest.mark.parametrize(
    ("options", "sddl"),
    [
        ({}, f"O:{ME}D:P(A;;GA;;;{ME})"),
        ({"allow": [ME]}, f"O:{ME}D:P(A;;GA;;;{ME})"),
        ({"allow": {SOMEBODY}}, f"O:{ME}D:P(A;;GA;;;{ME})(A;;0x12019b;;;{SOMEBODY})"),
        ({"allow": ("S-1-1-0",)}, f"O:{ME}D:P(A;;GA;;;{ME})(A;;0x12019b;;;S-1-1-0)"),
    ],
)
async def test_who_may_use_the_pipe(windows: FakeWindows, options: dict[str, Any], sddl: str) -> None:
    listener = await listen(windows, **options)
    assert windows.named("security") == [(sddl,)]
    assert {instance.security.sddl for instance in windows.instances.values()} == {sddl}
    rights = int("12019b", 16)
    assert not rights & 0x4, "FILE_CREATE_PIPE_INSTANCE would let others take clients away"
    assert rights == (0x120089 | 0x120116) & ~0x4, "all else of FILE_GENERIC_READ and FILE_GENERIC_WRITE"
    await listener.aclose()


@pytest.mark.parametrize("allow", ["S-1-1-0", 5, ["WD"], ["S-1-1-0)(A;;GA;;;WD"], ["S-1"], ["s-1-1-0"], [1000], [""]])
async def test_only_security_identifiers_become_part_of_the_rights(windows: FakeWindows, allow: object) -> None:
    with pytest.raises((TypeError, ValueError), match="security identifier"):
        await listen(windows, allow=allow)
    assert windows.calls == []


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("pipe:world", r"\\.\pipe\world"),
        ("world", rf"\\.\pipe\pyipc-{ME}-world"),
        ("node-ipc:world", r"\\.\pipe\tmp-app.world"),
    ],
)
async def test_the_names_of_pipes(windows: FakeWindows, address: str, name: str) -> None:
    listener = await listen(windows, address)
    assert {instance.name for instance in windows.instances.values()} == {name}
    assert listener.address == parse_address(address)
    await (await connect(windows, address)).aclose()
    assert windows.named("create_file")[0][0] == name
    assert [place.name for place in PipeTransport(windows=windows).places(parse_address(address))] == [name]
    await listener.aclose()


async def test_a_name_that_is_too_long_with_what_is_put_in_front(windows: FakeWindows) -> None:
    with pytest.raises(AddressError, match="256 characters"):
        await listen(windows, "node-ipc:" + "x" * 245)
    await (await listen(windows, "node-ipc:" + "x" * 239)).aclose()


async def test_a_name_that_is_taken(windows: FakeWindows, autojump_clock: trio.testing.MockClock) -> None:
    first = await listen(windows)
    windows.calls.clear()
    with pytest.raises(AddressInUse, match="another program has the pipe of pipe:world"):
        await listen(windows)
    assert 0.5 < trio.current_time() < 2, "clients of a server that has ended get a moment to notice"
    assert all(open_mode & FIRST_INSTANCE for _, open_mode, *_ in windows.named("create_named_pipe"))
    await first.aclose()
    assert not windows.open


async def test_a_name_that_becomes_free(windows: FakeWindows, autojump_clock: trio.testing.MockClock) -> None:
    windows.failures["create_named_pipe"].extend([5, 231, 5])
    await (await listen(windows)).aclose()
    assert not windows.open


async def test_a_name_that_windows_refuses(windows: FakeWindows) -> None:
    windows.failures["create_named_pipe"].append(123)
    with pytest.raises(ListenError, match="cannot listen on pipe:world") as caught:
        await listen(windows)
    assert type(caught.value) is ListenError
    assert isinstance(caught.value.__cause__, OSError)
    assert not windows.open


async def test_an_instance_that_cannot_be_registered_is_closed(windows: FakeWindows) -> None:
    windows.failures["register"].append(87)
    with pytest.raises(ListenError):
        await listen(windows)
    assert not windows.open


async def test_an_option_that_does_not_exist(windows: FakeWindows) -> None:
    with pytest.raises(TypeError, match="no option 'mode'; the options are allow"):
        await listen(windows, mode=0o660)
    with pytest.raises(TypeError, match="no option 'allow'"):
        await connect(windows, allow=[ME])


# --- accepting ---


async def test_a_client_is_handed_out_once_there_is_an_instance_for_the_next_one(windows: FakeWindows) -> None:
    listener = await listen(windows)
    handle = next(iter(windows.instances))
    windows.calls.clear()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_accept_and_check, listener, windows, handle)
        await trio.testing.wait_all_tasks_blocked()
        # Windows decides which instance a client takes, so all of them are watched.
        assert sorted(windows.named("wait_overlapped")) == [(each,) for each in windows.instances]
        windows.take(handle)
    await listener.aclose()
    assert not windows.open


async def _accept_and_check(listener: PipeListener, windows: FakeWindows, handle: int) -> None:
    link = await listener.accept()
    names = windows.names()
    assert names.index("create_named_pipe") < names.index("client_process_id")
    assert sum(not instance.is_taken for instance in windows.instances.values()) == BACKLOG
    assert link.peer == Peer(address="pipe:world", pid=4321, sid=ME)
    await link.aclose()
    assert windows.named("close_handle") == [(handle,)]


@pytest.mark.parametrize("code", [535, 232])
async def test_a_client_that_was_there_before_is_not_waited_for(windows: FakeWindows, code: int) -> None:
    listener = await listen(windows)
    first = next(iter(windows.instances))
    windows.connecting[first] = code
    link = await listener.accept()
    assert (first,) not in windows.named("wait_overlapped"), "Windows reports no more of it, so trio would end all"
    await link.aclose()
    await listener.aclose()
    assert not windows.open


async def test_two_clients_that_come_at_once_are_both_handed_out(windows: FakeWindows) -> None:
    listener = await listen(windows)
    one, two, *_ = windows.instances

    async def come() -> None:
        await trio.testing.wait_all_tasks_blocked()
        windows.take(one)
        windows.take(two)

    links = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(come)
        links.append(await listener.accept())
    links.append(await listener.accept())
    assert len(windows.named("create_named_pipe")) == BACKLOG + 2
    for link in links:
        await link.aclose()
    assert {arguments[0] for arguments in windows.named("close_handle")} == {one, two}
    await listener.aclose()
    assert not windows.open


async def test_a_client_that_comes_as_accepting_is_cancelled_is_not_lost(windows: FakeWindows) -> None:
    listener = await listen(windows)
    handle = next(iter(windows.instances))
    with trio.CancelScope() as scope:

        async def come_and_cancel() -> None:
            await trio.testing.wait_all_tasks_blocked()
            windows.take(handle)
            scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(come_and_cancel)
            await listener.accept()
            pytest.fail("it was cancelled")
    link = await listener.accept()
    await link.aclose()
    assert windows.named("close_handle")[-1] == (handle,)
    await listener.aclose()
    assert not windows.open


async def test_cancelling_leaves_every_instance_to_be_taken(windows: FakeWindows) -> None:
    listener = await listen(windows)
    before = set(windows.instances)
    for _ in range(3):
        with trio.move_on_after(0):
            await listener.accept()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(listener.accept)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
    assert set(windows.instances) == before
    await listener.aclose()
    assert not windows.open


async def test_without_handles_for_another_instance_the_last_client_waits(windows: FakeWindows) -> None:
    """Handing out the client of the last instance would leave the name to whoever comes first."""
    listener = await listen(windows)
    for handle in tuple(windows.instances):
        windows.take(handle)
    links = []
    for _ in range(BACKLOG):
        windows.failures["create_named_pipe"].extend([1450])
        with pytest.raises(OSError, match="1450"):
            while True:
                links.append(await listener.accept())
                windows.failures["create_named_pipe"].append(1450)
        for handle in tuple(windows.instances):
            if not windows.instances[handle].is_taken:
                windows.take(handle)
        assert windows.instances, "the name is still ours"
    assert len(links) < BACKLOG
    windows.failures.clear()
    while len(links) < BACKLOG:
        links.append(await listener.accept())
    for link in links:
        await link.aclose()
    await listener.aclose()
    assert not windows.open


async def test_an_instance_that_cannot_be_watched_is_replaced(windows: FakeWindows) -> None:
    listener = await listen(windows)
    one, two, *_ = windows.instances
    windows.connecting[one] = 1450
    with pytest.raises(OSError, match="1450"):
        await listener.accept()
    assert one not in windows.open
    windows.connecting[two] = 535
    link = await listener.accept()
    await link.aclose()
    await listener.aclose()
    assert not windows.open


async def test_a_server_recovers_from_a_shortage_of_handles_while_clients_are_connected(windows: FakeWindows) -> None:
    """Windows would let nobody be the first again, as long as a client is connected."""
    listener = await listen(windows)
    windows.take(min(windows.instances))
    link = await listener.accept()
    handles = {handle for handle, instance in windows.instances.items() if not instance.is_taken}
    windows.connecting.update(dict.fromkeys(handles, 1450))
    windows.failures["create_named_pipe"].extend([1450] * 20)
    for _ in range(5):
        with pytest.raises(OSError, match="1450"):
            await listener.accept()
        assert windows.instances.keys() & handles, "the name is still ours"
    windows.failures.clear()
    windows.connecting.clear()
    with trio.move_on_after(0.01):
        await listener.accept()
    assert sum(not instance.is_taken for instance in windows.instances.values()) == BACKLOG
    windows.take(max(windows.instances))
    await (await listener.accept()).aclose()
    await link.aclose()
    await listener.aclose()
    assert not windows.open


async def test_closing_while_somebody_accepts(windows: FakeWindows) -> None:
    listener = await listen(windows)

    async def accept() -> None:
        with pytest.raises(ConnectionClosed):
            await listener.accept()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        nursery.start_soon(accept)
        await trio.testing.wait_all_tasks_blocked()
        await listener.aclose()
        await listener.aclose()
    assert not windows.open
    with pytest.raises(ConnectionClosed):
        await listener.accept()


async def test_closing_in_the_turn_in_which_accepting_begins(windows: FakeWindows) -> None:
    """What watches an instance may take its first step after the listener was closed."""
    listener = await listen(windows)
    for turns in range(6):
        listener = await listen(windows, f"pipe:{turns}")

        async def close(listener: PipeListener = listener, turns: int = turns) -> None:
            for _ in range(turns):
                await trio.lowlevel.checkpoint()
            await listener.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(close)
            with pytest.raises(ConnectionClosed):
                await listener.accept()
    assert {instance.name for instance in windows.instances.values()} == {NAME}


async def test_closing_closes_clients_that_were_not_accepted(windows: FakeWindows) -> None:
    listener = await listen(windows)
    for handle in windows.instances:
        windows.connecting[handle] = 535
    await (await listener.accept()).aclose()
    # With those of which it is not known yet.
    assert len(windows.open) >= 2 * BACKLOG - 1
    await listener.aclose()
    assert not windows.open


@pytest.mark.parametrize("client", [SOMEBODY, None])
async def test_where_others_may_come_windows_is_asked_who_it_is(windows: FakeWindows, client: str | None) -> None:
    windows.client = client
    listener = await listen(windows, allow=[SOMEBODY])
    windows.connecting[min(windows.instances)] = 535
    link = await listener.accept()
    assert link.peer == Peer(address="pipe:world", pid=4321, sid=client)
    assert not link.needs_handshake
    await link.handshake()
    assert windows.named("read") == []
    await link.aclose()
    await listener.aclose()


@pytest.mark.parametrize("client", [SOMEBODY, None])
async def test_a_client_that_did_not_ask_for_it_is_identified_by_what_it_says(
    windows: FakeWindows, client: str | None
) -> None:
    """Windows notes who the clients of Node and of ``open()`` are as they write, and tells it once that was read."""
    windows.client = client
    windows.is_client_dynamic = True
    listener = await listen(windows, allow=[SOMEBODY])
    windows.connecting[min(windows.instances)] = 535
    link = await listener.accept()
    assert link.needs_handshake
    assert link.peer == Peer(address="pipe:world")
    windows.reads.extend([b"", b"hello", b"world"])
    await link.handshake()
    assert not link.needs_handshake
    assert link.peer == Peer(address="pipe:world", pid=4321, sid=client)
    with trio.CancelScope() as scope:
        scope.cancel()
        await link.receive()
    assert [await link.receive(), await link.receive()] == [b"hello", b"world"]
    await link.aclose()
    await listener.aclose()
    assert not windows.open


@pytest.mark.parametrize(("read", "text"), [(109, "left before it said anything"), (233, "broken")])
async def test_a_client_that_leaves_before_it_can_be_identified(windows: FakeWindows, read: int, text: str) -> None:
    windows.is_client_dynamic = True
    listener = await listen(windows, allow=[SOMEBODY])
    windows.connecting[min(windows.instances)] = 535
    link = await listener.accept()
    windows.reads.append(read)
    with pytest.raises(HandshakeFailed, match=text) as caught:
        await link.handshake()
    assert caught.value.code == "closed"
    assert windows.named("client_sid") == [(min(windows.instances),)]
    await link.aclose()
    await listener.aclose()


async def test_where_nobody_else_may_come_it_is_us(windows: FakeWindows) -> None:
    listener = await listen(windows)
    windows.connecting[min(windows.instances)] = 535
    link = await listener.accept()
    assert link.peer.sid == ME
    assert windows.named("client_sid") == []
    await link.aclose()
    await listener.aclose()


async def test_a_client_of_which_nobody_knows_the_process(windows: FakeWindows) -> None:
    listener = await listen(windows)
    windows.connecting[min(windows.instances)] = 232
    windows.failures["client_process_id"].append(233)
    link = await listener.accept()
    assert link.peer.pid is None
    await link.aclose()
    await listener.aclose()


async def test_a_client_that_cannot_be_wrapped_is_closed(windows: FakeWindows, monkeypatch: Any) -> None:
    listener = await listen(windows, allow=[SOMEBODY])
    windows.connecting[min(windows.instances)] = 535

    def fail(handle: int) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(windows, "client_sid", fail)
    with pytest.raises(KeyboardInterrupt):
        await listener.accept()
    await listener.aclose()
    assert not windows.open


class Impersonating(WindowsApi):
    """The real calls by which a client is identified, over functions of a Windows that is not there."""

    def __init__(self, *, reverts: bool) -> None:
        self.calls: list[str] = []
        self._impersonate = self._function("impersonate", True)
        self._current_thread = self._function("current thread", 1)
        self._thread_token = self._function("token", False)
        self._revert = self._function("revert", reverts)

    def _function(self, name: str, result: int) -> Callable[..., int]:
        def function(*_: object) -> int:
            assert trio.lowlevel.currently_ki_protected(), "an interruption would leave us as somebody else"
            self.calls.append(name)
            return result

        return function

    def _last_error(self) -> int:
        return 1368

    def error(self, code: int) -> OSError:
        return windows_error(code)


def test_we_are_ourselves_again_whatever_happens() -> None:
    windows = Impersonating(reverts=True)
    with pytest.raises(OSError, match="1368"):
        windows.client_sid(8)
    assert windows.calls == ["impersonate", "current thread", "token", "revert"]


def test_a_process_that_cannot_be_itself_again_ends_at_once(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def abort() -> None:
        raise SystemExit("aborted")

    monkeypatch.setattr(os, "abort", abort)
    with pytest.raises(SystemExit, match="aborted"):
        Impersonating(reverts=False).client_sid(8)
    assert "does not give us back our own identity (error 1368); aborting" in capfd.readouterr().err


def test_handles_are_not_inherited(windows: FakeWindows) -> None:
    """A child process that had an instance would keep the name of the pipe."""
    attributes: Any = windows.security("D:").attributes
    assert attributes.bInheritHandle == 0


# --- connecting ---


async def test_how_a_client_opens_a_pipe(windows: FakeWindows) -> None:
    windows.owner = SOMEBODY
    link = await connect(windows)
    # No sharing, what exists already, and the server learns who we are without being able to act as us.
    assert windows.named("create_file") == [(NAME, READ_WRITE, 0, 3, OVERLAPPED | IDENTIFICATION_ONLY)]
    assert windows.registered == windows.open
    # Windows lets us into anybody's pipe; who owns it is for `Endpoint.admit`.
    assert link.peer == Peer(address="pipe:world", pid=1234, sid=SOMEBODY)
    await link.aclose()
    assert not windows.open


async def test_a_busy_server_is_called_again_and_again(
    windows: FakeWindows, autojump_clock: trio.testing.MockClock
) -> None:
    windows.failures["create_file"].extend([231] * 20)
    link = await connect(windows)
    # 1, 2, 4 ... 64 milliseconds, and from then on 100.
    assert trio.current_time() == pytest.approx(0.127 + 13 * 0.1)
    await link.aclose()


async def test_a_busy_server_is_waited_for_until_cancelled(
    windows: FakeWindows, autojump_clock: trio.testing.MockClock
) -> None:
    windows.failures["create_file"].extend([231] * 1_000)
    with trio.move_on_after(5) as scope:
        await connect(windows)
    assert scope.cancelled_caught
    assert not windows.open


@pytest.mark.parametrize(
    ("code", "text"), [(2, "there is no such pipe; start the server"), (5, "we may not use"), (121, "nobody answers")]
)
async def test_a_server_that_cannot_be_reached(windows: FakeWindows, code: int, text: str) -> None:
    windows.failures["create_file"].append(code)
    with pytest.raises(ConnectError, match=text) as caught:
        await connect(windows)
    assert isinstance(caught.value.__cause__, OSError)
    assert not windows.open


@pytest.mark.parametrize("call", ["register", "owner_sid"])
async def test_a_server_that_cannot_be_identified(windows: FakeWindows, call: str) -> None:
    windows.failures[call].append(6)
    with pytest.raises(ConnectError, match="cannot be identified"):
        await connect(windows)
    assert not windows.open


async def test_a_client_that_is_stopped_while_it_identifies_the_server(windows: FakeWindows, monkeypatch: Any) -> None:
    def interrupt(handle: int) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(windows, "owner_sid", interrupt)
    with pytest.raises(KeyboardInterrupt):
        await connect(windows)
    assert not windows.open


@pytest.mark.skipif(sys.platform == "win32", reason=f"{CANNOT_RUN} there are pipes")
async def test_there_are_no_pipes_elsewhere() -> None:
    transport = PipeTransport()
    for attempt in (transport.connect, transport.listen):
        with pytest.raises(AddressError, match="only Windows has named pipes; use a bare name"):
            await attempt(ADDRESS, {})
    with pytest.raises(AddressError, match="only Windows has named pipes"):
        transport.places(ADDRESS)


# --- links ---


@pytest.fixture
def link(windows: FakeWindows) -> PipeLink:
    windows.open.add(8)
    return PipeLink(windows, 8, Peer(address="pipe:world"))


async def test_the_end_of_the_stream_comes_after_all_that_was_sent(windows: FakeWindows, link: PipeLink) -> None:
    windows.reads.extend([b"all", b" ", b"of it", 109])
    chunks = [await link.receive() for _ in range(4)]
    assert chunks == [b"all", b" ", b"of it", b""]
    await link.aclose()


async def test_nothing_is_not_the_end(windows: FakeWindows, link: PipeLink) -> None:
    windows.reads.extend([b"", b"", b"something"])
    assert await link.receive() == b"something"
    await link.aclose()


@pytest.mark.parametrize("code", [232, 233, 6])
async def test_a_broken_pipe(windows: FakeWindows, link: PipeLink, code: int) -> None:
    windows.reads.append(code)
    with pytest.raises(ConnectionLost, match="broken") as reading:
        await link.receive()
    windows.failures["write"].append(code)
    with pytest.raises(ConnectionLost, match="broken") as writing:
        await link.send(b"x")
    assert reading.value.maybe_handled
    assert writing.value.maybe_handled
    await link.aclose()


async def test_large_data_is_written_in_pieces(windows: FakeWindows, link: PipeLink) -> None:
    data = bytes(range(256)) * 4_000
    await link.send(data)
    assert windows.written == data
    assert [size for _, size in windows.named("write")] == [262_144] * 3 + [len(data) - 3 * 262_144]
    await link.send(memoryview(b"abcd").cast("I"))
    assert windows.written[-4:] == b"abcd"
    await link.aclose()


async def test_nothing_is_never_written(windows: FakeWindows, link: PipeLink) -> None:
    await link.send(b"")
    assert link.send_nowait(b"data") == 0
    assert windows.named("write") == []
    assert not link.send_eof()
    await link.aclose()


async def test_the_buffer_grows_while_much_comes_in(windows: FakeWindows, link: PipeLink) -> None:
    for size in (4_096, 8_192, 16_384, 20_000, 100, 50):
        windows.reads.append(b"x" * size)
        assert len(await link.receive()) == size
    assert [size for _, size in windows.named("read")] == [4_096, 8_192, 16_384, 32_768, 32_768, 4_096]
    await link.aclose()


async def test_a_handle_is_closed_once_nothing_is_under_way_on_it(windows: FakeWindows, link: PipeLink) -> None:
    """Trio cancels by the handle what is under way on it. If that were closed, trio would give up everything."""
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.receive)
            await trio.testing.wait_all_tasks_blocked()
            await link.aclose()
            assert windows.names()[-1] == "cancel_io"
            scope.cancel()
    assert windows.names()[-1] == "close_handle"
    await link.aclose()
    assert windows.named("close_handle") == [(8,)]
    assert not windows.open


async def test_closing_wakes_whoever_reads(windows: FakeWindows, link: PipeLink) -> None:
    async def read() -> None:
        with pytest.raises(ConnectionLost, match="closed on this side"):
            await link.receive()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        await link.aclose()
    assert not windows.open


async def test_nothing_is_asked_of_a_closed_pipe(windows: FakeWindows, link: PipeLink) -> None:
    await link.aclose()
    windows.calls.clear()
    for use in (link.receive, functools.partial(link.send, b"x")):
        with pytest.raises(ConnectionLost, match="closed on this side"):
            await use()
    assert windows.calls == []


async def test_one_task_at_a_time(windows: FakeWindows, link: PipeLink, monkeypatch: Any) -> None:
    async def wait(handle: int, data: memoryview) -> int:
        await trio.sleep_forever()
        raise AssertionError

    monkeypatch.setattr(windows, "write", wait)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.receive)
        nursery.start_soon(link.send, b"x")
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await link.receive()
        with pytest.raises(trio.BusyResourceError):
            await link.send(b"y")
        nursery.cancel_scope.cancel()
    await link.aclose()
    assert not windows.open


def test_what_is_shown_of_them(windows: FakeWindows, link: PipeLink) -> None:
    assert repr(link) == "<PipeLink to pipe:world, handle 8>"
