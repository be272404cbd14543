"""Confirmed events: what a client sends again, what a server remembers, and what each of them says when it cannot."""

from __future__ import annotations

import functools
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import pyipc
from pyipc import Message
from pyipc.testing import Faults, FaultyTransport, pair
from pyipc.transports import Peer
from tests.wire import WirePeer, frame, stay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

pytestmark = pytest.mark.time_limit(20)

FAST: dict[str, Any] = {"reconnect_interval": 0.1, "reconnect_jitter": False}


class Work:
    """A handler that takes as long as the test wants."""

    def __init__(self, router: pyipc.Router, event: str = "work") -> None:
        self.begun: list[Any] = []
        self.done: list[Any] = []
        self.redelivered: list[bool] = []
        self.release = trio.Event()
        self.started = trio.Event()
        router.on(event, self)

    async def __call__(self, message: Message[Any]) -> None:
        self.begun.append(message.data)
        self.redelivered.append(message.redelivered)
        self.started.set()
        await self.release.wait()
        self.done.append(message.data)


async def settled(condition: Callable[[], bool]) -> None:
    """Let everything happen that needs no time, until something is true."""
    for _ in range(1_000):
        if condition():
            return
        await trio.lowlevel.checkpoint()
    pytest.fail("it did not come true")


async def confirm(side: Any, event: str, data: Any) -> None:
    await side.emit(event, data, confirm=True)


@asynccontextmanager
async def emitting(client: Any, event: str, data: Any = None, **options: Any) -> AsyncIterator[list[Any]]:
    """An emit with confirm=True beside the block, and how it ended: ``None``, or an error."""
    ended: list[Any] = []

    async def emit() -> None:
        try:
            await client.emit(event, data, confirm=True, **options)
            ended.append(None)
        except pyipc.IPCError as error:
            ended.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(emit)
        yield ended


# --- outcomes ---------------------------------------------------------------------------------------------------


async def test_it_returns_when_every_handler_is_done(autojump_clock: trio.testing.MockClock) -> None:
    router = pyipc.Router()
    work = Work(router)
    seen: list[Any] = []
    router.on("**", lambda message: seen.append((message.event, message.data)))
    async with pair(router) as (client, _):
        async with emitting(client, "work", 1) as ended:
            await work.started.wait()
            await trio.testing.wait_all_tasks_blocked()
            assert ended == []
            assert seen == []
            work.release.set()
        assert ended == [None]
        assert seen == [("work", 1)]
        assert client.statistics().confirmed == 1
        assert client.statistics().unsettled == 0


