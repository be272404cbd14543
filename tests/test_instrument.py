"""Instruments: what they are told, the contexts that they give, and that they can do no harm."""

from __future__ import annotations

import contextlib
import contextvars
import itertools
import random
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import pyipc
from pyipc import Message
from pyipc.connection import Connection
from pyipc.testing import pair
from tests.certificates import authority_file, leaf, leaf_file
from tests.wire import frame, hello, join

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from trio.testing import MockClock

pytestmark = pytest.mark.time_limit(30)


class Recorder(pyipc.Instrument):
    """Notes all that it is told, in order."""

    def __init__(self) -> None:
        self.notes: list[tuple[Any, ...]] = []

    def connected(self, connection: Connection) -> None:
        self.notes.append(("connected", connection))

    def disconnected(self, reason: pyipc.Disconnected) -> None:
        self.notes.append(("disconnected", reason.connection, reason.code))

    def sent(self, kind: str, event: str, size: int, connection: Connection) -> None:
        assert connection.is_open
        self.notes.append(("sent", kind, event, size))

    @contextlib.contextmanager
    def calling(self, kind: str, event: str, address: str) -> Iterator[None]:
        with self._noted("calling", kind, event):
            yield

    @contextlib.contextmanager
    def handling(self, kind: str, message: Message[Any]) -> Iterator[None]:
        with self._noted("handling", kind, message.event):
            yield

    @contextlib.contextmanager
    def _noted(self, *what: str) -> Iterator[None]:
        self.notes.append(("begin", *what))
        try:
            yield
        except BaseException as error:
            self.notes.append(("end", *what, error))
            raise
        self.notes.append(("end", *what, None))

    def of(self, *kinds: str) -> list[tuple[Any, ...]]:
        """The notes whose first words are these."""
        return [note for note in self.notes if note[: len(kinds)] == kinds]

    def errors(self, *what: str) -> list[type[BaseException]]:
        """How the contexts of this kind were left."""
        return [type(error) for *_, error in self.of("end", *what)]


@contextlib.asynccontextmanager
async def watched_pair(
    router: pyipc.Router | None = None,
    *,
    ours: pyipc.Instrument | None = None,
    theirs: pyipc.Instrument | None = None,
    client_router: pyipc.Router | None = None,
    **options: Any,
) -> Any:
    """A client and a server, each with an instrument, which have introduced themselves."""
    name = f"memory:{next(_NAMES)}"
    async with (
        pyipc.Server(name, router=router, instrument=theirs, **options) as server,
        pyipc.connect(name, router=client_router, instrument=ours, **options) as client,
    ):
        await trio.testing.wait_all_tasks_blocked()
        yield client, server


_NAMES = itertools.count()


# --- what it is told ----------------------------------------------------------------------------------------------


async def test_the_life_of_a_connection_and_its_messages() -> None:
    router = pyipc.Router()
    router.on("add", lambda message: sum(message.data))
    router.on("tick", lambda message: None)
    ours, theirs = Recorder(), Recorder()
    async with watched_pair(router, ours=ours, theirs=theirs) as (client, server):
        (connection,) = server.connections
        assert await client.request("add", [1, 2]) == 3
        await client.emit("tick")
        client.emit_nowait("tick", 5)
        await client.flush()
        await trio.testing.wait_all_tasks_blocked()
    assert [note[0] for note in (ours.notes[0], ours.notes[-1])] == ["connected", "disconnected"]
    assert ours.notes[1:-1] == [
        ("begin", "calling", "request", "add"),
        ("sent", "request", "add", len(b'{"type":"pyipc.request","data":{"call":1,"event":"add","data":[1,2]}}\f')),
        ("end", "calling", "request", "add", None),
        ("sent", "event", "tick", len(b'{"type":"tick","data":null}\f')),
        ("sent", "event", "tick", len(b'{"type":"tick","data":5}\f')),
    ]
    assert theirs.notes == [
        ("connected", connection),
        ("begin", "handling", "request", "add"),
        ("end", "handling", "request", "add", None),
        *[("begin", "handling", "event", "tick"), ("end", "handling", "event", "tick", None)] * 2,
        ("disconnected", connection, "goodbye"),
    ]


