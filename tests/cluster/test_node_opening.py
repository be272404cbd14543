"""Servers of Node workers on their way: closed early, on ports of the system's choice, with no descriptors left."""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.cluster.diary import PATIENCE
from tests.cluster.node_workers import NEEDS_NODE, heard, made, obedient, run, script
from tests.cluster.test_node_listening import LOCAL, OPENING, ask, asked, needs_ipv6, serving

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = NEEDS_NODE


@pytest.mark.parametrize(
    "how",
    [
        "server.listen(0); server.close();",
        "server.listen(0); setImmediate(() => server.close());",
        "const end = new AbortController(); server.listen({port: 0, signal: end.signal}); end.abort();",
    ],
)
async def test_one_whose_server_is_closed_before_it_listens_is_ready_all_the_same(how: str, tmp_path: Path) -> None:
    code = f"process.on('message', () => {{}}); const server = require('net').createServer(); {how}"
    primary, _ = made(script(tmp_path, code))
    async with primary:
        with trio.fail_after(PATIENCE):
            await primary.fork()


@needs_ipv6
async def test_a_port_that_was_listened_on_for_both_kinds_is_served_for_one_afterwards() -> None:
    code = """
        const net = require('net');
        const first = net.createServer().listen(message.port, () => first.close(() => {
            const listen = {port: message.port, host: '::', ipv6Only: true};
            net.createServer((socket) => socket.end('second')).listen(listen, () => process.send('listens'));
        }));
    """
    with socket.create_server(("", 0)) as sock:
        port = sock.getsockname()[1]
    async with obedient() as (_, worker, diary):
        await run(worker, code, port=port)
        assert await heard(diary) == ["listens"]
        stream, who = await ask(lambda: trio.open_tcp_stream("::1", port))
        async with stream:
            assert who == "second"


@needs_ipv6
async def test_ports_of_the_systems_choice_are_different_in_a_worker_and_the_same_in_all(tmp_path: Path) -> None:
    code = """
        const ports = [];
        const listen = ([hosts, ...others]) => {
            const server = require('net').createServer().listen(0, ...hosts, () => {
                ports.push(server.address().port);
                if (others.length) listen(others); else process.send(ports);
            });
            server.on('error', (error) => process.send(error.code));
        };
        listen([[], ['0.0.0.0'], ['::']]);
    """
    primary, diary = made(script(tmp_path, code), workers=2)
    async with primary:
        first, second = await heard(diary, 2)
    assert len(set(first)) == 3
    assert first == second


# --- when there are no descriptors left ---


class Shortage:
    """Descriptors for copies of sockets run out.

    Attributes:
        left: For how many there are some.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = 1_000_000
        copy = socket.socket.dup

        def dup(sock: socket.socket) -> socket.socket:
            self.left -= 1
            if self.left < 0:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            return copy(sock)

        monkeypatch.setattr(socket.socket, "dup", dup)


async def test_connections_are_handed_over_without_any(monkeypatch: pytest.MonkeyPatch) -> None:
    primary, diary = serving(LOCAL, workers=2)
    async with primary:
        port = (await heard(diary, 2))[0]["port"]
        Shortage(monkeypatch).left = 0
        assert await asked(port, 10) == {"1": 5, "2": 5}


@pytest.mark.parametrize("left", [0, 1])
async def test_a_server_that_accepts_by_itself_is_told_so_and_can_try_again(
    left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with obedient(policy="shared") as (_, worker, diary):
        shortage = Shortage(monkeypatch)
        shortage.left = left
        await run(worker, OPENING, listen=LOCAL)
        assert await heard(diary) == ["EADDRNOTAVAIL"]
        shortage.left = 1_000_000
        await run(worker, OPENING, listen=LOCAL)
        assert (await heard(diary, 2))[1] == "listens"


# --- leaving ---


@pytest.mark.slow
async def test_a_silent_client_that_may_stay_for_long_does_not_keep_the_old_worker(tmp_path: Path) -> None:
    code = """
        const server = require('http').createServer((request, response) => response.end('hello'));
        server.keepAliveTimeout = 65_000;
        server.listen(0, '127.0.0.1');
    """
    settings: Any = {"workers": 1, "drain_timeout": PATIENCE}
    primary, diary = made(script(tmp_path, code), **settings)
    async with primary:
        address = (await diary.seen("listening")).address
        assert address is not None
        assert address.port is not None
        async with await trio.open_tcp_stream("127.0.0.1", address.port) as stream:
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            assert b"hello" in await stream.receive_some()
            await primary.reload()
            assert await stream.receive_some() == b""
    assert not diary.of("unhealthy")
    assert {each.code for each in diary.of("exit")} == {0}
