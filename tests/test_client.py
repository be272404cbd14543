"""A client that comes back: back-off, the queue meanwhile, what is carried over, refusals, closing."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import pyipc
from pyipc import Endpoint, Message, Peer
from pyipc.backoff import Backoff
from pyipc.options import Options
from pyipc.testing import Faults, FaultyTransport, pair
from pyipc.transports import Link, Listener, Transport, memory_link_pair
from tests.conformance.sides import until
from tests.wire import WirePeer, frame

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trio.testing import MockClock

pytestmark = pytest.mark.time_limit(30)


class Scripted(Transport):
    """Connects as it is told to, and remembers when it was asked."""

    def __init__(self) -> None:
        self.attempts: list[float] = []
        self.error: Exception | None = None
        self.hangs = False
        self.peers: list[WirePeer] = []
        self.buffer_size = 65_536
        self.uid: int | None = None
        self.connected = trio.Event()

    async def connect(self, address: pyipc.Address, options: Mapping[str, object]) -> Link:
        self.attempts.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        if self.hangs:
            await trio.sleep_forever()
        if self.error is not None:
            raise self.error
        ours, theirs = memory_link_pair(left=Peer(address="x", uid=self.uid), buffer_size=self.buffer_size)
        self.peers.append(WirePeer(theirs))
        self.connected.set()
        return ours

    async def listen(self, address: pyipc.Address, options: Mapping[str, object]) -> Any:
        raise AssertionError("only clients are tested with it")

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint("memory:scripted", transport=self)


async def events_of(peer: WirePeer) -> list[Any]:
    """The data of all events up to the end of the stream."""
    peer.link.send_eof()
    return [data for name, data in await peer.read_all() if not name.startswith("pyipc.")]


# --- back-off ---------------------------------------------------------------------------------------------------


def test_back_off_doubles_up_to_a_limit() -> None:
    options = Options(reconnect_interval=0.1, reconnect_factor=2.0, reconnect_max_interval=1.0, reconnect_jitter=False)
    backoff = Backoff(options)
    assert [round(backoff.next_delay(), 6) for _ in range(6)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert backoff.attempts == 6
    backoff.reset()
    assert backoff.attempts == 0
    assert backoff.next_delay() == 0.1


def test_jitter_is_full() -> None:
    rng = random.Random(4)
    options = Options(reconnect_interval=8.0, reconnect_max_interval=8.0)
    delays = [Backoff(options, rng.random).next_delay() for _ in range(1_000)]
    assert 0 <= min(delays) < 0.1
    assert 7.9 < max(delays) <= 8
    assert 3.7 < sum(delays) / 1_000 < 4.3


def test_a_fixed_delay_is_a_factor_of_one() -> None:
    backoff = Backoff(Options(reconnect_interval=3.0, reconnect_factor=1.0, reconnect_jitter=False))
    assert [backoff.next_delay() for _ in range(50)] == [3.0] * 50


def test_growth_does_not_overflow() -> None:
    backoff = Backoff(Options(reconnect_factor=1e300, reconnect_jitter=False))
    assert [backoff.next_delay() for _ in range(5)][1:] == [10.0] * 4


async def test_attempts_follow_the_back_off(autojump_clock: MockClock) -> None:
    transport = Scripted()
    transport.error = pyipc.ConnectError("nobody there")
    with pytest.raises(pyipc.ConnectError, match="nobody there"):
        async with pyipc.connect(transport.endpoint, reconnect_jitter=False, connect_timeout=10):
            raise AssertionError("never connected")
    gaps = [b - a for a, b in zip(transport.attempts, transport.attempts[1:], strict=False)]
    assert gaps == [pytest.approx(gap) for gap in (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)]
    assert trio.current_time() == pytest.approx(10)


async def test_a_connection_that_was_good_resets_the_back_off(autojump_clock: MockClock) -> None:
    transport = Scripted()
    transport.error = pyipc.ConnectError("nobody there")
    async with pyipc.connect(transport.endpoint, wait=False, reconnect_jitter=False) as client:
        await trio.sleep(30)
        transport.error = None
        await client.wait_connected()
        await transport.peers[-1].send(frame("hello there"))
        await trio.sleep(1)
        lost = trio.current_time()
        await transport.peers[-1].link.aclose()
        await trio.sleep(0.2)
        assert transport.attempts[-1] - lost == pytest.approx(0.1)
        await transport.peers[-1].link.aclose()


async def test_a_server_that_accepts_and_closes_is_no_success(autojump_clock: MockClock) -> None:
    transport = Scripted()
    async with pyipc.connect(transport.endpoint, wait=False, reconnect_jitter=False):
        for _ in range(60):
            await trio.sleep(0.05)
            for peer in transport.peers:
                await peer.link.aclose()
        assert len(transport.attempts) <= 8


async def test_the_number_of_attempts_can_be_limited(autojump_clock: MockClock) -> None:
    transport = Scripted()
    transport.error = pyipc.ConnectError("nobody there")
    async with pyipc.connect(transport.endpoint, wait=False, max_reconnects=3) as client:
        await trio.sleep(100)
        assert len(transport.attempts) == 4
        with pytest.raises(pyipc.ConnectionLost, match="given up"):
            await client.emit("x")
        with pytest.raises(pyipc.ConnectionLost, match="given up"):
            await client.request("x")
        with pytest.raises(pyipc.ConnectError, match="nobody there"):
            await client.wait_connected()


async def test_without_reconnect_a_loss_is_final(autojump_clock: MockClock) -> None:
    transport = Scripted()
    async with pyipc.connect(transport.endpoint, reconnect=False) as client:
        await transport.peers[0].link.aclose()
        await trio.sleep(100)
        assert len(transport.attempts) == 1
        with pytest.raises(pyipc.ConnectionLost):
            await client.emit("x")


# --- connecting -------------------------------------------------------------------------------------------------


async def test_connect_waits_for_a_server_that_is_late(autojump_clock: MockClock) -> None:
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            server = pyipc.Server("memory:late")

            async def serve() -> None:
                await trio.sleep(5)
                await server.run()

            nursery.start_soon(serve)
            async with pyipc.connect("memory:late", reconnect_max_interval=1) as client:
                assert client.connected
                assert client.statistics().failed_connects > 0
            await server.aclose()


async def test_a_transport_that_hangs_is_given_up(autojump_clock: MockClock) -> None:
    transport = Scripted()
    transport.hangs = True
    with pytest.raises(pyipc.ConnectError):
        async with pyipc.connect(transport.endpoint, connect_timeout=3):
            raise AssertionError("never connected")
    assert trio.current_time() == pytest.approx(3)
    async with pyipc.connect(transport.endpoint, connect_timeout=3, wait=False):
        await trio.sleep(20)
        assert len(transport.attempts) >= 5


async def test_wait_connected_has_a_time_out_of_its_own(autojump_clock: MockClock) -> None:
    transport = Scripted()
    transport.error = pyipc.ConnectError("nobody there")
    async with pyipc.connect(transport.endpoint, wait=False) as client:
        with pytest.raises(pyipc.ConnectError) as caught:
            await client.wait_connected(timeout=2)
        assert trio.current_time() == pytest.approx(2)
        assert caught.value.__cause__ is transport.error
        transport.error = None
        await client.wait_connected(timeout=None)
        await transport.peers[-1].link.aclose()


@pytest.mark.parametrize(
    "error", [pyipc.AddressError("wrong"), pyipc.UnsafePath("unsafe"), pyipc.PeerNotAllowed("not you")]
)
async def test_what_waiting_does_not_mend_is_told_at_once(error: Exception, autojump_clock: MockClock) -> None:
    transport = Scripted()
    transport.error = error
    with pytest.raises(type(error)) as caught:
        async with pyipc.connect(transport.endpoint):
            raise AssertionError("never connected")
    assert caught.value is error
    assert trio.current_time() < 0.01


async def test_a_server_that_is_not_allowed_is_told_at_once(autojump_clock: MockClock) -> None:
    transport = Scripted()
    transport.uid = 7

    def fails(peer: Peer) -> bool:
        raise LookupError("no such user")

    for allow in (lambda peer: peer.uid == 8, fails):
        endpoint = Endpoint("memory:scripted", transport=transport, allow=allow)
        with pytest.raises(pyipc.PeerNotAllowed) as caught:
            async with pyipc.connect(endpoint):
                raise AssertionError("never connected")
        assert isinstance(caught.value.peer, Peer)
        assert await transport.peers[-1].read() is None
    assert trio.current_time() < 0.01


async def test_a_refusal_is_told(autojump_clock: MockClock) -> None:
    transport = Scripted()
    async with pyipc.connect(transport.endpoint, max_reconnects=0) as client:
        goodbye = frame("pyipc.goodbye", {"code": "full", "message": "no room"})
        await transport.peers[0].send(goodbye)
        with pytest.raises(pyipc.ConnectionLost, match="no room") as lost:
            await client.request("x")
        assert not lost.value.maybe_handled
        with pytest.raises(pyipc.PeerRefused) as refused:
            await client.wait_connected()
        assert (refused.value.code, refused.value.message) == ("full", "no room")


async def test_another_version_is_final(autojump_clock: MockClock) -> None:
    transport = Scripted()
    async with pyipc.connect(transport.endpoint) as client:
        await transport.peers[0].send(frame("pyipc.goodbye", {"code": "version", "message": "too old"}))
        await trio.sleep(100)
        assert len(transport.attempts) == 1
        with pytest.raises(pyipc.PeerRefused):
            await client.wait_connected()


async def test_on_connect_and_on_disconnect(autojump_clock: MockClock) -> None:
    log: list[str] = []
    router = pyipc.Router()
    router.on("login", lambda message: log.append(f"login {message.data}"))
    router.on("seen", lambda message: log.append("seen"))

    async def login(connection: pyipc.Connection) -> None:
        log.append("on_connect")
        await connection.emit("login", "Ada")

    async with pyipc.Server("memory:log", router=router) as server:
        async with pyipc.connect(
            "memory:log", on_connect=login, on_disconnect=lambda reason: log.append(reason.code)
        ) as client:
            await client.emit("seen")
            await trio.sleep(1)
            assert log == ["on_connect", "login Ada", "seen"]
            (connection,) = server.connections
            await connection.aclose()
            await client.emit("seen")  # waits in the queue; whoever logs in goes first
            await trio.sleep(5)
            assert log[3:] == ["goodbye", "on_connect", "login Ada", "seen"]
            del log[:]
        assert log == ["closed"]


async def test_on_failed_connect(autojump_clock: MockClock) -> None:
    transport = Scripted()
    transport.error = pyipc.ConnectError("nobody there")
    failures: list[pyipc.IPCError] = []

    async def slow(error: pyipc.IPCError) -> None:
        await trio.sleep(1)  # for which the next attempt waits
        failures.append(error)
        if len(failures) == 5:
            transport.error = None

    options: dict[str, Any] = {"reconnect_interval": 0.1, "reconnect_factor": 1.0, "reconnect_jitter": False}
    async with pyipc.connect(transport.endpoint, wait=False, on_failed_connect=slow, **options) as client:
        client.on_failed_connect(failures.append)
        await client.wait_connected()
    assert [str(error) for error in failures] == ["nobody there"] * 6
    assert [round(when - transport.attempts[0], 3) for when in transport.attempts] == [0, 1.1, 2.2, 3.3]


# --- without a connection ---------------------------------------------------------------------------------------


async def test_what_is_emitted_meanwhile_is_queued_in_order(autojump_clock: MockClock) -> None:
    transport = Scripted()
    transport.error = pyipc.ConnectError("nobody there")
    async with pyipc.connect(transport.endpoint, wait=False) as client:
        for n in range(50):
            await client.emit("n", n)
            client.emit_nowait("n", n + 0.5)
        assert client.statistics().offline_messages == 100
        transport.error = None
        await client.wait_connected(timeout=60)
        await client.emit("n", 50)
        assert client.statistics().offline_messages == 0
        await client.flush()
        assert await events_of(transport.peers[0]) == [n / 2 for n in range(101)]


@pytest.mark.parametrize("limit", ["messages", "size"])
async def test_the_queue_is_bounded(limit: str, autojump_clock: MockClock) -> None:
    transport = Scripted()
    transport.error = pyipc.ConnectError("nobody there")
    options: Any = (
        {"max_offline_messages": 10} if limit == "messages" else {"max_offline_size": 10 * len(frame("n", 1))}
    )
    with pytest.raises(pyipc.Undelivered) as caught:
        async with pyipc.connect(transport.endpoint, wait=False, **options) as client:
            for _ in range(10):
                await client.emit("n", 1)
            with pytest.raises(pyipc.ConnectionLost, match="full"):
                await client.emit("n", 1)
            with pytest.raises(pyipc.ConnectionLost, match="full"):
                client.emit_nowait("n", 1)
            assert client.statistics().offline_messages == 10
    assert caught.value.count == 10


async def test_events_may_be_refused_instead(autojump_clock: MockClock) -> None:
    transport = Scripted()
    transport.error = pyipc.ConnectError("nobody there")
    async with pyipc.connect(transport.endpoint, wait=False, offline="raise") as client:
        await trio.sleep(1)
        for call in (lambda: client.emit("n", 1), lambda: client.request("n", 1)):
            with pytest.raises(pyipc.ConnectionLost, match="nobody there") as lost:
                await call()
            assert not lost.value.maybe_handled
        with pytest.raises(pyipc.ConnectionLost):
            client.emit_nowait("n", 1)


async def test_events_may_be_dropped_instead(autojump_clock: MockClock) -> None:
    transport = Scripted()
    transport.error = pyipc.ConnectError("nobody there")
    async with pyipc.connect(transport.endpoint, wait=False, offline="drop") as client:
        for _ in range(7):
            await client.emit("n", 1)
        assert client.statistics().offline_dropped == 7
        transport.error = None
        await client.wait_connected(timeout=60)
        await client.emit("n", 2)
        await client.flush()
        assert await events_of(transport.peers[0]) == [2]


async def test_what_cannot_be_sent_is_refused_though_nobody_is_there(autojump_clock: MockClock) -> None:
    transport = Scripted()
    transport.error = pyipc.ConnectError("nobody there")
    async with pyipc.connect(transport.endpoint, wait=False) as client:
        for event, data in (("pyipc.x", 1), ("", 1), ("x", object()), ("x" * 300, 1), ("big", "x" * 2_000_000)):
            with pytest.raises(pyipc.LocalProtocolError):
                await client.emit(event, data)
        assert client.statistics().offline_messages == 0


async def test_requests_wait_for_a_connection_within_their_time_out(autojump_clock: MockClock) -> None:
    router = pyipc.Router()
    router.on("echo", lambda message: message.data)
    async with pyipc.connect("memory:later", wait=False) as client:
        with pytest.raises(pyipc.RequestTimeout, match="no connection"):
            await client.request("echo", 1, timeout=3)
        assert trio.current_time() == pytest.approx(3)
        async with trio.open_nursery() as nursery:
            answers: list[Any] = []

            async def ask() -> None:
                answers.append(await client.request("echo", 2, timeout=60))

            nursery.start_soon(ask)
            async with pyipc.Server("memory:later", router=router):
                await trio.sleep(15)
                assert answers == [2]
                await client.aclose()


async def test_much_more_may_be_queued_than_the_outbox_holds(autojump_clock: MockClock) -> None:
    got: list[int] = []
    router = pyipc.Router()
    router.on("n", lambda message: got.append(message.data[0]))
    async with pyipc.connect(
        "memory:later", wait=False, outbox_high_water_size=1_000, max_outbox_size=10_000
    ) as client:
        for n in range(500):
            await client.emit("n", [n, "x" * 1_000])
        async with pyipc.Server("memory:later", router=router):
            await client.wait_connected(timeout=60)
            await trio.sleep(10)
            assert got == list(range(500))
            assert client.statistics().connects == 1
            await client.aclose()


# --- what is carried over ---------------------------------------------------------------------------------------


async def test_unsent_events_go_over_the_next_connection_once(autojump_clock: MockClock) -> None:
    transport = Scripted()
    transport.buffer_size = 10_000
    async with pyipc.connect(transport.endpoint, outbox_high_water_size=1_000_000, reconnect_jitter=False) as client:
        for n in range(100):
            await client.emit("n", [n, "x" * 4_000])
        got: list[int] = []
        first = transport.peers[0]
        while len(got) < 10:
            read = await first.read()
            assert read is not None
            if read[0] == "n":
                got.append(read[1][0])
        await first.link.aclose()
        await trio.sleep(0.01)
        assert not client.connected
        for n in range(100, 110):
            await client.emit("n", [n, ""])
        transport.buffer_size = 1_000_000
        await client.wait_connected()
        await client.flush()
        rest = [data[0] for data in await events_of(transport.peers[1])]
        # What was in the write that failed may be lost, but nothing comes twice or out of order.
        assert got == list(range(10))
        assert rest == list(range(rest[0], 110))
        assert 10 <= rest[0] <= 40


async def test_what_is_emitted_while_a_connection_ends_comes_after_what_that_has_left(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    transport = Scripted()
    transport.buffer_size = 10_000
    async with pyipc.connect(transport.endpoint, outbox_high_water_size=1_000_000, reconnect_jitter=False) as client:
        for n in range(10):
            await client.emit("n", [n, "x" * 4_000])
        await transport.peers[0].send(b"this is not JSON\f")
        await trio.sleep(1)
        for n in range(10, 13):
            await client.emit("n", [n, ""])
        transport.buffer_size = 1_000_000
        await transport.peers[0].link.aclose()
        await trio.sleep(5)
        await client.flush()
        rest = [data[0] for data in await events_of(transport.peers[1])]
        assert rest == list(range(rest[0], 13))
        assert 0 < rest[0] < 10


async def test_unsent_events_of_a_trace_go_over_the_next_connection_as_plain_ones(autojump_clock: MockClock) -> None:
    """Nobody knows what the next peer understands. The trace may be lost, but not the event."""
    transport = Scripted()
    transport.buffer_size = 10_000
    span = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with pyipc.connect(transport.endpoint, outbox_high_water_size=1_000_000, reconnect_jitter=False) as client:
        (first,) = transport.peers
        await first.send(frame("pyipc.welcome", {"version": 1, "features": ["topics"]}))
        await trio.sleep(0.01)
        for n in range(100):
            await client.emit("n", [n, "x" * 4_000], traceparent=span)
        assert (await first.read_until("pyipc.event"))["traceparent"] == span
        await first.link.aclose()
        transport.buffer_size = 1_000_000
        await trio.sleep(0.01)
        await client.wait_connected()
        await client.flush()
        rest = [data[0] for data in await events_of(transport.peers[1])]
        assert rest == list(range(rest[0], 100))
        assert 1 <= rest[0] <= 20


async def test_nothing_twice_and_nothing_out_of_order(autojump_clock: MockClock) -> None:
    """Links that break after a random number of bytes, over and over."""
    got: list[int] = []
    router = pyipc.Router()
    router.on("n", lambda message: got.append(message.data[0]))
    rng = random.Random(9)
    transport = FaultyTransport(Faults(seed=9))
    async with pair(router, faults=transport, client_options={"max_offline_messages": 100_000}, buffer_size=2_000) as (
        client,
        _,
    ):

        async def break_it() -> None:
            while True:
                await trio.sleep(rng.random() * 2)
                for link in transport.links:
                    await link.reset()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(break_it)
            for n in range(3_000):
                await client.emit("n", [n, "x" * rng.randrange(300)])
                if rng.random() < 0.02:
                    await trio.sleep(rng.random())
            nursery.cancel_scope.cancel()
        await client.wait_connected()
        await trio.sleep(30)
        assert client.statistics().connects > 10
    assert got == sorted(set(got))
    assert len(got) > 1_500


async def test_requests_are_not_sent_twice(autojump_clock: MockClock) -> None:
    handled: list[Any] = []
    router = pyipc.Router()

    @router.on("pay")
    async def pay(message: Message[Any]) -> None:
        handled.append(message.data)
        await trio.sleep(5)

    transport = FaultyTransport(Faults())
    async with pair(router, faults=transport) as (client, _):
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(pyipc.ConnectionLost) as lost:
                    await client.request("pay", 100)
                assert lost.value.maybe_handled

            nursery.start_soon(ask)
            await trio.sleep(1)
            await transport.links[-1].reset()
        await trio.sleep(60)
        assert handled == [100]


async def test_emit_while_our_own_side_gives_the_peer_up(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The link lingers so that the peer can read why; what is emitted meanwhile waits for the next connection."""
    transport = Scripted()
    async with pyipc.connect(transport.endpoint) as client:
        await transport.peers[0].send(b"this is not JSON\f")
        await trio.sleep(1)
        await client.emit("n", 1)
        client.emit_nowait("n", 2)
        await transport.peers[0].link.aclose()
        await trio.sleep(5)
        await client.emit("n", 3)
        await client.flush()
        assert await events_of(transport.peers[1]) == [1, 2, 3]