async def test_every_way_of_sending_is_told_once_with_its_size(autojump_clock: MockClock) -> None:
    ours, theirs = Recorder(), Recorder()
    large, small = "x" * 3_000, len(b'{"type":"small","data":null}\f')
    big = len(b'{"type":"large","data":""}\f') + 3_000
    async with watched_pair(ours=ours, theirs=theirs, outbox_high_water_size=4_096) as (client, server):
        (connection,) = server.connections
        for _ in range(5):  # above the high-water mark all but the first wait
            await connection.emit("large", large)
        connection.emit_nowait("small")
        for _ in range(3):
            await connection.emit("small")
        await server.broadcast("small")
        server.broadcast_nowait("small")
        for _ in range(2):
            with pytest.raises(pyipc.NoHandler):
                await connection.request("nobody")
        sent = theirs.of("sent")
        assert [event for _, _, event, _ in sent] == ["large"] * 5 + ["small"] * 6 + ["nobody"] * 2
        assert {size for _, _, event, size in sent if event == "small"} == {small}
        assert {size for _, _, event, size in sent if event == "large"} == {big}
        assert connection.statistics().events_sent == len(sent)
        await client.emit("large", large)
        assert ours.of("sent") == [("sent", "event", "large", big)]


async def test_what_is_not_sent_is_not_told() -> None:
    ours = Recorder()
    async with watched_pair(ours=ours, outbox_high_water_size=100, max_frame_size=1_000) as (client, _):
        for call in (client.emit, client.request):
            with pytest.raises(pyipc.MessageTooLarge):
                await call("large", "x" * 2_000)
        client.emit_nowait("e", "x" * 200)
        with pytest.raises(trio.WouldBlock):
            client.emit_nowait("e")
        with trio.CancelScope() as scope:
            scope.cancel()
            await client.emit("e")
        assert [note[:3] for note in ours.of("sent")] == [("sent", "event", "e")]


async def test_what_was_queued_is_told_when_it_is_sent() -> None:
    ours = Recorder()
    server = pyipc.Server("memory:instrument-late")
    async with pyipc.connect("memory:instrument-late", wait=False, instrument=ours, reconnect_interval=0.01) as client:
        await client.emit("early", 1)
        assert ours.notes == []
        async with server:
            await client.wait_connected()
            assert [note[:3] for note in ours.notes[1:]] == [("sent", "event", "early")]
            await client.flush()


async def test_calls_that_fail_leave_their_context_by_the_error(autojump_clock: MockClock) -> None:
    router = pyipc.Router()

    @router.on("refuses")
    def refuse(message: Message[Any]) -> None:
        raise pyipc.Refused("no", "not now")

    router.on("stays", lambda message: trio.sleep_forever())
    ours, theirs = Recorder(), Recorder()
    async with watched_pair(router, ours=ours, theirs=theirs, client_router=router) as (client, server):
        (connection,) = server.connections
        for side in (client, connection):
            with pytest.raises(pyipc.RemoteError):
                await side.request("refuses")
            with pytest.raises(pyipc.NoHandler):
                await side.request("nobody")
            with pytest.raises(pyipc.RequestTimeout):
                await side.request("stays", timeout=1)
            with pytest.raises(pyipc.UnencodableData):
                await side.request("refuses", object())
            with trio.move_on_after(1):
                await side.request("stays")
            await trio.testing.wait_all_tasks_blocked()
    kinds = [pyipc.RemoteError, pyipc.NoHandler, pyipc.RequestTimeout, pyipc.UnencodableData, trio.Cancelled]
    for recorder in (ours, theirs):
        assert recorder.errors("calling") == kinds
        assert recorder.errors("handling") == [pyipc.Refused, trio.Cancelled, trio.Cancelled]
    async with pyipc.connect("memory:nobody", wait=False, offline="raise", instrument=ours) as client:
        with pytest.raises(pyipc.ConnectionLost):
            await client.request("anything")
    assert ours.notes[-2:-1] == [("begin", "calling", "request", "anything")]
    assert ours.errors("calling")[-1] is pyipc.ConnectionLost


