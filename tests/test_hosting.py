"""Servers that listen through somebody else, who brings what one of them says to everybody to others."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import textwrap
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import pyipc
from pyipc import Endpoint, Host, hosted_by
from pyipc.transports import Transport, transport_for
from tests.conftest import CANNOT_RUN, ROOT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from pyipc.transports import Link, Listener

    Sides = tuple[pyipc.Server, pyipc.Client]

TRACE = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"


class Elsewhere(Transport):
    """Listens in memory, under the name of the address with ``x`` behind it."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Mapping[str, object]]] = []

    async def connect(self, address: pyipc.Address, options: Mapping[str, object]) -> Link:
        raise AssertionError("a host is for listening")

    async def listen(self, address: pyipc.Address, options: Mapping[str, object]) -> Listener:
        self.asked.append((str(address), options))
        return await transport_for("memory").listen(pyipc.parse_address(f"memory:{address.name}x"), {})


class Notes(Host):
    """Notes all that it is told; brings nothing anywhere."""

    def __init__(self, moves: Transport | None = None) -> None:
        self.moves = moves
        self.notes: list[tuple[Any, ...]] = []

    def transport(self, endpoint: Endpoint) -> Transport | None:
        self.notes.append(("transport", str(endpoint.parsed)))
        return self.moves

    def opened(self, server: pyipc.Server) -> None:
        self.notes.append(("opened", [str(address) for address in server.addresses]))

    def closed(self, server: pyipc.Server) -> None:
        self.notes.append(("closed", len(server.connections)))

    def broadcast(self, server: pyipc.Server, event: str, data: object, **more: Any) -> None:
        self.notes.append(("broadcast", event, data, more))

    def publish(self, server: pyipc.Server, topic: str, data: object, **more: Any) -> None:
        self.notes.append(("publish", topic, data, more))

    def forget(self, server: pyipc.Server, pattern: str) -> None:
        self.notes.append(("forget", pattern))

    def of(self, kind: str) -> list[tuple[Any, ...]]:
        return [note[1:] for note in self.notes if note[0] == kind]


@pytest.fixture
def host() -> Notes:
    return Notes()


# --- listening ---


async def test_a_server_listens_through_its_host() -> None:
    elsewhere = Elsewhere()
    host = Notes(elsewhere)
    # Whoever comes to a link in memory is nobody in particular.
    server = pyipc.Server(Endpoint("node-ipc:world", mode=0o660, allow=pyipc.ANYONE), "memory:other")
    server.on("ping", lambda message: "pong")
    with hosted_by(host):
        async with server:
            assert [address.name for address in server.addresses] == ["worldx", "otherx"]
            async with pyipc.connect("memory:worldx") as one, pyipc.connect("memory:otherx") as other:
                assert await one.request("ping") == await other.request("ping") == "pong"
    # What the endpoint says for its own transport is said to the host's.
    (first, options), second = elsewhere.asked
    assert (first, options["mode"], second) == ("node-ipc:world", 0o660, ("memory:other", {}))
    assert host.notes == [
        ("transport", "node-ipc:world"),
        ("transport", "memory:other"),
        ("opened", ["memory:worldx", "memory:otherx"]),
        ("closed", 0),
    ]


async def test_a_host_may_leave_an_address_to_the_server(host: Notes) -> None:
    with hosted_by(host):
        async with pyipc.Server("memory:own") as server:
            assert [str(address) for address in server.addresses] == ["memory:own"]
    assert host.of("transport") == [("memory:own",)]


async def test_an_endpoint_with_a_transport_of_its_own_is_no_business_of_the_host() -> None:
    host = Notes(Elsewhere())
    with hosted_by(host):
        async with pyipc.Server(Endpoint("memory:own", transport=transport_for("memory"))) as server:
            assert [str(address) for address in server.addresses] == ["memory:own"]
    assert host.of("transport") == []
    assert host.of("opened") == [(["memory:own"],)]


async def test_a_server_without_addresses_is_told_of_too(host: Notes) -> None:
    with hosted_by(host):
        async with pyipc.Server():
            pass
    assert host.notes == [("opened", []), ("closed", 0)]


async def test_tasks_have_the_host_of_where_they_were_started(host: Notes) -> None:
    async def serve(name: str) -> None:
        async with pyipc.Server(f"memory:{name}"):
            pass

    async with trio.open_nursery() as nursery:
        with hosted_by(host):
            nursery.start_soon(serve, "inside")
            with hosted_by(None):
                nursery.start_soon(serve, "by-itself")
            await serve("here")
        nursery.start_soon(serve, "outside")
        await serve("there")
    assert sorted(host.of("opened")) == [(["memory:here"],), (["memory:inside"],)]