async def test_what_went_wrong_is_raised_as_for_a_request(
    caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    router = pyipc.Router()
    seen: list[Any] = []

    @router.on("typed")
    def typed(message: Message[int]) -> None:
        seen.append(message.data)

    @router.on("raises")
    def raises(message: Message[Any]) -> None:
        raise ValueError("no")

    @router.on("raises")
    async def raises_later(message: Message[Any]) -> None:
        await trio.lowlevel.checkpoint()
        seen.append("later")
        raise KeyError("second")

    async with pair(router) as (client, server):
        with pytest.raises(pyipc.NoHandler) as nobody:
            await client.emit("nobody", confirm=True)
        assert nobody.value.event == "nobody"
        with pytest.raises(pyipc.InvalidData) as invalid:
            await client.emit("typed", "x", confirm=True)
        assert invalid.value.path == "$"
        with pytest.raises(pyipc.RemoteError) as failed:
            await client.emit("raises", confirm=True)
        assert (failed.value.code, failed.value.message) == ("handler-failed", "ValueError: no")
        assert seen == ["later"]  # the others run all the same
        (connection,) = server.connections
        assert connection.statistics().handler_errors == 2
        assert connection.statistics().unheard == 1
        with pytest.raises(pyipc.InvalidEventName):
            await client.emit("", confirm=True)
        with pytest.raises(pyipc.UnencodableData):
            await client.emit("x", object(), confirm=True)
        with pytest.raises(pyipc.MessageTooLarge):
            await client.emit("x", "x" * 2_000_000, confirm=True)
        assert client.statistics().unsettled == 0


async def test_they_keep_their_place_among_plain_events(autojump_clock: trio.testing.MockClock) -> None:
    router = pyipc.Router()
    seen: list[int] = []

    @router.on("n")
    async def n(message: Message[int]) -> None:
        if message.data % 3 == 0:
            await trio.sleep(0.01)
        seen.append(message.data)

    async with pair(router) as (client, _), trio.open_nursery() as nursery:
        for number in range(30):
            if number % 2:
                await client.emit("n", number)
            else:
                nursery.start_soon(confirm, client, "n", number)
                await trio.testing.wait_all_tasks_blocked(0)
    assert seen == list(range(30))


async def test_once_is_for_one_event_however_often_it_comes(autojump_clock: trio.testing.MockClock) -> None:
    router = pyipc.Router()
    seen: list[Any] = []
    router.once("x", lambda message: seen.append(message.data))
    async with pair(router) as (client, _):
        await client.emit("x", 1, confirm=True)
        with pytest.raises(pyipc.NoHandler):
            await client.emit("x", 2, confirm=True)
    assert seen == [1]


async def test_names_and_data_may_have_half_characters(autojump_clock: trio.testing.MockClock) -> None:
    router = pyipc.Router()
    seen: list[Any] = []
    router.on("**", lambda message: seen.append((message.event, message.data)))
    async with pair(router) as (client, _):
        await client.emit("a\ud800", {"b\udfff": [1.5, float("nan"), None]}, confirm=True)
        await client.emit("c", confirm=True)
    assert seen == [("a\ud800", {"b\udfff": [1.5, None, None]}), ("c", None)]


# --- a connection that is lost -----------------------------------------------------------------------------------


async def test_a_lost_connection_does_not_stop_the_handler_and_the_client_hears_of_it_over_the_next(
    autojump_clock: trio.testing.MockClock,
) -> None:
    router = pyipc.Router()
    work = Work(router)
    links = FaultyTransport(Faults())
    async with pair(router, faults=links, client_options=FAST) as (client, server):
        async with emitting(client, "work", 1) as ended:
            await work.started.wait()
            await links.links[-1].reset()
            await trio.sleep(1)
            assert client.connected
            assert ended == []
            work.release.set()
        assert ended == [None]
        assert work.begun == work.done == [1]
        assert work.redelivered == [False]
        assert client.statistics().resent == 1
        assert server.statistics().duplicates == 1
        await settled(lambda: server.statistics().connections == 1)


async def test_a_connection_that_fails_on_this_side_does_not_stop_the_handler_either(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail() -> None:
        raise OSError("a fault of ours")

    router = pyipc.Router()
    work = Work(router)
    async with pair(router, client_options=FAST) as (client, server):
        async with emitting(client, "work", 1) as ended:
            await work.started.wait()
            (connection,) = server.connections
            connection._crew.start(fail)
            await trio.sleep(1)
            assert ended == []
            work.release.set()
        assert ended == [None]
        assert work.begun == work.done == [1]


async def test_the_outcome_of_what_was_done_meanwhile_is_kept(autojump_clock: trio.testing.MockClock) -> None:
    router = pyipc.Router()
    work = Work(router)
    links = FaultyTransport(Faults())
    async with pair(router, faults=links, client_options=FAST) as (client, server):
        async with emitting(client, "work", 1) as ended:
            await work.started.wait()
            await links.links[-1].reset()
            await trio.testing.wait_all_tasks_blocked()
            work.release.set()
            await trio.testing.wait_all_tasks_blocked()
            assert work.done == [1]
        assert ended == [None]
        assert work.begun == [1]
        assert server.statistics().duplicates == 1


async def test_order_holds_across_connections(autojump_clock: trio.testing.MockClock) -> None:
    router = pyipc.Router()
    work = Work(router)
    links = FaultyTransport(Faults())
    async with pair(router, faults=links, client_options=FAST) as (client, server):
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(confirm, client, "work", number)
                await trio.testing.wait_all_tasks_blocked(0)
            await work.started.wait()
            for _ in range(3):  # each time some of them wait in the inbox of a connection that ends
                await links.links[-1].reset()
                await trio.sleep(1)
            work.release.set()
        assert work.begun == work.done == list(range(5))
        # What is left of the connections does not keep anything alive.
        await settled(lambda: len(server.connections) == 1)


async def test_what_is_sent_again_goes_before_what_is_newer(autojump_clock: trio.testing.MockClock) -> None:
    router = pyipc.Router()
    seen: list[str] = []

    @router.on("**")
    def note(message: Message[Any]) -> None:
        seen.append(message.event)

    links = FaultyTransport(Faults())
    async with pair(router, faults=links, client_options=FAST) as (client, _):
        await client.emit("first", confirm=True)
        links.links[-1].blackhole()
        async with emitting(client, "sent", timeout=None):
            await trio.testing.wait_all_tasks_blocked()
            await links.links[-1].reset()
            await trio.testing.wait_all_tasks_blocked()
            await client.emit("plain")
            async with emitting(client, "new"):
                pass
    assert seen == ["first", "sent", "plain", "new"]


async def test_what_a_connection_had_not_sent_keeps_its_place_among_what_is_sent_again() -> None:
    """Plain events and others by turns, all of them queued behind something that the server does not take."""
    router = pyipc.Router()
    seen: list[str] = []
    stuck = trio.Event()

    @router.on("**")
    def note(message: Message[Any]) -> None:
        seen.append(message.event)

    @router.on("stuck")
    async def wait(message: Message[Any]) -> None:
        await stuck.wait()

    links = FaultyTransport(Faults())
    patient = {**FAST, "outbox_high_water_size": 1 << 30, "max_outbox_size": 1 << 30}
    server = {"inbox_high_water_size": 1}
    with trio.fail_after(20):
        async with (
            pair(router, faults=links, client_options=patient, server_options=server) as (client, _),
            trio.open_nursery() as nursery,
        ):
            await client.emit("first", confirm=True)
            await client.emit("stuck")
            nursery.start_soon(functools.partial(client.emit, "sent", confirm=True, timeout=None))
            await trio.testing.wait_all_tasks_blocked()
            await client.emit("large", "x" * 1_000_000)
            for number in range(3):
                await client.emit(f"plain-{number}")
                nursery.start_soon(functools.partial(client.emit, f"sure-{number}", confirm=True, timeout=None))
                await trio.testing.wait_all_tasks_blocked()
            await links.links[-1].reset()
            stuck.set()
    assert seen[0] == "first"
    assert seen[-7:] == ["sent", "plain-0", "sure-0", "plain-1", "sure-1", "plain-2", "sure-2"]


async def test_a_client_that_keeps_nothing_hears_that_it_may_have_been_handled(
    autojump_clock: trio.testing.MockClock,
) -> None:
    router = pyipc.Router()
    work = Work(router)
    for options in ({"offline": "raise"}, {"offline": "drop"}, {"reconnect": False}):
        links = FaultyTransport(Faults())
        async with pair(router, faults=links, client_options={**FAST, **options}) as (client, _):
            async with emitting(client, "work", 1) as ended:
                await settled(lambda: len(work.begun) > 0)
                await links.links[-1].reset()
            assert isinstance(ended[0], pyipc.ConnectionLost)
            assert ended[0].maybe_handled
            work.begun.clear()
            if "offline" in options:
                with pytest.raises(pyipc.ConnectionLost) as lost:
                    await client.emit("work", 1, confirm=True)
                assert not lost.value.maybe_handled
            work.release.set()
    assert work.begun == []


async def test_a_server_that_was_started_again_tells_its_handlers(autojump_clock: trio.testing.MockClock) -> None:
    first, second = pyipc.Router(), pyipc.Router()
    before, after = Work(first), Work(second)
    after.release.set()
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def serve() -> None:
            with scope:
                await pyipc.Server("memory:again", router=first).run()
            async with pyipc.Server("memory:again", router=second) as server:
                await done.wait()
                assert server.statistics().redelivered == 1

        done = trio.Event()
        nursery.start_soon(serve)
        async with pyipc.connect("memory:again", **FAST) as client:
            async with emitting(client, "work", 1) as ended:
                await before.started.wait()
                scope.cancel()
            assert ended == [None]
            await client.emit("work", 2, confirm=True)
            assert client.statistics().resent == 1
            done.set()
    assert (before.begun, before.done) == ([1], [])
    assert after.done == [1, 2]
    assert after.redelivered == [True, False]


async def test_what_the_server_forgot_is_not_sent_again(autojump_clock: trio.testing.MockClock) -> None:
    router = pyipc.Router()
    work = Work(router)
    links = FaultyTransport(Faults())
    async with pair(
        router, faults=links, client_options={**FAST, "reconnect_interval": 5.0}, server_options={"max_sessions": 1}
    ) as (client, server):
        async with emitting(client, "work", 1) as ended:
            await work.started.wait()
            await links.links[-1].reset()
            await trio.testing.wait_all_tasks_blocked()
            ours, theirs = pyipc.transports.memory_link_pair()
            server.adopt(theirs)
            other = WirePeer(ours)
            await other.send(frame("pyipc.hello", {"versions": [1], "features": ["confirm"], "session": "f" * 32}))
            await other.read_until("pyipc.welcome")
            await ours.aclose()
        assert isinstance(ended[0], pyipc.Unconfirmed)
        assert (ended[0].event, ended[0].code, ended[0].maybe_handled) == ("work", "forgotten", True)
        assert client.statistics().unconfirmed == 1
        work.release.set()
        await client.emit("work", 2, confirm=True)
    assert work.begun == [1, 2]


async def test_the_client_gives_up_before_the_server_may_forget(autojump_clock: trio.testing.MockClock) -> None:
    router = pyipc.Router()
    work = Work(router)
    work.release.set()
    scope = trio.CancelScope()
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            with scope:
                await pyipc.Server("memory:gone", router=router, session_timeout=40.0).run()

        nursery.start_soon(serve)
        async with pyipc.connect("memory:gone", confirm_timeout=None, **FAST) as client:
            await client.emit("work", 0, confirm=True)
            work.release = trio.Event()
            began = trio.current_time()
            async with emitting(client, "work", 1) as ended, emitting(client, "work", 1, timeout=35) as ended_later:
                await settled(lambda: work.begun == [0, 1])
                scope.cancel()
            assert isinstance(ended[0], pyipc.Unconfirmed)
            assert (ended[0].code, ended[0].maybe_handled) == ("lost", True)
            assert isinstance(ended_later[0], pyipc.Unconfirmed)
            assert ended_later[0].code == "lost"
            assert trio.current_time() - began == pytest.approx(30.0, abs=0.5)


# --- without a connection ----------------------------------------------------------------------------------------


async def test_without_a_connection_it_waits_for_one(autojump_clock: trio.testing.MockClock) -> None:
    router = pyipc.Router()
    work = Work(router)
    work.release.set()
    async with (
        pyipc.connect("memory:late", wait=False, **FAST) as client,
        emitting(client, "work", 1) as ended,
        emitting(client, "work", 2, timeout=1) as late,
    ):
        await trio.sleep(5)
        assert ended == []
        assert isinstance(late[0], pyipc.Unconfirmed)
        assert (late[0].code, late[0].maybe_handled) == ("timeout", False)
        assert "it was not sent" in str(late[0])
        assert client.statistics().unsettled == 1
        async with pyipc.Server("memory:late", router=router):
            await settled_in_time(lambda: ended == [None])
    assert work.begun == [1]
    assert work.redelivered == [False]


async def settled_in_time(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - the clock jumps
        await trio.sleep(0.1)


async def test_what_could_never_be_sent_is_refused_without_a_connection(autojump_clock: trio.testing.MockClock) -> None:
    async with pyipc.connect("memory:nobody", wait=False, **FAST) as client:
        with pytest.raises(pyipc.MessageTooLarge):
            await client.emit("x", "x" * 2_000_000, confirm=True)
    for endpoint in (
        pyipc.Endpoint("memory:nobody", framing=pyipc.Raw()),
        pyipc.Endpoint("udp://127.0.0.1:9"),
    ):
        async with pyipc.connect(endpoint, wait=False) as client:
            with pytest.raises(pyipc.UnsupportedByTransport):
                await client.emit("x", b"x", confirm=True)
    for offline in ("raise", "drop"):
        async with pyipc.connect("memory:nobody", wait=False, offline=offline, **FAST) as client:
            with pytest.raises(pyipc.ConnectionLost) as lost:
                await client.emit("x", confirm=True)
            assert not lost.value.maybe_handled
    with pytest.raises(pyipc.ConnectionClosed):
        await client.emit("x", confirm=True)


async def test_a_peer_that_has_not_introduced_itself_cannot_confirm(autojump_clock: trio.testing.MockClock) -> None:
    ours, theirs = pyipc.transports.memory_link_pair()

    class Handed(pyipc.transports.Transport):
        async def connect(self, address: pyipc.Address, options: object) -> pyipc.transports.Link:
            return ours

        async def listen(self, address: pyipc.Address, options: object) -> pyipc.transports.Listener:
            raise AssertionError

    endpoint = pyipc.Endpoint("memory:plain", transport=Handed())
    async with pyipc.connect(endpoint, heartbeat_interval=None) as client:
        began = trio.current_time()
        with pytest.raises(pyipc.PeerLacksFeature) as lacks:
            await client.emit("x", confirm=True)
        assert lacks.value.feature == "confirm"
        assert trio.current_time() - began == pytest.approx(5.0, abs=0.5)
        with pytest.raises(pyipc.Unconfirmed) as late:
            await client.emit("x", confirm=True, timeout=1.0)
        assert not late.value.maybe_handled
        await theirs.aclose()


async def test_a_client_that_gives_up_says_so(autojump_clock: trio.testing.MockClock) -> None:
    router = pyipc.Router()
    work = Work(router)
    scope = trio.CancelScope()
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            with scope:
                await pyipc.Server("memory:over", router=router).run()

        nursery.start_soon(serve)
        async with pyipc.connect("memory:over", max_reconnects=3, max_unconfirmed=1, **FAST) as client:
            async with emitting(client, "work", 1) as sent, emitting(client, "work", 2) as unsent:
                await work.started.wait()
                scope.cancel()
            ends = sorted((type(error).__name__, getattr(error, "maybe_handled", None)) for error in sent + unsent)
            assert ends == [("ConnectionLost", False), ("Unconfirmed", True)]
            with pytest.raises(pyipc.ConnectionLost):
                await client.emit("work", 3, confirm=True)


async def test_leaving_waits_for_what_is_not_confirmed_but_not_for_ever(autojump_clock: trio.testing.MockClock) -> None:
    router = pyipc.Router()
    work = Work(router)
    async with trio.open_nursery() as nursery:
        ended: list[Any] = []

        async def emit(client: pyipc.Client, number: int) -> None:
            try:
                await client.emit("work", number, confirm=True)
                ended.append(None)
            except pyipc.IPCError as error:
                ended.append(error)

        async with pair(router) as (client, _):
            nursery.start_soon(emit, client, 1)
            await work.started.wait()
            nursery.start_soon(after, 1.0, work.release.set)
        assert ended == [None]
        work.release = trio.Event()
        began = trio.current_time()
        async with pair(router, server_options={"close_timeout": 1.0}) as (client, _):
            nursery.start_soon(emit, client, 2)
            await settled(lambda: work.begun == [1, 2])
        assert isinstance(ended[1], pyipc.Unconfirmed)
        assert (ended[1].code, ended[1].maybe_handled) == ("closed", True)
        assert trio.current_time() - began < 12


async def after(seconds: float, action: Callable[[], object]) -> None:
    await trio.sleep(seconds)
    action()


async def test_whoever_waits_outside_hears_when_the_client_is_cancelled(autojump_clock: trio.testing.MockClock) -> None:
    router = pyipc.Router()
    Work(router)
    async with trio.open_nursery() as nursery:
        ended: list[Any] = []

        async def emit(client: pyipc.Client) -> None:
            try:
                await client.emit("work", 1, confirm=True)
            except pyipc.IPCError as error:
                ended.append(error)

        with trio.CancelScope() as scope:
            async with pair(router, server_options={"close_timeout": 1.0}) as (client, _):
                nursery.start_soon(emit, client)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
                await trio.sleep_forever()
    assert isinstance(ended[0], pyipc.Unconfirmed)


# --- bounds and cancellation -------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"max_unconfirmed": 3}, {"max_unconfirmed_size": 30}], ids=str)
async def test_only_so_many_are_under_way_and_nobody_is_overtaken(
    options: dict[str, Any], autojump_clock: trio.testing.MockClock
) -> None:
    router = pyipc.Router()
    work = Work(router)
    async with pair(router, client_options=options) as (client, _):
        most = 0
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(confirm, client, "work", f"{number:04}")
                await trio.testing.wait_all_tasks_blocked(0)
                most = max(most, client.statistics().unsettled)
            with pytest.raises(pyipc.Unconfirmed) as late:
                await client.emit("work", "late", confirm=True, timeout=1)
            assert not late.value.maybe_handled
            work.release.set()
        assert work.done == [f"{number:04}" for number in range(20)]
        assert most == 3


async def test_a_cancelled_one_makes_room_and_is_forgotten(autojump_clock: trio.testing.MockClock) -> None:
    router = pyipc.Router()
    work = Work(router)
    links = FaultyTransport(Faults())
    async with pair(router, faults=links, client_options={**FAST, "max_unconfirmed": 1}) as (client, _server):
        with trio.move_on_after(1):
            await client.emit("work", 1, confirm=True)
        assert work.begun == [1]
        assert client.statistics().unsettled == 0
        with trio.CancelScope() as scope:
            scope.cancel()
            await client.emit("work", 2, confirm=True)
        await links.links[-1].reset()
        await trio.sleep(1)
        assert client.statistics().resent == 0
        work.release.set()
        await client.emit("work", 3, confirm=True)
        assert work.done == [1, 3]


async def test_one_that_takes_too_long_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    router = pyipc.Router()
    work = Work(router)
    async with pair(router, client_options={"confirm_timeout": 2.0}) as (client, _):
        with pytest.raises(pyipc.Unconfirmed) as late:
            await client.emit("work", 1, confirm=True)
        assert (late.value.event, late.value.code, late.value.maybe_handled) == ("work", "timeout", True)
        with trio.move_on_after(5) as scope:
            await client.emit("work", 2, confirm=True, timeout=None)
        assert scope.cancelled_caught
        work.release.set()
        await trio.testing.wait_all_tasks_blocked()


# --- a server whose handler does not end -------------------------------------------------------------------------


@pytest.mark.parametrize("lost", [False, True], ids=["connected", "connection-lost"])
async def test_a_cancelled_server_takes_its_handlers_with_it(
    lost: bool, autojump_clock: trio.testing.MockClock
) -> None:
    router = pyipc.Router()
    router.on("work", stay)
    links = FaultyTransport(Faults())
    began = trio.current_time()
    with trio.CancelScope() as scope:
        async with (
            pair(router, faults=links, client_options={"reconnect": False}) as (client, server),
            emitting(client, "work"),
        ):
            await settled(lambda: bool(server._shelter._sheltered))
            if lost:
                await links.links[-1].reset()
                await trio.sleep(100)
                assert server._shelter._sheltered
                began = trio.current_time()
            scope.cancel()
    assert trio.current_time() - began < 0.5


async def test_a_server_waits_for_its_handlers_on_closing_but_not_for_ever(
    autojump_clock: trio.testing.MockClock,
) -> None:
    router = pyipc.Router()
    work = Work(router)
    async with trio.open_nursery() as nursery:
        for releases in (True, False):
            work.release = trio.Event()
            began = trio.current_time()
            async with pyipc.Server("memory:closing", router=router, close_timeout=4.0):
                client_scope = await nursery.start(client_that_emits, "memory:closing")
                await work.started.wait()
                if releases:
                    nursery.start_soon(after, 1.0, work.release.set)
            assert trio.current_time() - began <= 8.0
            client_scope.cancel()
            assert work.done == [1]


async def client_that_emits(
    address: str, *, task_status: trio.TaskStatus[trio.CancelScope] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.CancelScope() as scope:
        async with pyipc.connect(address) as client:
            task_status.started(scope)
            await client.emit("work", 1, confirm=True)


async def test_a_handler_may_close_its_server_and_its_connection(autojump_clock: trio.testing.MockClock) -> None:
    for closes in ("server", "connection"):
        router = pyipc.Router()
        ended: list[str] = []

        @router.on("close")
        async def close(message: Message[Any]) -> None:
            try:
                async with trio.open_nursery() as nursery:
                    closing = server if closes == "server" else message.connection  # noqa: B023
                    nursery.start_soon(closing.aclose)
            finally:
                ended.append("ended")  # noqa: B023

        began = trio.current_time()
        server = pyipc.Server("memory:suicide", router=router)
        async with trio.open_nursery() as nursery:
            await nursery.start(server.run)
            async with pyipc.connect("memory:suicide", reconnect=False) as client:
                with pytest.raises((pyipc.ConnectionLost, pyipc.RemoteError)):
                    await client.emit("close", confirm=True)
            await settled(lambda: ended == ["ended"])  # noqa: B023
            await server.aclose()
        assert trio.current_time() - began < 1.0


# --- inside of handlers ------------------------------------------------------------------------------------------


async def test_handlers_of_events_may_not_wait_for_their_own_peer(autojump_clock: trio.testing.MockClock) -> None:
    router, client_router = pyipc.Router(), pyipc.Router()
    client_router.on("back", lambda message: None)
    tried: dict[str, Any] = {}
    background: trio.Nursery

    async def attempt(name: str, connection: Any) -> None:
        try:
            await connection.emit("back", confirm=True)
        except pyipc.LocalProtocolError as error:
            tried[name] = type(error)
        else:
            tried[name] = None

    @router.on("event")
    async def event(message: Message[Any]) -> None:
        await attempt("first step", message.connection)
        await trio.lowlevel.checkpoint()
        await attempt("later", message.connection)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(attempt, "child", message.connection)
        background.start_soon(attempt, "background", message.connection)

    router.on("plain", lambda message: attempt("plain function", message.connection))
    router.on("queued", lambda message: attempt("queued", message.connection))

    @router.on("request")
    async def request(message: Message[Any]) -> None:
        await attempt("request, first step", message.connection)
        await trio.lowlevel.checkpoint()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(attempt, "request, child", message.connection)

    async def on_connect(connection: pyipc.Connection) -> None:
        await attempt("on_connect", connection)

    async with trio.open_nursery() as background, pyipc.Server("memory:inside", router=router) as server:
        server.on_connect(on_connect)
        async with pyipc.connect("memory:inside", router=client_router) as client:
            await client.emit("plain", confirm=True)
            await client.emit("event")
            await client.emit("queued")
            await client.request("request")
            await client.request("request")
            await client.emit("event", confirm=True)
            await trio.testing.wait_all_tasks_blocked()
    refused = pyipc.LocalProtocolError
    assert tried == {
        "on_connect": pyipc.PeerLacksFeature,  # it has not introduced itself yet
        "plain function": refused,
        "first step": refused,
        "later": refused,
        "child": refused,
        "queued": refused,
        "background": None,
        "request, first step": None,
        "request, child": None,
    }


async def test_the_same_on_the_client(autojump_clock: trio.testing.MockClock) -> None:
    router, client_router = pyipc.Router(), pyipc.Router()
    router.on("x", lambda message: None)
    tried: list[Any] = []

    @client_router.on("ask")
    async def ask(message: Message[Any]) -> None:
        for side in (client, message.connection):
            with pytest.raises(pyipc.LocalProtocolError):
                await side.emit("x", confirm=True)
            tried.append("refused")

    @client_router.on("request")
    async def request(message: Message[Any]) -> None:
        await client.emit("x", confirm=True)
        await message.connection.emit("x", confirm=True)

    async def greet(connection: pyipc.Connection) -> None:
        await connection.emit("x", confirm=True)
        tried.append("greeted")

    async with pair(router, client_router=client_router) as (client, server):
        (connection,) = server.connections
        await client.emit("x", confirm=True)
        await connection.emit("ask", confirm=True)
        await connection.request("request")
        assert tried == ["refused", "refused"]
        async with (
            pyipc.Server("memory:greeted", router=router),
            pyipc.connect("memory:greeted", on_connect=greet) as other,
        ):
            await other.emit("x", confirm=True)
        assert tried[2:] == ["greeted"]


# --- the other way round -----------------------------------------------------------------------------------------


async def test_from_server_to_client_nothing_is_sent_again(autojump_clock: trio.testing.MockClock) -> None:
    client_router = pyipc.Router()
    work = Work(client_router)
    links = FaultyTransport(Faults())
    async with pair(client_router=client_router, faults=links, client_options=FAST) as (client, server):
        await client.wait_connected()
        (connection,) = server.connections
        async with emitting(connection, "work", 1) as ended:
            await work.started.wait()
            await links.links[-1].reset()
        assert type(ended[0]) is pyipc.ConnectionLost
        assert ended[0].maybe_handled
        with pytest.raises(pyipc.ConnectionLost) as lost:
            await connection.emit("work", 2, confirm=True)
        assert not lost.value.maybe_handled
        work.release.set()
        await trio.sleep(1)
        (connection,) = server.connections
        await connection.emit("work", 3, confirm=True)
        work.release = trio.Event()
        async with emitting(connection, "work", 4) as ended:
            await settled(lambda: work.begun == [1, 3, 4])
            await connection.aclose()
        assert isinstance(ended[0], pyipc.Unconfirmed)
        assert ended[0].code == "closed"
        work.release.set()
    assert work.begun == [1, 3, 4]


async def test_both_ways_at_once_the_numbers_do_not_meet(autojump_clock: trio.testing.MockClock) -> None:
    router, client_router = pyipc.Router(), pyipc.Router()
    seen: list[Any] = []
    for each in (router, client_router):
        each.on("n", lambda message: seen.append(message.data))
    connections: list[pyipc.Connection] = []
    async with (
        pyipc.Server("memory:both", router=router) as server,
        pyipc.connect("memory:both", router=client_router, on_connect=connections.append) as client,
    ):
        await client.emit("n", 0, confirm=True)
        (connection,) = server.connections
        async with trio.open_nursery() as nursery:
            for number in range(1, 61):
                side = (client, connections[0], connection)[number % 3]
                nursery.start_soon(confirm, side, "n", number)
        assert sorted(seen) == list(range(61))


# --- what peers may do -------------------------------------------------------------------------------------------


@asynccontextmanager
async def wired(
    router: pyipc.Router, hello: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[tuple[pyipc.Server, Callable[..., Any]]]:
    """A server, and what makes bare peers of it."""
    links: list[Any] = []
    # The clock jumps there at once where nobody has anything to wait for.
    with trio.fail_after(10_000):
        async with pyipc.Server(router=router, heartbeat_interval=None, **options) as server:

            async def call(session: str | None = "a" * 32, peer: Peer | None = None) -> tuple[WirePeer, Any]:
                ours, theirs = pyipc.transports.memory_link_pair(right=peer)
                links.append(ours)
                server.adopt(theirs)
                other = WirePeer(ours)
                if session is None:
                    return other, None
                said = {"versions": [1], "heartbeat": None, "features": ["confirm"], "session": session}
                await other.send(frame("pyipc.hello", said))
                return other, await other.read_until("pyipc.welcome")

            yield server, call
            for link in links:
                await link.aclose()


def deliver(number: int, data: Any = None, event: str = "n", lowest: int = 1, **more: Any) -> bytes:
    return frame("pyipc.deliver", {"number": number, "event": event, "data": data, "lowest": lowest, **more})


async def test_a_number_is_handled_once_and_answered_as_often_as_it_comes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    router = pyipc.Router()
    seen: list[Any] = []
    router.on("n", lambda message: seen.append(message.data))
    async with wired(router) as (_server, call):
        for session in (None, "a" * 32):
            seen.clear()
            peer, _ = await call(session)
            await peer.send(deliver(5, "five"), deliver(5, "other"), deliver(6, "six"), deliver(7, "seven", lowest=6))
            await peer.send(deliver(5, "late"), deliver(4, "late"), deliver(7, "seven"))
            outcomes = [await peer.read_until("pyipc.outcome") for _ in range(5)]
            assert [each["number"] for each in outcomes] == [5, 5, 6, 7, 7]
            assert seen == ["five", "six", "seven"]


async def test_the_lowest_number_is_remembered_and_those_below_it_are_not(
    autojump_clock: trio.testing.MockClock,
) -> None:
    router = pyipc.Router()
    seen: list[Any] = []
    router.on("n", lambda message: seen.append(message.data))
    async with wired(router) as (_server, call):
        peer, _ = await call()
        await peer.send(deliver(1, "one"), deliver(2, "two"), deliver(3, "three", lowest=2))
        await peer.send(deliver(1, "late"), deliver(2, "two", lowest=2), deliver(4, "four", lowest=2))
        outcomes = [await peer.read_until("pyipc.outcome") for _ in range(5)]
        assert [each["number"] for each in outcomes] == [1, 2, 3, 2, 4]
        assert seen == ["one", "two", "three", "four"]


async def test_a_session_outlives_its_connection_and_not_its_time(autojump_clock: trio.testing.MockClock) -> None:
    router = pyipc.Router()
    seen: list[Any] = []
    router.on("n", lambda message: seen.append((message.data, message.redelivered)))
    async with wired(router, session_timeout=10.0) as (server, call):
        first, welcome = await call()
        assert welcome["session_timeout"] == 10.0
        await first.send(deliver(1, "one"))
        await first.read_until("pyipc.outcome")
        await first.link.aclose()
        await trio.sleep(9)
        second, again = await call()
        assert again["incarnation"] == welcome["incarnation"]
        assert again["instance"] == welcome["instance"]
        await second.send(deliver(1, "one", again=True))
        assert await second.read_until("pyipc.outcome") == {"number": 1}
        third, also = await call()  # while the second is there
        assert also["incarnation"] == welcome["incarnation"]
        await second.link.aclose()
        await trio.sleep(20)
        assert server.statistics().sessions == 1
        await third.link.aclose()
        await trio.sleep(9)
        assert server.statistics().sessions == 1
        await trio.sleep(2)
        assert server.statistics().sessions == 0
        fourth, forgotten = await call()
        assert forgotten["incarnation"] not in ("", welcome["incarnation"])
        await fourth.send(deliver(1, "one", again=True))
        await fourth.read_until("pyipc.outcome")
        assert seen == [("one", False), ("one", True)]
        assert server.statistics().redelivered == 1
        assert server.statistics().duplicates == 1


async def test_a_session_belongs_to_who_made_it(autojump_clock: trio.testing.MockClock) -> None:
    def tls(*names: str, fingerprint: str = "sha256:aa", host: str = "1.2.3.4") -> Peer:
        certificate = pyipc.Certificate(names=names, fingerprint=fingerprint)
        return Peer(address=f"tls://{host}:1", host=host, certificate=certificate)

    one_and_the_same = [
        (Peer(address="unix:/x", uid=1, pid=1), Peer(address="unix:/y", uid=1, pid=2)),
        (Peer(address="pipe:x", sid="S-1"), Peer(address="pipe:y", sid="S-1")),
        (tls("a.example"), tls("a.example", fingerprint="sha256:bb", host="5.6.7.8")),
        (tls(), tls(host="5.6.7.8")),
        (Peer(address="tcp://1.2.3.4:1", host="1.2.3.4"), Peer(address="tcp://1.2.3.4:2", host="1.2.3.4")),
    ]
    others = [
        Peer(address="unix:/x", uid=2),
        Peer(address="pipe:x", sid="S-2"),
        tls("b.example"),
        tls(fingerprint="sha256:cc"),
        Peer(address="tcp://1.2.3.5:1", host="1.2.3.5"),
    ]
    async with wired(pyipc.Router()) as (_, call):
        for peers, other in zip(one_and_the_same, others, strict=True):
            incarnations = [(await call("c" * 32, peer))[1]["incarnation"] for peer in (*peers, other)]
            assert incarnations[0] == incarnations[1] != incarnations[2]


async def test_sessions_without_a_connection_are_bounded(autojump_clock: trio.testing.MockClock) -> None:
    async with wired(pyipc.Router(), max_sessions=3) as (server, call):
        incarnations = []
        for number in range(10):
            peer, welcome = await call(f"{number:032}")
            incarnations.append(welcome["incarnation"])
            await peer.link.aclose()
        await settled(lambda: server.statistics().sessions == 3)
        _, oldest = await call(f"{6:032}")
        assert oldest["incarnation"] != incarnations[6]
        _, newest = await call(f"{9:032}")
        assert newest["incarnation"] == incarnations[9]


@pytest.mark.parametrize(("number", "lowest"), [(65_537, 1), (2**53 - 1, 0), (1_000_000, 900_000)])
async def test_a_number_too_far_above_the_lowest_is_refused(
    number: int, lowest: int, autojump_clock: trio.testing.MockClock
) -> None:
    router = pyipc.Router()
    seen: list[Any] = []
    router.on("n", lambda message: seen.append(message.data))
    async with wired(router) as (_, call):
        peer, _ = await call()
        await peer.send(deliver(number, lowest=lowest))
        goodbye = await peer.read_until("pyipc.goodbye")
        assert goodbye["code"] == "control"
        assert "max_session_window" in goodbye["message"]
        assert seen == []


async def test_outcomes_are_kept_within_bounds(autojump_clock: trio.testing.MockClock) -> None:
    router = pyipc.Router()

    @router.on("n")
    def fails(message: Message[Any]) -> None:
        raise ValueError("x" * 900)

    async with wired(router) as (_, call):
        peer, _ = await call()
        count = 400
        for number in range(1, count + 1):
            await peer.send(deliver(number))
        first = [await peer.read_until("pyipc.outcome") for _ in range(count)]
        assert {each["code"] for each in first} == {"handler-failed"}
        assert len(first[0]["message"]) > 900
        assert "message" not in first[-1]
        await peer.send(deliver(1), deliver(count))
        assert [await peer.read_until("pyipc.outcome") for _ in range(2)] == [first[0], first[-1]]
        await peer.send(deliver(count + 1, lowest=count))  # so there is room again
        assert len((await peer.read_until("pyipc.outcome"))["message"]) > 900


async def test_nothing_is_forgotten_whose_outcome_is_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    async with wired(pyipc.Router()) as (server, call):
        peer, _ = await call()
        (connection,) = server.connections
        async with emitting(connection, "x"):
            assert (await peer.read_until("pyipc.deliver"))["lowest"] == 1
            async with emitting(connection, "x"):
                assert (await peer.read_until("pyipc.deliver"))["lowest"] == 1
                await peer.send(frame("pyipc.outcome", {"number": 2}))
            await peer.send(frame("pyipc.outcome", {"number": 1}))
        async with emitting(connection, "x"):
            assert (await peer.read_until("pyipc.deliver"))["lowest"] == 3
            await peer.send(frame("pyipc.outcome", {"number": 3}))


async def test_outcomes_that_mean_nothing_are_ignored(autojump_clock: trio.testing.MockClock) -> None:
    router = pyipc.Router()
    work = Work(router)
    work.release.set()
    async with wired(router) as (server, call):
        peer, _ = await call()
        await peer.send(frame("pyipc.outcome", {"number": 1}), frame("pyipc.outcome", {"number": 77, "code": "x"}))
        await peer.send(deliver(1, event="work"))
        await peer.read_until("pyipc.outcome")
        (connection,) = server.connections
        async with emitting(connection, "x") as ended:
            assert await peer.read_until("pyipc.deliver") == {"number": 1, "event": "x", "lowest": 1}
            await peer.send(
                frame("pyipc.outcome", {"number": 2}), frame("pyipc.outcome", {"number": 1, "code": "busy"})
            )
            await peer.send(frame("pyipc.outcome", {"number": 1}))
        assert isinstance(ended[0], pyipc.RemoteError)
        assert ended[0].code == "busy"
