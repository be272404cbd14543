"""Python workers of a real Node primary listen through it, beside workers that are Node programs."""

from __future__ import annotations

import collections
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

import pyipc
from tests.cluster.node_primary import NodeProgram, node_program
from tests.conftest import needs_node_channel

if TYPE_CHECKING:
    from tests.cluster.node_primary import Kind

pytestmark = [
    needs_node_channel,
    pytest.mark.usefixtures("nothing_is_left"),
]
WEB = Path(__file__).with_name("node") / "web.js"
#: Node's scheduling policies. By the second whoever has waited longest is next, so that one who is slow gets less.
NONE, ROUND_ROBIN = 1, 2
policies = pytest.mark.parametrize("policy", [NONE, ROUND_ROBIN])
both = pytest.mark.parametrize("kind", ["worker", "child"])


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


async def fetched(port: int) -> str:
    """Who answers."""
    with trio.fail_after(20):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = b"".join([data async for data in stream])
    return answer.rpartition(b"\r\n\r\n")[2].decode()


async def listening(node: NodeProgram, name: str = "one") -> dict[str, Any]:
    return dict((await node.wait_for("listening", name=name))["address"])


@policies
async def test_a_node_worker_and_a_python_worker_share_a_port(policy: int) -> None:
    port = free_port()
    async with node_program() as node:
        await node.ask("policy", policy=policy)
        await node.fork("web", program=WEB, args=[str(port)], executable=None)
        assert (await listening(node, "web"))["port"] == port
        await node.fork("python")
        await node.send({"serve http": f"tcp://127.0.0.1:{port}"}, "python")
        assert await listening(node, "python") == {"addressType": 4, "address": "127.0.0.1", "port": port}
        answers = collections.Counter([await fetched(port) for _ in range(40)])
        assert sum(answers.values()) == 40
        if policy == ROUND_ROBIN:
            assert set(answers) == {"node", "python"}
        # Each serves alone when the other has left.
        await node.ask("disconnect", name="web")
        await node.wait_for("exit", name="web")
        assert {await fetched(port) for _ in range(5)} == {"python"}
        await node.fork("web again", program=WEB, args=[str(port)], executable=None)
        await listening(node, "web again")
        await node.send("leave", "python")
        assert (await node.wait_for("exit", name="python"))["voluntary"] is True
        assert {await fetched(port) for _ in range(5)} == {"node"}


@policies
async def test_a_port_of_the_systems_choice_is_the_same_for_all_workers(policy: int) -> None:
    async with node_program() as node:
        await node.ask("policy", policy=policy)
        ports = set()
        for name in ("one", "two"):
            await node.fork(name)
            await node.send({"serve": "tcp://127.0.0.1:0"}, name)
            ports.add((await listening(node, name))["port"])
            (address,) = (await node.heard(name))["addresses"]
            assert address == f"tcp://127.0.0.1:{next(iter(ports))}"
        assert len(ports) == 1
        asked: collections.Counter[str] = collections.Counter()
        for _ in range(20):
            async with pyipc.connect(address) as client:
                asked[await client.request("who")] += 1
        assert sum(asked.values()) == 20
        if policy == ROUND_ROBIN:
            assert set(asked) == {"1", "2"}


@pytest.mark.parametrize("make", ["unix:{}/socket", "pyipc-test-{}", "tcp://localhost:{}"])
async def test_servers_of_all_workers_are_one_at_any_address(make: str, tmp_path: Path) -> None:
    text = make.format({"u": tmp_path, "p": tmp_path.name, "t": free_port()}[make[0]])
    async with node_program() as node:
        for name in ("one", "two"):
            await node.fork(name)
            await node.send({"serve": text}, name)
        for name in ("one", "two"):
            assert await node.heard(name) == {"addresses": [text]}
            await listening(node, name)
        asked = []
        for _ in range(6):
            async with pyipc.connect(text) as client:
                asked.append(await client.request("who"))
        assert set(asked) == {"1", "2"}
        for name in ("one", "two"):
            await node.send("leave", name)
            await node.wait_for("exit", name=name)