async def test_the_host_is_that_of_when_the_server_starts(host: Notes) -> None:
    with hosted_by(host):
        server = pyipc.Server("memory:later")
    async with server:
        await server.broadcast("news")
    assert host.notes == []


# --- from beginning to end ---


async def test_run_with_a_nursery_of_somebody_else(host: Notes) -> None:
    server = pyipc.Server("memory:world")
    async with trio.open_nursery() as nursery:
        with hosted_by(host):
            await nursery.start(server.run)
        assert host.of("opened") == [(["memory:world"],)]
        await server.aclose()
    assert host.of("closed") == [(0,)]


@pytest.mark.parametrize("end", ["close", "drain", "cancel", "fail"])
async def test_the_end_is_told_once_however_it_comes(host: Notes, end: str) -> None:
    with hosted_by(host), trio.CancelScope() as scope:
        try:
            async with pyipc.Server("memory:world") as server, pyipc.connect("memory:world"):
                match end:
                    case "close":
                        await server.aclose()
                        await server.aclose()
                    case "drain":
                        await server.drain(0)
                    case "cancel":
                        scope.cancel()
                        await trio.sleep_forever()
                    case "fail":
                        raise ZeroDivisionError
        except ZeroDivisionError:
            assert end == "fail"
    assert len(host.of("opened")) == len(host.of("closed")) == 1


async def test_a_server_that_drains_is_told_of_until_its_clients_have_left(host: Notes) -> None:
    """They are to get what others broadcast."""
    server = pyipc.Server("memory:world")
    plain = Endpoint("memory:world", hello=False)
    async with trio.open_nursery() as nursery:
        with hosted_by(host):
            await nursery.start(server.run)
        async with pyipc.connect(plain) as client, client.expect("news") as news:
            nursery.start_soon(server.drain)
            await trio.testing.wait_all_tasks_blocked()
            assert host.of("closed") == []
            server.hand_in_broadcast("news", 1)
            assert (await news.get(timeout=5)).data == 1
    assert host.of("closed") == [(0,)]


async def test_a_server_that_cannot_listen_was_never_there(host: Notes) -> None:
    async with pyipc.Server("memory:world"):
        with hosted_by(host), pytest.raises(pyipc.AddressInUse):
            async with pyipc.Server("memory:free", "memory:world"):
                pass
    assert host.of("opened") == host.of("closed") == []
    async with pyipc.Server("memory:free"):
        pass


# --- what is said to everybody ---


@asynccontextmanager
async def hosted(host: Host | None, name: str = "world", **options: Any) -> AsyncIterator[Sides]:
    """A server with a client."""
    async with contextlib.AsyncExitStack() as stack:
        with hosted_by(host):
            server = await stack.enter_async_context(pyipc.Server(f"memory:{name}", **options))
        yield server, await stack.enter_async_context(pyipc.connect(f"memory:{name}"))


async def test_a_broadcast_is_passed_on(host: Notes) -> None:
    async with hosted(host) as (server, client), client.events("news") as news:
        report = await server.broadcast("news", {"n": 1})
        assert report.sent == 1
        [connection] = server.connections
        server.broadcast_nowait("news", 2, exclude=connection, attachments=iter([b"x"]), traceparent=TRACE)
        with pytest.raises(pyipc.InvalidEventName):
            await server.broadcast("pyipc.hello")
        await server.broadcast("news", 3, where=lambda each: True)
        server.hand_in_broadcast("news", 4, attachments=[b"y"], traceparent=TRACE)
        got = [await anext(news) for _ in range(3)]
    assert [message.data for message in got] == [{"n": 1}, 3, 4]
    assert got[2].attachments == (b"y",)
    assert host.of("broadcast") == [
        ("news", {"n": 1}, {"attachments": [], "traceparent": ""}),
        ("news", 2, {"attachments": [b"x"], "traceparent": TRACE}),
    ]
    assert server.statistics().broadcasts == 4
    server.broadcast_nowait("news", "nobody is there any more")
    assert len(host.of("broadcast")) == 2