async def test_streams_and_confirmed_events_have_contexts_as_well(autojump_clock: MockClock) -> None:
    router = pyipc.Router()
    inside: list[tuple[str, str]] = []
    ours, theirs = Tracer(), Recorder()

    @router.on("rows")
    async def rows(message: Message[int]) -> AsyncIterator[int]:
        for number in range(message.data):
            if message.data < 2_000_000:
                await trio.sleep(1)
            yield number
        if message.data == 3:
            raise pyipc.Refused("no", "no more")

    @router.on("paid")
    async def paid(message: Message[Any]) -> None:
        await trio.sleep(1)
        if message.data:
            raise LookupError("no")

    async with watched_pair(router, ours=ours, theirs=theirs) as (client, _):
        async with client.stream("rows", 2) as stream:
            inside.append((ours.names[present.get()], ours.parents[present.get()]))
            assert [row async for row in stream] == [0, 1]
        with pytest.raises(pyipc.RemoteError):
            async with client.stream("rows", 3) as stream:
                async for _ in stream:
                    pass
        for count in (1_000_000, 2_000_000):  # it is left while the handler waits, and while it stands at its yield
            async with client.stream("rows", count) as stream:
                assert await anext(stream) == 0
                await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(pyipc.NoHandler):
            async with client.stream("nothing") as stream:
                await anext(stream)
        await client.emit("paid", confirm=True)
        with pytest.raises(pyipc.RemoteError):
            await client.emit("paid", 1, confirm=True)
        await trio.testing.wait_all_tasks_blocked()
        assert present.get() == ""
    assert inside == [("stream rows", "")]
    assert [name for name in ours.names.values()] == [*["stream rows"] * 4, "stream nothing", *["confirmed paid"] * 2]
    assert ours.open == set()
    assert theirs.errors("handling", "stream") == [type(None), pyipc.Refused, trio.Cancelled, GeneratorExit]
    assert theirs.errors("handling", "event") == [type(None), LookupError]


async def test_every_kind_that_is_sent(autojump_clock: MockClock) -> None:
    router = pyipc.Router()
    router.on("a", lambda message: None)

    @router.on("rows")
    async def rows(message: Message[Any]) -> AsyncIterator[int]:
        yield 1

    ours, theirs = Recorder(), Recorder()
    async with watched_pair(router, ours=ours, theirs=theirs) as (client, server):
        await client.emit("a")
        await client.emit("a", attachments=[b"12345"])
        client.emit_nowait("a", attachments=[b"12345"])
        await client.emit("a", confirm=True)
        await client.emit("a", confirm=True, attachments=[b"12345"])
        await client.request("a")
        await client.request("a", attachments=[b"12345"])
        async with client.stream("rows") as stream:
            assert await anext(stream) == 1
        async with client.subscribe("t") as subscription:
            await client.publish("t", retain=True)
            await server.publish("t")
            await anext(subscription)
            await anext(subscription)
        async with client.subscribe("t") as subscription:
            assert (await anext(subscription)).retained
        await server.broadcast("news", attachments=[b"12345"])
    sent = [(kind, size) for _, kind, _, size in ours.of("sent")]
    assert [kind for kind, _ in sent] == [*["event"] * 3, *["confirmed"] * 2, *["request"] * 2, "stream", "publish"]
    sizes = [size for _, size in sent]
    assert [sizes[1] - sizes[0], sizes[2] - sizes[0], sizes[4] - sizes[3], sizes[6] - sizes[5]] == [5 + 9] * 4
    published = len(b'{"type":"pyipc.published","data":{"topic":"t"}}\f')
    told = theirs.of("sent")
    assert told[:2] == [("sent", "published", "t", published)] * 2
    assert [note[1:3] for note in told[2:]] == [("published", "t"), ("event", "news")]
    assert told[-1][3] == len(b'{"type":"news","data":null}\f') + 9 + 5