async def test_a_connection_that_is_over_already_was_one_all_the_same() -> None:
    """A server may say what it has to say and go, all before whoever waits for it has its turn."""
    heard: list[object] = []
    router = pyipc.Router()
    router.on("news", lambda message: heard.append(message.data))
    left, right = memory_link_pair()

    class Hasty(Transport):
        async def connect(self, address: pyipc.Address, options: Mapping[str, object]) -> Link:
            await right.send(b'{"type":"news","data":1}\f')
            await right.aclose()
            return left

        async def listen(self, address: pyipc.Address, options: Mapping[str, object]) -> Listener:
            raise NotImplementedError

    endpoint = pyipc.Endpoint("memory:hasty", transport=Hasty())
    with trio.fail_after(5):
        async with pyipc.connect(endpoint, router=router, reconnect=False) as client:
            assert client.statistics().connects == 1
            assert not client.connected
    assert heard == [1]


async def test_a_connection_that_is_ending_is_none_to_wait_for(autojump_clock: MockClock) -> None:
    transport = Scripted()
    async with pyipc.connect(transport.endpoint, handshake_timeout=None) as client:
        await transport.peers[0].send(b"this is not JSON\f")
        await trio.sleep(1)
        assert not client.connected
        with pytest.raises(pyipc.ConnectError, match="within 1 s: the connection is ending"):
            await client.wait_connected(timeout=1)
        await transport.peers[0].link.aclose()
        await client.wait_connected()
        assert client.connected
        assert len(transport.peers) == 2


