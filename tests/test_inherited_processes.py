"""Inherited sockets between real processes, and a launcher that does what systemd does."""

from __future__ import annotations

import shutil
import signal
import socket
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest
import trio

import pyipc
from pyipc.transports.inherited import InheritedTransport
from tests.cli.processes import PATIENCE, Program, eventually, start
from tests.conftest import CANNOT_RUN

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason=f"{CANNOT_RUN} Windows passes sockets on otherwise")

SERVER = textwrap.dedent("""
    import os, sys
    import pyipc, trio

    server = pyipc.Server(*sys.argv[1:])

    @server.on("pid")
    def pid(message):
        return os.getpid()

    @server.on("inherits")
    def inherits(message):
        return [os.get_inheritable(number) for number in message.data]

    async def main():
        async with server:
            print("listening on", *server.addresses, flush=True)
            await trio.sleep_forever()

    try:
        trio.run(main)
    except pyipc.IPCError as error:
        sys.exit(f"{type(error).__name__}: {error}")
""")

# Everything that systemd does for a service with sockets: their numbers, three variables, and no process between.
LAUNCHER = textwrap.dedent("""
    import fcntl, os, sys

    names, numbers, *command = sys.argv[1:]
    out_of_the_way = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 100) for number in numbers.split(",")]
    for place, number in enumerate(out_of_the_way, start=3):
        os.dup2(number, place)
        os.close(number)
    os.environ["LISTEN_PID"] = str(os.getpid())
    os.environ["LISTEN_FDS"] = str(len(out_of_the_way))
    os.environ["LISTEN_FDNAMES"] = names
    os.execv(command[0], command)
""")

# What goes wrong when a script stands between systemd and the program without an exec.
MIDDLEMAN = "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:], close_fds=False).returncode)"


def server(*addresses: str, pass_fds: tuple[int, ...] = ()) -> AbstractAsyncContextManager[Program]:
    return start(*addresses, command=(sys.executable, "-W", "error", "-c", SERVER), pass_fds=pass_fds)


def activated(names: str, sockets: list[socket.socket], *command: str) -> AbstractAsyncContextManager[Program]:
    numbers = [sock.fileno() for sock in sockets]
    launcher = (sys.executable, "-c", LAUNCHER, names, ",".join(map(str, numbers)))
    return start(*command, command=launcher, pass_fds=numbers)


def unix_listener(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.listen()
    return sock


def tcp_listener() -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    return sock


async def pid_at(address: str) -> int:
    async with pyipc.connect(address, connect_timeout=PATIENCE) as client:
        pid: int = await client.request("pid", timeout=PATIENCE)
        return pid


async def listening(program: Program) -> list[str]:
    return (await program.line("^listening on (.*)$"))[1].split()


async def test_a_child_listens_on_what_it_inherited(tmp_path: Path) -> None:
    with unix_listener(tmp_path / "socket") as one, tcp_listener() as other:
        numbers = (one.fileno(), other.fileno())
        tcp = f"tcp://127.0.0.1:{other.getsockname()[1]}"
        async with server(*(f"fd:{number}" for number in numbers), pass_fds=numbers) as child:
            assert await listening(child) == [f"unix:{tmp_path}/socket", tcp]
            assert await pid_at(f"unix:{tmp_path}/socket") == child.process.pid
            async with pyipc.connect(tcp) as client:
                assert await client.request("pid") == child.process.pid
                # What the child starts does not get them.
                assert await client.request("inherits", numbers) == [False, False]


async def test_a_parent_and_its_child_talk_over_a_pair() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        endpoint = pyipc.Endpoint(f"fd:{ours.detach()}", transport=InheritedTransport(taken=set()))
        child_end = theirs.fileno()
        async with server(f"fd:{child_end}", pass_fds=(child_end,)) as child, pyipc.connect(endpoint) as client:
            theirs.close()
            assert await client.request("pid", timeout=PATIENCE) == child.process.pid
            child.process.kill()
            with pytest.raises(pyipc.AddressError, match="cannot be used again"):
                while True:
                    await client.wait_connected()
                    await trio.lowlevel.checkpoint()


async def test_two_workers_share_one_listener(tmp_path: Path) -> None:
    where = f"unix:{tmp_path}/socket"
    with unix_listener(tmp_path / "socket") as shared:
        number = shared.fileno()
        async with server(f"fd:{number}", pass_fds=(number,)) as one, server(f"fd:{number}", pass_fds=(number,)) as two:
            for worker in (one, two):
                await listening(worker)
            for stopped, working in ((one, two), (two, one)):
                stopped.process.send_signal(signal.SIGSTOP)
                try:
                    for _ in range(5):
                        assert await pid_at(where) == working.process.pid
                finally:
                    stopped.process.send_signal(signal.SIGCONT)
            # And with both at work everybody is served by one of them.
            assert {await pid_at(where) for _ in range(20)} <= {one.process.pid, two.process.pid}


async def test_clients_wait_while_the_server_is_started_again(tmp_path: Path) -> None:
    where = f"unix:{tmp_path}/socket"
    with unix_listener(tmp_path / "socket") as kept:
        number = kept.fileno()
        async with server(f"fd:{number}", pass_fds=(number,)) as first:
            assert await pid_at(where) == first.process.pid
        # Nobody is there now, but the socket is: whoever calls is kept in it.
        async with pyipc.connect(where, request_timeout=PATIENCE) as client:
            assert client.connected
            answers: list[int] = []

            async def ask() -> None:
                answers.append(await client.request("pid"))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask)
                async with server(f"fd:{number}", pass_fds=(number,)) as second:
                    await eventually(lambda: answers)
            assert answers == [second.process.pid]