async def test_what_was_published_without_a_connection_is_told_when_it_is_sent() -> None:
    ours = Recorder()
    server = pyipc.Server("memory:instrument-late-topic")
    async with pyipc.connect(
        "memory:instrument-late-topic", wait=False, instrument=ours, reconnect_interval=0.01
    ) as client:
        await client.publish("t", 1)
        async with server:
            await client.wait_connected()
            await client.flush()
            assert [note[:3] for note in ours.of("sent")] == [("sent", "publish", "t")]


async def test_handlers_that_fail_leave_their_context_by_the_error(caplog: pytest.LogCaptureFixture) -> None:
    router = pyipc.Router()

    @router.on("plain")
    def plain(message: Message[Any]) -> None:
        raise LookupError("plain")

    @router.on("at once")
    async def at_once(message: Message[Any]) -> None:
        raise LookupError("at once")

    @router.on("later")
    async def later(message: Message[Any]) -> None:
        await trio.lowlevel.checkpoint()
        raise LookupError("later")

    theirs = Recorder()
    async with watched_pair(router, theirs=theirs) as (client, _):
        for name in ("plain", "at once", "later"):
            with pytest.raises(pyipc.RemoteError, match=f"LookupError: {name}"):
                await client.request(name)
            await client.emit(name)
            await client.flush()
            await trio.testing.wait_all_tasks_blocked()
    assert theirs.errors("handling") == [LookupError] * 6
    # The log shows the handler, not what stands around it; and an instrument that let it pass has not failed.
    assert not any("pyipc.instrument" in record.name for record in caplog.records)
    assert len(caplog.records) == 6


async def test_each_of_several_handlers_has_its_context() -> None:
    router = pyipc.Router()
    router.on("tick", lambda message: None)
    router.once("tick", lambda message: trio.lowlevel.checkpoint())
    router.on("tick", lambda message: None)
    router.on("*", lambda message: trio.lowlevel.checkpoint())
    theirs = Recorder()
    async with watched_pair(router, theirs=theirs) as (client, _):
        for _ in range(2):
            await client.emit("tick")
        await client.flush()
        await trio.testing.wait_all_tasks_blocked()
    assert theirs.of("begin", "handling") == [("begin", "handling", "event", "tick")] * 7
    assert [note[0] for note in theirs.of("begin") + theirs.of("end")].count("end") == 7
    depth = 0
    for note in theirs.notes:
        depth += (note[0] == "begin") - (note[0] == "end")
        assert depth in (0, 1)  # they run one after the other


async def test_handlers_come_and_go_as_without() -> None:
    router = pyipc.Router()
    theirs = Recorder()
    async with watched_pair(router, theirs=theirs) as (client, server):
        with pytest.raises(pyipc.NoHandler):
            await client.request("late")

        def late(message: Message[int]) -> int:
            return message.data * 2

        router.on("late", late)
        assert await client.request("late", 4) == 8
        with pytest.raises(pyipc.InvalidData):
            await client.request("late", "four")
        server.on("*", lambda message: "other")  # the most specific one answers
        assert await client.request("late", 5) == 10
        router.off("late", late)
        assert await client.request("late", 5) == "other"
        server.off("*")
        with pytest.raises(pyipc.NoHandler):
            await client.request("late", 5)
        server.once("once", lambda message: 1)
        assert await client.request("once") == 1
        with pytest.raises(pyipc.NoHandler):
            await client.request("once")
        server.on("two", late)
        server.on("two", late)
        with pytest.raises(pyipc.RemoteError, match=r"late\b.*late\b"):
            await client.request("two", 1)
    assert len(theirs.of("begin", "handling")) == 4