async def test_what_is_published_is_passed_on_whoever_does_it(host: Notes) -> None:
    def may_publish(_peer: pyipc.Peer, topic: str) -> bool:
        return topic != "secret"

    async with hosted(host, may_publish=may_publish) as (server, client), client.subscribe("**") as found:
        await server.publish("by.program", [1], retain=True, attachments=iter([b"x"]), traceparent=TRACE)
        await client.publish("secret", 2)
        await client.publish("by.peer", {"n": 3}, retain=True, attachments=[b"y"])
        got = [await found.get(timeout=5) for _ in range(2)]
        server.hand_in_published("elsewhere", 4, attachments=[b"z"], traceparent=TRACE)
        last = await found.get(timeout=5)
        with pytest.raises(pyipc.InvalidEventName):
            server.publish_nowait("no.*.topic")
    assert [(message.event, message.data, message.attachments) for message in (*got, last)] == [
        ("by.program", [1], (b"x",)),
        ("by.peer", {"n": 3}, (b"y",)),
        ("elsewhere", 4, (b"z",)),
    ]
    (first, _, more), (second, _, also) = host.of("publish")
    assert (first, more) == (
        "by.program",
        {"attachments": more["attachments"], "retain": True, "by_peer": False, "traceparent": TRACE},
    )
    assert (second, also) == (
        "by.peer",
        {"attachments": also["attachments"], "retain": True, "by_peer": True, "traceparent": ""},
    )
    assert [list(map(bytes, each["attachments"])) for each in (more, also)] == [[b"x"], [b"y"]]


async def test_the_data_of_what_was_published_can_be_sent_on_as_it_is(host: Notes) -> None:
    values = [None, {"a": [1, "\ud800", None]}, "text", 1.5]
    async with hosted(host) as (server, client):
        for value in values:
            await client.publish("topic", value)
        while len(host.of("publish")) < len(values):
            await trio.lowlevel.checkpoint()
        async with client.events("again") as again, client.subscribe("**") as found:
            for topic, data, _ in host.of("publish"):
                await server.broadcast("again", {"topic": topic, "inside": data})
                assert (await anext(again)).data == {"topic": "topic", "inside": values.pop(0)}
                server.hand_in_published(topic, data)
                await found.get(timeout=5)


async def test_what_was_handed_in_is_kept_where_its_author_left_room(host: Notes) -> None:
    async with hosted(host, max_retained_topics=1) as (server, client):
        server.hand_in_published("of.a.peer", 1, retain=True, by_peer=True)
        with pytest.raises(pyipc.LocalProtocolError, match="max_retained_topics"):
            server.hand_in_published("of.another.peer", 2, retain=True, by_peer=True)
        # What peers have kept leaves room for all that programs may.
        server.hand_in_published("of.a.program", 3, retain=True)
        with pytest.raises(pyipc.LocalProtocolError, match="max_retained_topics"):
            server.publish_nowait("of.this.program", 4, retain=True)
        async with client.subscribe("**") as found:
            assert [(await found.get(timeout=5)).data for _ in range(2)] == [1, 3]
        assert server.forget("of.a.*") == 2
        assert server.hand_in_forgotten("**") == 0
        server.hand_in_published("of.a.program", 5, retain=True)
        assert server.hand_in_forgotten("of.**") == 1
        assert server.statistics().retained_topics == 0
    assert host.of("forget") == [("of.a.*",)]
    assert host.of("publish") == []


class Exchange(Host):
    """Brings what one of its servers says to all others."""

    def __init__(self) -> None:
        self.servers: set[pyipc.Server] = set()

    def transport(self, endpoint: Endpoint) -> None:
        return None

    def opened(self, server: pyipc.Server) -> None:
        self.servers.add(server)

    def closed(self, server: pyipc.Server) -> None:
        self.servers.remove(server)

    def broadcast(
        self, server: pyipc.Server, event: str, data: object, *, attachments: Sequence[Any], traceparent: str
    ) -> None:
        for other in self.servers - {server}:
            other.hand_in_broadcast(event, data, attachments=attachments, traceparent=traceparent)

    def publish(self, server: pyipc.Server, topic: str, data: object, **more: Any) -> None:
        for other in self.servers - {server}:
            other.hand_in_published(topic, data, **more)

    def forget(self, server: pyipc.Server, pattern: str) -> None:
        for other in self.servers - {server}:
            other.hand_in_forgotten(pattern)


