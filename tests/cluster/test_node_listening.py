"""Servers of Node workers: they listen through the primary, on the addresses that workers of Python share."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import re
import signal
import socket
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h11
import pytest
import trio

from tests.certificates import authority, leaf
from tests.cluster.diary import PATIENCE, Diary
from tests.cluster.node_workers import ANSWERING, NEEDS_NODE, PROGRAMS, heard, made, obedient, run, script
from tests.conformance.sides import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyipc import cluster

pytestmark = NEEDS_NODE
needs_ipv6 = pytest.mark.skipif(not socket.has_ipv6, reason="cannot run here: there is no IPv6")

SAYING = str(PROGRAMS / "saying.js")
LOCAL = {"port": 0, "host": "127.0.0.1"}


def serving(
    listen: Any, target: str = SAYING, env: dict[str, str] | None = None, **settings: Any
) -> tuple[cluster.Cluster, Diary]:
    """A cluster of workers that listen somewhere."""
    return made(target, env={"LISTEN": json.dumps(listen), **(env or {})}, **settings)


async def ask(open: Callable[[], Any]) -> tuple[trio.SocketStream, str]:
    """Connect, and hear who it is."""
    with trio.fail_after(PATIENCE):
        stream = await open()
        return stream, (await stream.receive_some()).decode().strip()


async def asked(port: int, count: int, host: str = "127.0.0.1") -> collections.Counter[str]:
    """Who gets so many connections, one after the other."""
    found: collections.Counter[str] = collections.Counter()
    for _ in range(count):
        stream, who = await ask(lambda: trio.open_tcp_stream(host, port))
        async with stream:
            found[who] += 1
    return found


# --- where ---


async def test_node_and_python_workers_share_a_port_and_its_connections() -> None:
    primary, diary = serving(LOCAL, workers=2)
    async with primary:
        for _ in range(2):
            await primary.fork(exec="tests.cluster.programs.sharing:main")
        await diary.seen("listening", count=4)
        [port] = {each.address.port for each in diary.of("listening") if each.address}
        assert await asked(port, 40) == dict.fromkeys("1234", 10)
        [statistics] = primary.statistics().handovers.values()
        assert (statistics.accepted, statistics.taken, statistics.refused) == (40, 40, 0)


@pytest.mark.parametrize(
    ("listen", "hosts", "told"),
    [
        (LOCAL, ["127.0.0.1"], {"address": "127.0.0.1", "family": "IPv4"}),
        pytest.param({"port": 0, "host": "::1"}, ["::1"], {"address": "::1", "family": "IPv6"}, marks=needs_ipv6),
        pytest.param({"port": 0}, ["127.0.0.1", "::1"], None, marks=needs_ipv6),
        ({"port": 0, "host": "0.0.0.0"}, ["127.0.0.1"], {"address": "0.0.0.0", "family": "IPv4"}),
        pytest.param(
            {"port": 0, "host": "::", "ipv6Only": True}, ["::1"], {"address": "::", "family": "IPv6"}, marks=needs_ipv6
        ),
        ({"port": 0, "host": "localhost"}, ["localhost"], None),
    ],
)
async def test_a_port_on(listen: dict[str, Any], hosts: list[str], told: dict[str, str] | None) -> None:
    primary, diary = serving(listen, workers=2)
    async with primary:
        first, second = await heard(diary, 2)
        assert first == second
        assert first["port"] > 0
        if told is not None:
            assert told.items() <= first.items()
        for host in hosts:
            assert await asked(first["port"], 4, host) == {"1": 2, "2": 2}
        if listen.get("ipv6Only"):
            with pytest.raises(OSError, match="all attempts to connect"):
                await trio.open_tcp_stream("127.0.0.1", first["port"])


async def test_a_path(tmp_path: Path) -> None:
    path = str(tmp_path / "a.sock")
    primary, diary = serving({"path": path}, workers=2)
    async with primary:
        assert await heard(diary, 2) == [path, path]
        found = set()
        for _ in range(4):
            stream, who = await ask(lambda: trio.open_unix_socket(path))
            async with stream:
                found.add(who)
        assert found == {"1", "2"}
        assert Path(path).stat().st_mode & 0o777 == 0o600
    assert not Path(path).exists()


@pytest.mark.parametrize("policy", ["shared", "reuse-port", "least-loaded", "sticky"])
async def test_under_other_policies(policy: str) -> None:
    primary, diary = serving(LOCAL, workers=2, policy=policy)
    async with primary:
        first, second = await heard(diary, 2)
        assert first == second
        found = await asked(first["port"], 40)
        assert set(found) <= {"1", "2"}
        assert found.total() == 40
        with trio.fail_after(PATIENCE):
            await primary.reload()
        assert (await asked(first["port"], 10)).total() == 10


@needs_ipv6
@pytest.mark.parametrize("policy", ["shared", "reuse-port"])
async def test_any_host_is_one_socket_where_workers_accept_and_nobody_waits_at_the_other(policy: str) -> None:
    primary, diary = serving({"port": 0}, workers=2, policy=policy)
    async with primary:
        port = (await heard(diary, 2))[0]["port"]
        assert (await asked(port, 4)).total() == 4
        with pytest.raises(OSError, match="all attempts to connect"):
            await trio.open_tcp_stream("::1", port)
        assert (await asked(port, 4, "localhost")).total() == 4


# --- what cannot be ---


OPENING = """
    const net = require('net');
    const server = net.createServer((socket) => socket.end('second'));
    server.on('error', (error) => process.send(error.code));
    server.listen(message.listen, () => process.send('listens'));