async def test_peers_can_choose_any_number_of_names() -> None:
    router = pyipc.Router()
    router.on("**", lambda message: None)
    theirs = Recorder()
    async with watched_pair(router, theirs=theirs) as (client, server):
        for number in range(2_500):
            await client.emit(f"e{number}")
        await client.request("r")
        for number in range(1_100):
            await client.request(f"r{number}")
        heard = server._heard
        assert len(heard._watched) <= 1_024
        assert len(heard._answering) <= 1_024
    assert len(theirs.of("begin", "handling", "event")) == 2_500


# --- connections ----------------------------------------------------------------------------------------------------


def balance(recorder: Recorder) -> list[int]:
    """How often each connection was made and has ended, as told."""
    made = [connection for _, connection in recorder.of("connected")]
    ended = [connection for _, connection, _ in recorder.of("disconnected")]
    assert len(set(made)) == len(made)
    assert sorted(map(id, ended)) == sorted(map(id, made))
    return [len(made), len(ended)]


async def test_whoever_is_turned_away_was_never_connected(autojump_clock: MockClock) -> None:
    theirs = Recorder()
    async with pyipc.Server("memory:full", max_connections=1, instrument=theirs), pyipc.connect("memory:full"):
        for _ in range(3):
            async with pyipc.connect("memory:full", reconnect=False) as client:
                with pytest.raises(pyipc.ConnectionLost):
                    await client.request("anything")
    assert balance(theirs) == [1, 1]


@pytest.mark.parametrize("who", ["client", "server"])
async def test_a_cancelled_side_tells_of_the_end_as_well(who: str) -> None:
    ours, theirs = Recorder(), Recorder()
    async with trio.open_nursery() as nursery:
        server = pyipc.Server("memory:cancelled", instrument=theirs)
        await nursery.start(server.run)
        async with pyipc.connect("memory:cancelled", instrument=ours, reconnect=False):
            await trio.testing.wait_all_tasks_blocked()
            if who == "server":
                nursery.cancel_scope.cancel()
            else:
                with trio.CancelScope() as scope:
                    async with pyipc.connect("memory:cancelled", instrument=ours):
                        scope.cancel()
                        await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert balance(ours) == ([1, 1] if who == "server" else [2, 2])
    assert balance(theirs) == balance(ours)


@pytest.mark.parametrize("is_admitted", [True, False])
async def test_over_tls_it_is_told_once_the_server_has_answered(is_admitted: bool, tmp_path: Path) -> None:
    """Only then is a client connected: of TLS it sees the end before the server has looked at its certificate."""
    ours, theirs = Recorder(), Recorder()
    tls = pyipc.TLS(cert=leaf_file(tmp_path / "server.pem", leaf("127.0.0.1")), client_ca=authority_file(tmp_path))
    name = "client.example" if is_admitted else "somebody.else"
    client = pyipc.TLS(cert=leaf_file(tmp_path / "client.pem", leaf(name)), ca=authority_file(tmp_path))
    here = pyipc.Endpoint("tls://127.0.0.1:0", tls=tls, allow={"client.example"})
    async with pyipc.Server(here, instrument=theirs) as server:
        endpoint = pyipc.Endpoint(server.addresses[0], tls=client)
        if is_admitted:
            async with pyipc.connect(endpoint, instrument=ours) as connected:
                assert [note[0] for note in ours.notes] == ["connected"]
                with pytest.raises(pyipc.NoHandler):
                    await connected.request("nobody")
        else:
            with pytest.raises(pyipc.PeerRefused):
                async with pyipc.connect(endpoint, instrument=ours):
                    pass
    assert balance(ours) == balance(theirs) == [is_admitted, is_admitted]


async def test_peers_that_come_and_go_are_told_of_each(autojump_clock: MockClock) -> None:
    theirs, rng = Recorder(), random.Random(5)
    async with pyipc.Server(instrument=theirs, plain_peers=False, handshake_timeout=1.0) as server:
        for _ in range(50):
            peer = join(server)
            if rng.random() < 0.7:
                await peer.send(hello())
            if rng.random() < 0.3:
                await peer.send(frame("e"))
            if rng.random() < 0.5:
                await trio.sleep(rng.random() * 2)
            if rng.random() < 0.7:
                await peer.link.aclose()
        await trio.testing.wait_all_tasks_blocked()
    assert balance(theirs) == [50, 50]