async def test_a_service_with_several_sockets_and_names(tmp_path: Path) -> None:
    with unix_listener(tmp_path / "web") as web, tcp_listener() as api, unix_listener(tmp_path / "admin") as admin:
        tcp = f"tcp://127.0.0.1:{api.getsockname()[1]}"
        command = (sys.executable, "-c", SERVER, "systemd:web", "systemd:admin")
        async with activated("web:web:admin", [web, api, admin], *command) as service:
            assert await listening(service) == [f"unix:{tmp_path}/web", f"unix:{tmp_path}/admin"]
            for address in (f"unix:{tmp_path}/web", tcp, f"unix:{tmp_path}/admin"):
                assert await pid_at(address) == service.process.pid


async def test_all_sockets_of_a_service(tmp_path: Path) -> None:
    with unix_listener(tmp_path / "one") as one, unix_listener(tmp_path / "two") as two:
        async with activated("a:b", [one, two], sys.executable, "-c", SERVER, "systemd:") as service:
            assert await listening(service) == [f"unix:{tmp_path}/one"]
            for name in ("one", "two"):
                assert await pid_at(f"unix:{tmp_path}/{name}") == service.process.pid


async def test_a_name_that_the_unit_does_not_have(tmp_path: Path) -> None:
    with unix_listener(tmp_path / "socket") as sock:
        async with activated("web:admin", [sock, sock], sys.executable, "-c", SERVER, "systemd:wep") as service:
            ended = await service.finish()
    assert ended.status == 1
    assert ended.err.startswith("AddressError: systemd:wep cannot be used: systemd passed no socket of this name; ")
    assert "there are admin, web." in ended.err


async def test_sockets_that_were_meant_for_another_process(tmp_path: Path) -> None:
    with unix_listener(tmp_path / "socket") as sock:
        command = (sys.executable, "-c", MIDDLEMAN, sys.executable, "-c", SERVER, "systemd:")
        async with activated("web", [sock], *command) as service:
            ended = await service.finish()
            assert f"systemd passed its sockets to process {service.process.pid}, and this is " in ended.err
    assert ended.status == 1


async def test_a_program_that_systemd_did_not_start() -> None:
    async with server("systemd:") as program:
        ended = await program.finish()
    assert ended.status == 1
    assert "AddressError: systemd: cannot be used: systemd passed no sockets to this process" in ended.err


@pytest.mark.skipif(
    shutil.which("systemd-socket-activate") is None, reason=f"{CANNOT_RUN} systemd-socket-activate is not here"
)
async def test_the_real_launcher_of_systemd(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    command = ("systemd-socket-activate", f"--listen={path}", "--fdname=web", sys.executable, "-c", SERVER)
    async with start("systemd:web", command=command) as service:
        # It starts the server when the first client comes.
        assert await pid_at(f"unix:{path}") == service.process.pid