@pytest.mark.parametrize("is_leaving", [False, True])
async def test_who_is_told_of_an_end_may_close_the_client(is_leaving: bool, autojump_clock: MockClock) -> None:
    told: list[str] = []

    async def close(reason: pyipc.Disconnected) -> None:
        await client.aclose()
        told.append(reason.code)

    began = trio.current_time()
    async with pyipc.Server("memory:world") as server, pyipc.connect("memory:world", on_disconnect=close) as client:
        if not is_leaving:
            await server.aclose()
            await until(lambda: bool(told))
    assert trio.current_time() - began < 1
    assert told == ["closed" if is_leaving else "goodbye"]


async def test_names_that_node_ipc_cannot_survive_wait_for_the_hello(autojump_clock: MockClock) -> None:
    transport = Scripted()
    async with pyipc.connect(transport.endpoint) as client:
        began = trio.current_time()
        with pytest.raises(pyipc.InvalidEventName):
            await client.emit("constructor")
        assert trio.current_time() - began == pytest.approx(5)
        await transport.peers[0].send(frame("pyipc.welcome", {"version": 1}))
        await client.emit("constructor", 1)
        await client.flush()
        assert await events_of(transport.peers[0]) == [1]


# --- closing ----------------------------------------------------------------------------------------------------


async def test_closing_gives_the_queue_a_while(autojump_clock: MockClock) -> None:
    transport = Scripted()
    transport.error = pyipc.ConnectError("nobody there")

    async def come_back() -> None:
        await trio.sleep(3)
        transport.error = None

    async with trio.open_nursery() as nursery:
        nursery.start_soon(come_back)
        async with pyipc.connect(transport.endpoint, wait=False, reconnect_max_interval=0.5) as client:
            await client.emit("n", 1)
            nursery.start_soon(_read_to_the_end, transport)
        assert trio.current_time() < 5
        assert transport.peers[0].received.count(frame("n", 1)) == 1