# --- contexts -------------------------------------------------------------------------------------------------------

present: contextvars.ContextVar[str] = contextvars.ContextVar("present", default="")


class Tracer(pyipc.Instrument):
    """Makes spans as OpenTelemetry does: the present one is a context variable."""

    def __init__(self) -> None:
        self.numbers = itertools.count(1)
        self.parents: dict[str, str] = {}
        self.names: dict[str, str] = {}
        self.open: set[str] = set()

    @contextlib.contextmanager
    def span(self, name: str, parent: str) -> Iterator[str]:
        number = next(self.numbers)
        trace = parent[3:35] or f"{number:032x}"
        me = f"00-{trace}-{number:016x}-01"
        self.parents[me], self.names[me] = parent, name
        self.open.add(me)
        token = present.set(me)
        try:
            yield me
        finally:
            present.reset(token)
            self.open.remove(me)

    def calling(self, kind: str, event: str, address: str) -> contextlib.AbstractContextManager[str]:
        return self.span(f"{kind} {event}", present.get())

    def handling(self, kind: str, message: Message[Any]) -> contextlib.AbstractContextManager[str]:
        assert present.get() == ""  # nothing of any other message is left over where a handler begins
        return self.span(f"handle {message.event}", message.traceparent)

    def traceparent(self) -> str:
        return present.get()

    def path(self, span: str) -> list[str]:
        """The names of a span and of those that it comes from, outermost first."""
        names = []
        while span:
            names.append(self.names[span])
            span = self.parents[span]
        return names[::-1]


async def test_a_trace_goes_on_through_handlers_of_both_sides_by_itself() -> None:
    tracer = Tracer()
    near, far = pyipc.Router(), pyipc.Router()
    paths: list[list[str]] = []

    @far.on("outer")
    async def outer(message: Message[Any]) -> Any:
        await trio.lowlevel.checkpoint()
        async with trio.open_nursery() as nursery:  # tasks of a handler are in its context
            nursery.start_soon(message.connection.request, "inner", 1)
            nursery.start_soon(message.connection.request, "inner", 2)
        await message.connection.emit("told")
        message.connection.emit_nowait("told")
        return message.traceparent

    @near.on("inner")
    def inner(message: Message[int]) -> None:
        paths.append(tracer.path(present.get()))

    @near.on("told")
    async def told(message: Message[Any]) -> None:
        await trio.lowlevel.checkpoint()
        paths.append(tracer.path(present.get()))

    async with watched_pair(far, ours=tracer, theirs=tracer, client_router=near) as (client, server):
        with tracer.span("program", "") as program:
            given = await client.request("outer")
            assert tracer.parents[given] == program
            await trio.testing.wait_all_tasks_blocked()
            assert present.get() == program
        start = ["program", "request outer", "handle outer"]
        assert paths[:2] == [[*start, "request inner", "handle inner"]] * 2
        assert paths[2:] == [[*start, "handle told"]] * 2
        paths.clear()
        with tracer.span("news", "") as news:
            await server.broadcast("told")
            await server.broadcast("told", traceparent=program)  # what is given goes before what is
        await server.broadcast("told")
        await trio.testing.wait_all_tasks_blocked()
        assert paths == [["news", "handle told"], ["program", "handle told"], ["handle told"]]
        assert tracer.parents[news] == ""
    assert tracer.open == set()