"""


async def test_a_port_that_another_program_has_is_in_use_and_the_worker_goes_on() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        async with obedient() as (_, worker, diary):
            await run(worker, OPENING, listen={"port": taken.getsockname()[1], "host": "127.0.0.1"})
            assert await heard(diary) == ["EADDRINUSE"]
            await worker.send("on")
            assert (await heard(diary, 2))[1] == "on"


async def test_a_second_server_of_one_address_in_one_worker_finds_it_in_use_and_the_first_goes_on(
    tmp_path: Path,
) -> None:
    path = str(tmp_path / "a.sock")
    primary, diary = serving({"path": path}, workers=1)
    async with primary:
        worker = await primary.fork(node=str(PROGRAMS / "obedient.js"))
        code = OPENING.replace("process.send(", "process.send(message.which + ' ' + ")
        for which in ("one", "other"):
            await run(worker, code, listen={"path": path}, which=which)
        # Node tells of an error at once, and of success a moment later.
        assert sorted(await heard(diary, 3)) == [path, "one listens", "other EADDRINUSE"]
        found = set()
        for _ in range(4):
            stream, who = await ask(lambda: trio.open_unix_socket(path))
            async with stream:
                found.add(who)
        assert found == {"1", "second"}


@pytest.mark.parametrize(
    ("listen", "code"),
    [
        ({"fd": 0}, "EINVAL"),
        ({"path": "/no/such/directory/a.sock"}, "E"),
        ({"port": 0, "host": "192.0.2.1"}, "EADDRNOTAVAIL"),
    ],
)
async def test_what_cannot_be_listened_on_is_an_error_of_the_server(listen: dict[str, Any], code: str) -> None:
    async with obedient() as (_, worker, diary):
        await run(worker, OPENING, listen=listen)
        [told] = await heard(diary)
        assert told.startswith(code)
        await worker.send("on")
        assert (await heard(diary, 2))[1] == "on"


async def test_datagrams_are_listened_for_by_the_worker_itself_or_not_at_all() -> None:
    code = """
        const socket = require('dgram').createSocket('udp4');
        socket.on('error', (error) => { process.send(error.code); socket.close(); });
        socket.on('message', (data) => { process.send(String(data)); socket.close(); });
        socket.bind({port: 0, address: '127.0.0.1', exclusive: message.exclusive}, () => {
            process.send(socket.address().address);
            socket.send('hello', socket.address().port, '127.0.0.1');
        });
    """
    async with obedient() as (_, worker, diary):
        await run(worker, code, exclusive=False)
        assert await heard(diary) == ["EINVAL"]
        await run(worker, code, exclusive=True)
        assert (await heard(diary, 3))[1:] == ["127.0.0.1", "hello"]


async def test_a_server_that_is_closed_can_listen_again_and_others_have_the_address_meanwhile() -> None:
    code = """
        const net = require('net');
        const server = net.createServer((socket) => socket.end('again\\n'));
        server.on('error', (error) => process.send(error.code));
        const listen = () => server.listen(message.listen, () => {
            process.send('listens');
            if (message.times-- > 0) server.close(listen);
        });
        listen();
    """
    primary, diary = serving(LOCAL, workers=1)
    async with primary:
        port = (await heard(diary))[0]["port"]
        worker = await primary.fork(node=str(PROGRAMS / "obedient.js"))
        await run(worker, code, listen=LOCAL, times=20)
        assert (await heard(diary, 22))[1:] == ["listens"] * 21
        assert await asked(port, 10) == {"1": 5, "again": 5}
        assert len({str(each.address) for each in diary.of("listening")}) == 1


# --- who gets what ---


async def test_connections_of_a_worker_that_is_killed_before_it_takes_them_go_to_another() -> None:
    primary, diary = serving(LOCAL, workers=2, restart="never")
    async with primary:
        first, _ = await heard(diary, 2)
        stopped = primary.worker("1").pid
        assert stopped is not None
        os.kill(stopped, signal.SIGSTOP)
        found: list[str] = []

        async def connect() -> None:
            stream, who = await ask(lambda: trio.open_tcp_stream("127.0.0.1", first["port"]))
            async with stream:
                found.append(who)

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(connect)
            await until(lambda: any(each.given for each in primary.statistics().handovers.values()))
            os.kill(stopped, signal.SIGKILL)
    assert found == ["2"] * 8


async def test_one_that_has_as_many_as_it_takes_refuses_and_another_gets_them() -> None:
    primary, diary = serving(LOCAL, workers=1, env={"MAX_CONNECTIONS": "2"})
    async with primary:
        port = (await heard(diary))[0]["port"]
        await primary.fork(env={"MAX_CONNECTIONS": "0"})
        async with trio.open_nursery() as nursery:
            streams: list[tuple[trio.SocketStream, str]] = []

            async def connect() -> None:
                streams.append(await ask(lambda: trio.open_tcp_stream("127.0.0.1", port)))

            for _ in range(10):
                nursery.start_soon(connect)
        assert collections.Counter(who for _, who in streams) == {"1": 2, "2": 8}
        for stream, _ in streams:
            await stream.aclose()
        [statistics] = primary.statistics().handovers.values()
        assert (statistics.taken, statistics.given, statistics.waiting) == (10, 0, 0)
        assert statistics.refused > 0


async def test_tls_sessions_of_one_worker_are_taken_up_by_another(tmp_path: Path) -> None:
    code = """
        const tls = require('tls');
        const options = {key: process.env.KEY, cert: process.env.CERT, maxVersion: 'TLSv1.2'};
        const server = tls.createServer(options, (socket) => {
            socket.on('error', () => {});
            socket.end(process.env.PYIPC_WORKER_ID);
        });
        server.listen(0, '127.0.0.1');
    """
    issued = leaf("localhost")
    env = {"KEY": issued.private_key_pem.bytes().decode(), "CERT": issued.cert_chain_pems[0].bytes().decode()}
    context = ssl.create_default_context()
    authority().configure_trust(context)

    def connect(port: int, session: ssl.SSLSession | None) -> tuple[str, bool, ssl.SSLSession]:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock,
            context.wrap_socket(sock, server_hostname="localhost", session=session) as wrapped,
        ):
            who = wrapped.recv(9).decode()
            assert wrapped.session is not None
            return who, bool(wrapped.session_reused), wrapped.session

    primary, diary = made(script(tmp_path, code), workers=2, env=env)
    async with primary:
        listening = await diary.seen("listening")
        assert listening.address is not None
        port = listening.address.port
        first, reused, session = await trio.to_thread.run_sync(connect, port, None)
        assert not reused
        second, reused, _ = await trio.to_thread.run_sync(connect, port, session)
        assert {first, second} == {"1", "2"}
        assert reused


async def test_who_comes_while_the_only_worker_is_started_again_waits_and_is_served() -> None:
    primary, diary = serving(LOCAL, workers=1, restart_interval=0.3, restart_jitter=False)
    async with primary:
        port = (await heard(diary))[0]["port"]
        worker = primary.worker("1")
        assert worker.current is not None
        worker.current.kill()
        await diary.seen("exit")
        assert await asked(port, 3) == {"1": 3}
        assert worker.generation == 2


async def test_connections_messages_and_signs_of_life_do_not_get_into_each_others_way() -> None:
    """All of them go over the one channel, sockets one at a time."""
    primary, diary = serving(LOCAL, ANSWERING, workers=0, heartbeat_interval=0.01, restart="never")
    results: collections.Counter[str] = collections.Counter()
    async with primary:
        for _ in range(2):
            await primary.fork(exec_args=["--require", SAYING])
        port = (await heard(diary, 2))[0]["port"]
        limit = trio.CapacityLimiter(50)

        async def connect() -> None:
            async with limit:
                stream, who = await ask(lambda: trio.open_tcp_stream("127.0.0.1", port))
                async with stream:
                    results[who] += 1

        async def talk(worker: cluster.WorkerHandle) -> None:
            for number in range(500):
                assert await worker.request("add", [number, 1], timeout=PATIENCE) == number + 1

        async with trio.open_nursery() as nursery:
            for worker in primary.workers.values():
                nursery.start_soon(talk, worker)
            for _ in range(300):
                nursery.start_soon(connect)
        [statistics] = primary.statistics().handovers.values()
    assert results.total() == 300
    assert set(results) == {"1", "2"}
    assert (statistics.accepted, statistics.taken, statistics.moved) == (300, 300, 0)
    assert not diary.of("unhealthy")


# --- reload ---


async def test_a_connection_that_nobody_ends_keeps_the_old_worker_until_its_time_is_over() -> None:
    """Of what is no HTTP Node cannot tell the client to go elsewhere."""
    primary, diary = serving(LOCAL, workers=1, drain_timeout=0.3)
    async with primary:
        port = (await heard(diary))[0]["port"]
        stream, _ = await ask(lambda: trio.open_tcp_stream("127.0.0.1", port))
        async with stream, trio.open_nursery() as nursery:
            nursery.start_soon(primary.reload)
            await diary.seen("ready", count=2)
            assert await asked(port, 2) == {"1": 2}  # by the new one
            with trio.fail_after(PATIENCE):
                with contextlib.suppress(trio.BrokenResourceError):
                    assert await stream.receive_some() == b""
        assert "is sent SIGTERM" in diary.of("unhealthy")[0].reason
        assert (diary.of("exit")[0].signal, diary.of("exit")[0].voluntary) == (signal.SIGTERM, True)


class Load:
    """Clients that ask over HTTP as fast as they can.

    Args:
        port: Where.
        keep: Whether they keep their connections.
    """

    def __init__(self, port: int, *, keep: bool) -> None:
        self._port = port
        self._keep = keep
        self.asked = 0
        self.answers: collections.Counter[str] = collections.Counter()
        self.errors: list[str] = []
        self.is_over = False
        self._more = trio.Event()

    async def wait_asked(self, count: int) -> None:
        """Wait until so many more things were asked."""
        goal = self.asked + count
        while self.asked < goal:
            await self._more.wait()

    async def run(self) -> None:
        """Be one client."""
        while not self.is_over:
            stream = await trio.open_tcp_stream("127.0.0.1", self._port)
            connection = h11.Connection(h11.CLIENT)
            async with stream:
                while not self.is_over:
                    try:
                        await self._ask(stream, connection)
                    except (OSError, h11.ProtocolError, trio.BrokenResourceError) as error:
                        self.errors.append(repr(error))
                        break
                    if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                        break  # this was the last one that the server answers here
                    connection.start_next_cycle()

    async def _ask(self, stream: trio.SocketStream, connection: h11.Connection) -> None:
        self.asked += 1
        number = self.asked
        self._more.set()
        self._more = trio.Event()
        headers = [("Host", "test")] if self._keep else [("Host", "test"), ("Connection", "close")]
        request = connection.send(h11.Request(method="GET", target=f"/{number}", headers=headers)) or b""
        await stream.send_all(request + (connection.send(h11.EndOfMessage()) or b""))
        body = b""
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(bytes(await stream.receive_some()))
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                break
        _, version, target = body.decode().split()
        if target != f"/{number}":
            self.errors.append(f"{target} for {number}")
        self.answers[version] += 1


@pytest.mark.parametrize("keep", [False, True], ids=["one request per connection", "kept alive"])
async def test_two_reloads_under_load_lose_no_request_and_run_the_new_code(keep: bool, tmp_path: Path) -> None:
    code = (PROGRAMS / "serving.js").read_text("utf-8")
    path = script(tmp_path, code)
    primary, diary = serving(LOCAL, path, workers=2)
    async with primary:
        listening = await diary.seen("listening")
        assert listening.address is not None
        load = Load(listening.address.port, keep=keep)
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(load.run)
            for version in (2, 3):
                await load.wait_asked(100)
                script(tmp_path, re.sub(r"VERSION = \d+", f"VERSION = {version}", code))
                with trio.fail_after(PATIENCE):
                    await primary.reload()
            asked = load.answers.copy()
            await load.wait_asked(100)
            load.is_over = True
        assert load.answers["1"] == asked["1"]
        assert load.answers["2"] == asked["2"]
    assert load.errors == []
    assert load.answers.total() == load.asked
    assert all(load.answers[version] for version in "123"), load.answers
    assert not diary.of("unhealthy")
    assert {each.code for each in diary.of("exit")} == {0}
    print(f"{load.asked} asked, {dict(load.answers)} answered by each version")


async def test_a_mixed_cluster_under_load_survives_the_kill_of_workers_between_requests() -> None:
    """Who is killed while it serves loses what it serves; who only waits, nothing."""
    primary, diary = serving(LOCAL, workers=2)
    async with primary:
        [port] = {each["port"] for each in await heard(diary, 2)}
        for number in range(6):
            worker = primary.worker(str(1 + number % 2))
            assert worker.current is not None
            worker.current.kill()
            assert (await asked(port, 4)).total() == 4
            await diary.seen("ready", worker.id, count=2 + number // 2)
        assert await asked(port, 4) == {"1": 2, "2": 2}