async def _read_to_the_end(transport: Scripted) -> None:
    await transport.connected.wait()
    await transport.peers[0].read_all()
    await transport.peers[0].link.aclose()


async def test_what_finds_no_connection_is_undelivered(autojump_clock: MockClock) -> None:
    transport = Scripted()
    transport.error = pyipc.ConnectError("nobody there")
    with pytest.raises(pyipc.Undelivered, match="nobody there") as caught:
        async with pyipc.connect(transport.endpoint, wait=False) as client:
            for n in range(3):
                await client.emit("n", n)
    assert caught.value.count == 3
    assert trio.current_time() == pytest.approx(5)
    assert "closed" in repr(client)


async def test_an_empty_queue_closes_at_once(autojump_clock: MockClock) -> None:
    transport = Scripted()
    transport.error = pyipc.ConnectError("nobody there")
    async with pyipc.connect(transport.endpoint, wait=False) as client:
        await trio.sleep(7)
    assert trio.current_time() == pytest.approx(7)
    await client.aclose()
    with pytest.raises(pyipc.ConnectionClosed):
        await client.emit("x")
    with pytest.raises(pyipc.ConnectionClosed):
        client.emit_nowait("x")
    with pytest.raises(pyipc.ConnectionClosed):
        await client.request("x")
    with pytest.raises(pyipc.ConnectionClosed):
        await client.flush()
    with pytest.raises(pyipc.ConnectionClosed):
        await client.wait_connected()