async def test_servers_with_one_host_are_as_one_for_their_clients() -> None:
    host = Exchange()
    async with hosted(host, "one") as (one, ada), hosted(host, "two") as (two, lin), hosted(None, "lone") as (lone, _):
        async with ada.events("news") as to_ada, lin.events("news") as to_lin, lin.subscribe("orders.*") as orders:
            for data, server in enumerate((one, two, one)):
                await server.broadcast("news", data, attachments=[b"%d" % data])
            assert [(await anext(to_ada)).data for _ in range(3)] == [0, 1, 2]
            assert [(await anext(to_lin)).attachments for _ in range(3)] == [(b"0",), (b"1",), (b"2",)]
            await ada.publish("orders.new", {"n": 1}, retain=True)
            await one.publish("orders.old", {"n": 2})
            await lin.publish("orders.own", {"n": 3})
            # In order as far as they come from one place.
            got = [(await orders.get(timeout=5)) for _ in range(3)]
            assert sorted(message.data["n"] for message in got) == [1, 2, 3]
            async with two.subscribe("orders.new") as kept:
                assert (await kept.get(timeout=5)).data == {"n": 1}
            assert one.forget("**") == 1
            assert two.statistics().retained_topics == 0
        assert [each.statistics().broadcasts for each in (one, two)] == [3, 3]
        assert (lone.statistics().broadcasts, lone.statistics().publishes) == (0, 0)
    assert host.servers == set()


# --- through another process ---

WORKER = textwrap.dedent("""
    import os, socket, sys
    import pyipc, trio
    from pyipc.transports import Listener, Transport, transport_for

    class Received(Listener):
        '''Hands out what another process has accepted.'''

        def __init__(self, address, adopt, mailbox):
            self.address_, self.adopt, self.mailbox = address, adopt, mailbox

        @property
        def address(self):
            return self.address_

        async def accept(self):
            await trio.lowlevel.wait_readable(self.mailbox)
            data, numbers, *_ = socket.recv_fds(self.mailbox, 1, 1)
            if not data:
                raise pyipc.ConnectionClosed("the other process has gone")
            return self.adopt(socket.socket(fileno=numbers[0]))

        async def aclose(self):
            self.mailbox.close()
            await trio.lowlevel.checkpoint()

    class Through(Transport):
        async def connect(self, address, options):
            raise NotImplementedError

        async def listen(self, address, options):
            print("listen", address, flush=True)
            mailbox = socket.socket(fileno=int(sys.argv[1]))
            return Received(address, transport_for(address.scheme).adopter(address, options), mailbox)

    class Far(pyipc.Host):
        def transport(self, endpoint):
            return Through()

        def closed(self, server):
            print("closed", flush=True)

    server = pyipc.Server(sys.argv[2])

    @server.on("who")
    def who(message):
        return [os.getpid(), message.connection.peer.pid]

    @server.on("end")
    async def end(message):
        await server.aclose()

    with pyipc.hosted_by(Far()):
        trio.run(server.run)
""")


@pytest.mark.skipif(sys.platform == "win32", reason=f"{CANNOT_RUN} Windows has no Unix sockets")
async def test_a_server_of_one_process_listens_through_another(tmp_path: Path) -> None:
    address = pyipc.parse_address(f"unix:{tmp_path / 's'}")
    claim = await transport_for("unix").claim(address, {})
    ours, theirs = socket.socketpair()
    process = await trio.lowlevel.open_process(
        [sys.executable, "-c", WORKER, str(theirs.fileno()), str(address)],
        pass_fds=[theirs.fileno()],
        stdout=-1,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    theirs.close()
    try:
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def hand_over() -> None:
                while True:
                    carrier = await claim.accept()
                    assert isinstance(carrier, socket.socket)
                    with carrier, contextlib.suppress(BrokenPipeError):  # nobody serves those who come back at the end
                        socket.send_fds(ours, [b"x"], [carrier.fileno()])

            async with pyipc.connect(address) as one, pyipc.connect(address) as two:
                assert await one.request("who") == await two.request("who") == [process.pid, os.getpid()]
                await one.emit("end")
                assert await process.wait() == 0
            nursery.cancel_scope.cancel()
        assert process.stdout is not None
        said = b"".join([chunk async for chunk in process.stdout])
        assert said.decode().splitlines() == [f"listen {address}", "closed"]
    finally:
        ours.close()
        with trio.CancelScope(shield=True):
            await claim.aclose()
            if process.returncode is None:
                process.kill()
            await process.wait()
    assert list(tmp_path.iterdir()) == []