@pytest.mark.parametrize("seed", range(20))
async def test_no_span_reaches_the_handler_of_another_message(seed: int, autojump_clock: MockClock) -> None:
    """Handlers that wait, or not, fail, are cancelled, ask back, of events and requests, all at once.

    Their first steps run in the task that reads, one after the other; `Tracer.handling` sees if one left anything.
    """
    rng = random.Random(seed)
    tracer = Tracer()
    near, far = pyipc.Router(), pyipc.Router()
    wrong: list[str] = []

    async def work(message: Message[list[int]]) -> int:
        mine = present.get()

        def look() -> None:
            if present.get() != mine or (message.traceparent and tracer.parents[mine] != message.traceparent):
                wrong.append(message.event)

        number, steps = message.data
        look()
        for _ in range(steps % 3):
            await (trio.lowlevel.checkpoint() if rng.random() < 0.5 else trio.sleep(rng.random()))
            look()
        if steps > 4:
            await message.connection.request("work", [number, steps - 4])
            look()
        if steps == 3:
            raise LookupError("as it happens")
        return number

    def plain(message: Message[list[int]]) -> int:
        return message.data[0]

    async def broken(message: Message[Any]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, 1)
            await trio.lowlevel.checkpoint()
            raise pyipc.Refused("no", "no")

    for router in (near, far):
        router.on("work", work)
        router.on("plain", plain)
        router.on("broken", broken)

    async def ask(number: int) -> None:
        name, steps = rng.choice(["work", "work", "plain", "broken"]), rng.randrange(9)
        side = rng.choice([client, connection])
        with contextlib.suppress(pyipc.RemoteError, pyipc.RequestTimeout), tracer.span(f"ask {number}", "") as me:
            if rng.random() < 0.4:
                await side.emit(name, [number, steps])
            elif rng.random() < 0.3:
                with trio.move_on_after(rng.random()):
                    await side.request(name, [number, steps])
            else:
                await side.request(name, [number, steps], timeout=rng.choice([0.2, 5]))
            assert present.get() == me

    async with watched_pair(
        far, ours=tracer, theirs=tracer, client_router=near, max_concurrent_requests=rng.choice([1, 3, 64])
    ) as (client, server):
        (connection,) = server.connections
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(ask, number)
                if rng.random() < 0.3:
                    await trio.sleep(rng.random())
        await trio.sleep(60)
        assert wrong == [], f"seed {seed}"
        assert tracer.open == set(), f"seed {seed}"
        assert present.get() == ""
        assert connection.statistics().concurrent_requests == 0