async def test_a_server_that_does_not_read_costs_the_close_time_out(autojump_clock: MockClock) -> None:
    transport = Scripted()
    transport.buffer_size = 10
    with pytest.raises(pyipc.Undelivered) as caught:
        async with pyipc.connect(transport.endpoint, close_timeout=2) as client:
            for n in range(5):
                await client.emit("n", n)
    assert caught.value.count == 5
    assert trio.current_time() == pytest.approx(2)


async def test_a_cancelled_body_closes_at_once(autojump_clock: MockClock) -> None:
    transport = Scripted()
    transport.buffer_size = 10
    with trio.move_on_after(1) as scope:
        async with pyipc.connect(transport.endpoint) as client:
            await client.emit("n", 1)
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert trio.current_time() == pytest.approx(1)
    with pytest.raises(pyipc.ConnectionLost):
        await transport.peers[0].link.send(b"x")


async def test_an_error_in_the_body_arrives_as_itself_and_what_was_queued_is_sent(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    got: list[int] = []
    router = pyipc.Router()
    router.on("n", lambda message: got.append(message.data))
    async with pyipc.Server("memory:error", router=router):
        with pytest.raises(ZeroDivisionError):
            async with pyipc.connect("memory:error") as client:
                await client.emit("n", 1)
                raise ZeroDivisionError
        assert got == [1]
    with pytest.raises(ZeroDivisionError):
        async with pyipc.connect("memory:error", wait=False) as client:
            await client.emit("n", 1)
            raise ZeroDivisionError
    assert any("could not be sent" in record.message for record in caplog.records)


async def test_closing_wakes_everybody_who_waits(autojump_clock: MockClock) -> None:
    transport = Scripted()
    transport.error = pyipc.ConnectError("nobody there")
    woken: list[type[BaseException]] = []
    async with pyipc.connect(transport.endpoint, wait=False) as client:

        async def note(call: Any) -> None:
            try:
                await call()
            except Exception as error:
                woken.append(type(error))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(note, lambda: client.request("x", timeout=None))
            nursery.start_soon(note, lambda: client.wait_connected(timeout=None))
            nursery.start_soon(note, lambda: client.events("x").get())
            nursery.start_soon(note, lambda: client.expect("x").get())
            await trio.testing.wait_all_tasks_blocked()
            await client.aclose()
    assert trio.current_time() < 5
    assert sorted(error.__name__ for error in woken) == ["ConnectionClosed"] * 2 + ["EndOfChannel"] * 2


async def test_closing_wakes_who_waits_for_room_and_sends_nothing_of_theirs(autojump_clock: MockClock) -> None:
    transport = Scripted()
    transport.buffer_size = 100
    woken: list[type[BaseException]] = []
    async with pyipc.connect(transport.endpoint, outbox_high_water_size=1_000) as client:
        with trio.move_on_after(1):
            while True:
                await client.emit("n", "x" * 100)

        async def send() -> None:
            try:
                await client.emit("too late")
            except pyipc.ConnectionClosed as error:
                woken.append(type(error))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(_read_to_the_end, transport)
            await client.aclose()
    assert woken == [pyipc.ConnectionClosed]
    assert b"too late" not in transport.peers[0].received
    assert transport.peers[0].received.endswith(frame("pyipc.goodbye", {"code": "closed", "message": ""})) or (
        b"goodbye" not in transport.peers[0].received
    )


async def test_closing_while_connecting_leaves_nothing_open(autojump_clock: MockClock) -> None:
    """At whatever step of connecting the client is closed, it closes at once."""
    for steps in range(30):
        transport = Scripted()
        began = trio.current_time()
        async with pyipc.connect(transport.endpoint, wait=False):
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            async with trio.open_nursery() as nursery:
                for peer in transport.peers:
                    peer.link.send_eof()
                nursery.cancel_scope.cancel()
            for peer in transport.peers:
                await peer.link.aclose()
        assert trio.current_time() - began < 1
        for peer in transport.peers:
            with pytest.raises(pyipc.ConnectionLost):
                await peer.link.send(b"x")


async def test_nobody_waits_for_the_welcome_of_a_connection_that_has_ended(autojump_clock: MockClock) -> None:
    transport = Scripted()
    met: list[pyipc.Connection] = []
    async with pyipc.connect(transport.endpoint, on_connect=met.append, reconnect=False):
        await transport.peers[0].link.aclose()
        await met[0].wait_closed()
        began = trio.current_time()
        with pytest.raises(pyipc.ConnectionClosed):
            await met[0].know_peer()
        assert trio.current_time() - began < 1


async def test_repr_shows_the_state(autojump_clock: MockClock) -> None:
    transport = Scripted()
    transport.error = pyipc.ConnectError("nobody there")
    async with pyipc.connect(transport.endpoint, wait=False, offline="queue") as client:
        assert "not connected" in repr(client)
        await client.emit("x")
        assert "1 queued" in repr(client)
        transport.error = None
        await client.wait_connected(timeout=60)
        assert " connected" in repr(client)
        assert client.peer is not None
        await client.flush()
        await transport.peers[0].link.aclose()
    assert "closed" in repr(client)


async def test_waiting_until_all_that_has_arrived_is_handled(autojump_clock: trio.testing.MockClock) -> None:
    """Events in line, requests beside them and streams count; what this side asks for does not."""
    at_work = 0
    done: list[object] = []
    router = pyipc.Router()

    @router.on("event")
    @router.on("ask")
    async def handle(message: pyipc.Message[object]) -> str:
        nonlocal at_work
        at_work += 1
        await trio.sleep(1)
        at_work -= 1
        done.append(message.data)
        return "done"

    server_router = pyipc.Router()
    server_router.on("never", lambda message: trio.sleep_forever())
    async with (
        pyipc.testing.pair(server_router, client_router=router) as (client, server),
        trio.open_nursery() as nursery,
    ):
        await client.wait_handled()  # nothing has come yet
        [connection] = server.connections
        nursery.start_soon(client.request, "never")
        nursery.start_soon(connection.request, "ask", 3)
        for number in (1, 2):
            await connection.emit("event", number)
        await trio.testing.wait_all_tasks_blocked()
        assert at_work == 2
        await client.wait_handled()
        assert (at_work, sorted(done, key=repr)) == (0, [1, 2, 3])
        nursery.cancel_scope.cancel()