async def test_the_socket_that_a_killed_node_program_has_left_is_in_nobodys_way(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/socket"
    for _ in range(2):
        async with node_program() as node:
            await node.fork()
            assert await node.told({"serve": address}) == {"addresses": [address]}
            await node.kill()
        assert (tmp_path / "socket").exists()


@policies
async def test_an_address_that_is_taken_is_an_error(policy: int) -> None:
    async with node_program() as node:
        await node.ask("policy", policy=policy)
        await node.fork()
        with socket.create_server(("127.0.0.1", 0)) as sock:
            address = f"tcp://127.0.0.1:{sock.getsockname()[1]}"
            assert (await node.told({"serve http": address}))["failed"] == "AddressInUse"
        # Now it is free, and then it is its own.
        assert await node.told({"serve http": address}) == {"listens": address}
        assert (await node.told({"serve http": address}))["failed"] == "AddressInUse"
        assert (await node.told({"serve http": "tcp://192.0.2.1:0"}))["failed"] == "ListenError"
        # Two at once, one of them in vain, and then again; and closed, and opened again.
        port = free_port()
        await node.send({"serve http, twice at once": f"tcp://127.0.0.1:{port}"})
        heard = [await node.heard() for _ in range(2)]
        assert sorted(each.get("failed", "") for each in heard) == ["", "AddressInUse"]
        assert (await node.told({"serve http": f"tcp://127.0.0.1:{port}"}))["failed"] == "AddressInUse"
        assert await node.told({"open, close and give up": f"tcp://127.0.0.1:{free_port()}"}) == [True] * 4
        assert (await node.told({"serve http": "unix:/nowhere/at/all"}))["failed"] in ("ListenError", "UnsafePath")


@pytest.mark.parametrize("how", ["leave", "disconnect", "SIGTERM"])
async def test_nobody_is_turned_away_while_workers_come_and_go(how: str) -> None:
    port = free_port()
    answers: collections.Counter[str] = collections.Counter()
    async with node_program() as node:
        for name in ("a", "b"):
            await node.fork(name)
            await node.told({"serve http": f"tcp://127.0.0.1:{port}"}, name)

        async def ask() -> None:
            while not is_over.is_set():
                answers[await fetched(port)] += 1

        is_over = trio.Event()
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask)
            for old, new in (("a", "c"), ("b", "d"), ("c", "e")):
                await node.fork(new)
                await node.told({"serve http": f"tcp://127.0.0.1:{port}"}, new)
                match how:
                    case "leave":
                        await node.send("leave", old)
                    case "disconnect":
                        await node.ask("disconnect", name=old)
                    case _:
                        await node.ask("kill", name=old, signal=how)
                await node.wait_for("exit", name=old)
            is_over.set()
    assert set(answers) == {"python"}


@pytest.mark.parametrize("end", ["return", "fail"])
async def test_who_waits_for_a_worker_that_ends_is_served_by_another(end: str) -> None:
    """Also where its program takes nobody, and ends without closing what it listens on."""
    port = free_port()
    async with node_program() as node:
        await node.fork("idle")
        await node.told({"listen and serve nobody": f"tcp://127.0.0.1:{port}"}, "idle")
        async with trio.open_nursery() as nursery:
            answers: list[str] = []

            async def ask() -> None:
                answers.append(await fetched(port))

            for _ in range(3):
                nursery.start_soon(ask)
            await node.told({"wait for somebody": None}, "idle")
            await node.fork("web", program=WEB, args=[str(port)], executable=None)
            await listening(node, "web")
            await node.send({"end": end}, "idle")
            exit = await node.wait_for("exit", name="idle")
            assert exit["code"] == (0 if end == "return" else 1)
    assert answers == ["node"] * 3


async def test_what_is_opened_while_a_worker_leaves_is_refused() -> None:
    async with node_program() as node:
        await node.fork("one")
        assert await node.told({"listen when you leave": f"tcp://127.0.0.1:{free_port()}"}) == "waiting"
        await node.ask("kill", name="one", signal="SIGTERM")
        assert (await node.heard())["failed"] == "ConnectionLost"
        assert (await node.wait_for("exit", name="one"))["code"] == 0


@both
async def test_connections_that_are_open_are_finished_before_a_program_ends(kind: Kind) -> None:
    async with node_program() as node:
        await node.fork(kind=kind)
        port = free_port()
        await node.told({"serve http": f"tcp://127.0.0.1:{port}"})
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(b"hello")
            assert await stream.receive_some() == b"hello"
            await node.ask("disconnect", name="one")
            await stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
            assert b"".join([data async for data in stream]).endswith(b"python")
        assert (await node.wait_for("exit", name="one"))["code"] == 0


async def test_a_plain_child_listens_by_itself(tmp_path: Path) -> None:
    async with node_program() as node:
        await node.fork(kind="child")
        (address,) = (await node.told({"serve": "tcp://127.0.0.1:0"}))["addresses"]
        async with pyipc.connect(address) as client:
            await client.request("who")
        port = free_port()
        await node.told({"serve http": f"tcp://127.0.0.1:{port}"})
        assert await fetched(port) == "python"
        await node.told({"serve http": f"unix:{tmp_path}/socket"})
        assert (tmp_path / "socket").exists()
        await node.send("leave")
        assert (await node.wait_for("exit", name="one"))["code"] == 0
        assert not (tmp_path / "socket").exists()
        assert "listening" not in node.kinds()