async def test_without_a_present_span_nothing_is_said() -> None:
    router = pyipc.Router()
    router.on("ask", lambda message: message.traceparent)

    class Silent(pyipc.Instrument):
        def traceparent(self) -> str:
            return ""

    async with watched_pair(router, ours=Silent()) as (client, _):
        assert await client.request("ask") == ""
        assert await client.request("ask", traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-00") != ""


# --- harm -----------------------------------------------------------------------------------------------------------


class Trap:
    """A context that fails at one of its ends."""

    def __init__(self, end: str) -> None:
        self._end = end

    def __enter__(self) -> None:
        if self._end == "enter":
            raise LookupError("on entering")

    def __exit__(self, *error: object) -> bool:
        if self._end == "leave":
            raise LookupError("on leaving")
        if self._end == "convert" and error[1] is not None:
            raise LookupError("another error") from error[1]  # type: ignore[misc]
        return True  # as if it could hold the error back


class Harmful(pyipc.Instrument):
    """Fails in one way, in every method."""

    def __init__(self, how: str) -> None:
        self.how = how
        self.calls = 0

    def _fail(self) -> Any:
        self.calls += 1
        if self.how == "raise":
            raise LookupError("at once")
        if self.how == "nonsense":
            return 5
        return Trap(self.how)

    def connected(self, connection: Connection) -> None:
        self._fail()

    def disconnected(self, reason: pyipc.Disconnected) -> None:
        self._fail()

    def sent(self, kind: str, event: str, size: int, connection: Connection) -> None:
        self._fail()

    def calling(self, kind: str, event: str, address: str) -> Any:
        return self._fail()

    def handling(self, kind: str, message: Message[Any]) -> Any:
        return self._fail()

    def traceparent(self) -> Any:
        return self._fail()


LOGGED = {
    "raise": {"connected", "disconnected", "sent", "calling", "handling", "traceparent"},
    "nonsense": {"calling", "handling", "traceparent"},
    "enter": {"calling", "handling", "traceparent"},
    "leave": {"calling", "handling", "traceparent"},
    "convert": {"calling", "handling", "traceparent"},
    "swallow": {"traceparent"},
}


@pytest.mark.parametrize("how", LOGGED)
async def test_an_instrument_can_do_no_harm(how: str, caplog: pytest.LogCaptureFixture) -> None:
    router = pyipc.Router()
    router.on("double", lambda message: message.data * 2)
    waiting = trio.Event()

    @router.on("refuse")
    async def refuse(message: Message[Any]) -> None:
        await trio.lowlevel.checkpoint()
        raise pyipc.Refused("no", "not now")

    @router.on("stay")
    async def stay(message: Message[Any]) -> None:
        waiting.set()
        await trio.sleep_forever()

    heard: list[int] = []
    router.on("tick", lambda message: heard.append(message.data))
    ours, theirs = Harmful(how), Harmful(how)
    async with watched_pair(router, ours=ours, theirs=theirs) as (client, server):
        for number in range(3):
            assert await client.request("double", number) == 2 * number
            with pytest.raises(pyipc.RemoteError) as refused:
                await client.request("refuse")
            assert refused.value.code == "no"
            await client.emit("tick", number)
            client.emit_nowait("tick", number)
            await server.broadcast("news")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.request, "stay")
            await waiting.wait()
            nursery.cancel_scope.cancel()
        await client.request("double", 1)
        (connection,) = server.connections
        await trio.testing.wait_all_tasks_blocked()
        statistics = connection.statistics()
        assert (statistics.refusals, statistics.handler_errors, statistics.concurrent_requests) == (3, 0, 0)
    assert heard == [0, 0, 1, 1, 2, 2]
    assert min(ours.calls, theirs.calls) > 10
    told = [record.getMessage().split()[0] for record in caplog.records if record.name == "pyipc.instrument"]
    # Once for each method and side, however often it failed. The client has no handlers, and the server asks nothing.
    failing = [*(LOGGED[how] - {"handling"}), *(LOGGED[how] - {"calling"})]
    assert sorted(told) == sorted(f"Harmful.{method}" for method in failing)
    assert {record.name for record in caplog.records} <= {"pyipc.instrument"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
async def test_what_ends_a_program_passes_through_an_instrument(error: type[BaseException]) -> None:
    class Ending(pyipc.Instrument):
        @contextlib.contextmanager
        def calling(self, kind: str, event: str, address: str) -> Iterator[None]:
            yield
            raise error

    router = pyipc.Router()
    router.on("ask", lambda message: 1)
    async with watched_pair(router, ours=Ending()) as (client, _):
        with pytest.raises(error):
            await client.request("ask")


@pytest.mark.parametrize("instrument", [object(), pyipc.Instrument, "metrics"])
async def test_what_is_no_instrument(instrument: Any) -> None:
    with pytest.raises(TypeError, match=r"instrument must be of a class derived from pyipc\.Instrument, not"):
        pyipc.Server(instrument=instrument)
    with pytest.raises(TypeError, match="instrument must be"):
        async with pyipc.connect("memory:nobody", instrument=instrument):
            pass


# --- cost -----------------------------------------------------------------------------------------------------------


async def test_without_an_instrument_nothing_of_it_is_there() -> None:
    async with pair() as (client, server):
        await trio.testing.wait_all_tasks_blocked()
        (connection,) = server.connections
        assert type(connection) is Connection
        assert type(client) is pyipc.Client
        assert type(client._up.connection) is Connection
        assert server._heard is server._router


async def test_handlers_are_not_touched_by_an_instrument_that_does_not_ask_for_it() -> None:
    class Counting(pyipc.Instrument):
        def sent(self, kind: str, event: str, size: int, connection: Connection) -> None: ...

    async with watched_pair(ours=Counting(), theirs=Counting()) as (_, server):
        assert server._heard is server._router
