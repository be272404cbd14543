"""``pyipc doctor``: what it finds, and that it leaves everything as it was."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

import pyipc
from pyipc import transports
from pyipc.cli.commands import doctor
from pyipc.cli.examining.address import examine_place
from pyipc.cli.examining.findings import Level
from pyipc.cli.examining.machine import examine_environment
from pyipc.cli.examining.visit import visit
from pyipc.cli.main import make_parser
from pyipc.transports import Link, Listener, Transport
from tests.cli.processes import PATIENCE, eventually, run, start
from tests.cli.terminal import start_in_terminal
from tests.conftest import CANNOT_RUN, needs_node
from tests.interop.node import Place, start_node

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pyipc.cli.examining.findings import Finding

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason=f"{CANNOT_RUN} there are no Unix sockets")

Findings = list[dict[str, Any]]


async def examine(*arguments: str, status: int) -> Findings:
    """What the real command finds, as records."""
    result = await run("doctor", *arguments, "--json")
    assert (result.status, result.err) == (status, ""), result
    return [json.loads(line) for line in result.lines]


def of(findings: Findings, check: str) -> dict[str, Any]:
    """The one finding of a check."""
    [finding] = [finding for finding in findings if finding["check"] == check]
    return finding


@contextlib.contextmanager
def bare_socket(path: str, *, listening: bool) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        if listening:
            sock.listen()
        yield sock


def path_of(address: str) -> str:
    return address.removeprefix("unix:")


# --- who is there ---


async def test_a_live_server(address: str, directory: Path) -> None:
    seen: list[object] = []
    async with pyipc.Server(address) as server:
        server.on("**", seen.append)
        before = sorted(directory.iterdir())
        findings = await examine(address, status=0)
        assert sorted(directory.iterdir()) == before
        # It came once, said nothing but hello, and left in order.
        statistics = server.statistics()
        assert (statistics.accepted, statistics.denied, seen) == (1, 0, [])
    assert {finding["subject"] for finding in findings} == {address}
    assert {finding["level"] for finding in findings} == {"ok"}
    place = of(findings, "place")
    assert (place["path"], place["size"], place["usable"]) == (path_of(address), len(path_of(address)), True)
    file = of(findings, "socket")
    assert (file["mode"], file["uid"], file["lock_file"]) == ("0600", os.geteuid(), True)
    peer = of(findings, "peer")
    assert (peer["pid"], peer["uid"]) == (os.getpid(), os.geteuid())
    if sys.platform == "linux":
        own = Path("/proc/self/cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ").decode("utf-8", "replace")
        assert peer["process"][:77] == own[:77]
    protocol = of(findings, "protocol")
    assert protocol["protocol"] == "pyipc/1"
    assert protocol["round_trip"] > 0


async def test_how_it_reads(address: str) -> None:
    async with start("serve", address, "-q") as server:
        await eventually(lambda: os.path.exists(path_of(address)), "a socket")
        result = await run("doctor", address)
        assert result.status == 0, result
        lines = result.lines
        pid = server.process.pid
    assert lines[0] == address
    assert lines[1].startswith(f"  ok       means {path_of(address)} ({len(path_of(address))} of 1")
    assert f"  ok       {path_of(address)} is a socket of user {os.geteuid()}" in lines[2]
    assert lines[3].startswith(f"  ok       process {pid} ")
    assert lines[4].startswith("  ok       it speaks pyipc/1, and answered a hello in ")


async def test_nobody_there(address: str, directory: Path) -> None:
    findings = await examine(address, status=1)
    problem = of(findings, "connect")
    assert problem["level"] == "problem"
    assert problem["text"] == f"nobody listens on {address}: there is no such socket; start the server"
    assert list(directory.iterdir()) == []


async def test_a_dead_socket(address: str) -> None:
    with bare_socket(path_of(address), listening=False):
        pass
    findings = await examine(address, status=1)
    assert of(findings, "socket")["lock_file"] is False
    assert "belongs to no running server; start the server" in of(findings, "connect")["text"]
    # It is for the next server to clear away.
    assert os.path.exists(path_of(address))


async def test_something_else_at_the_path(address: str) -> None:
    with open(path_of(address), "w") as file:  # noqa: ASYNC230
        file.write("a letter")
    findings = await examine(address, status=1)
    problem = of(findings, "socket")
    assert (problem["level"], problem["text"]) == ("problem", f"{path_of(address)} is no socket")
    assert "remove it" in problem["remedy"]


async def test_a_plain_server(address: str) -> None:
    with bare_socket(path_of(address), listening=True):
        findings = await examine(address, status=0)
    protocol = of(findings, "protocol")
    assert (protocol["level"], protocol["protocol"]) == ("warning", "plain")
    assert "did not answer a hello within 1 s" in protocol["text"]


@pytest.mark.interop
@pytest.mark.parametrize("version", ["9.2.1", "10.1.0"])
async def test_a_node_server(version: str, address: str, directory: Path) -> None:
    modules = needs_node(version)
    with trio.fail_after(50):
        async with trio.open_nursery() as nursery:
            node = await start_node(nursery, modules, directory)
            try:
                await node.serve(Place("unix", path=path_of(address)))
                findings = await examine(address, status=0)
                # It is still well: what it was sent did it no harm.
                assert not node.crashed
                assert (await examine(address, status=0))[-1]["protocol"] == "plain"
            finally:
                await node.aclose()
            nursery.cancel_scope.cancel()
    if sys.platform == "linux":
        assert of(findings, "peer")["process"].startswith("node ")
    assert of(findings, "protocol")["level"] == "warning"


async def test_node_addresses_are_not_greeted() -> None:
    name = f"pyipc-doctor-{os.getpid()}"
    path = f"{'/private' if sys.platform == 'darwin' else ''}/tmp/app.{name}"
    with bare_socket(path, listening=True) as sock:
        try:
            findings = await examine(f"node-ipc:{name}", status=0)
            visitor, _ = sock.accept()
            with visitor:
                assert visitor.recv(100) == b""
        finally:
            os.unlink(path)
    assert of(findings, "place")["path"] == path
    assert (of(findings, "protocol")["level"], of(findings, "protocol")["protocol"]) == ("ok", "plain")


async def test_a_server_that_is_full(address: str) -> None:
    async with pyipc.Server(address, max_connections=1), pyipc.connect(address):
        findings = await examine(address, status=1)
    assert of(findings, "protocol")["level"] == "problem"
    assert "max_connections" in of(findings, "protocol")["text"]


async def test_a_server_that_takes_nobody(address: str) -> None:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(bare_socket(path_of(address), listening=False))
        server.listen(0)
        for _ in range(4):
            caller = stack.enter_context(socket.socket(socket.AF_UNIX))
            caller.setblocking(False)
            with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
                caller.connect(path_of(address))
        findings = await examine(address, "--connect-timeout", "0.3", status=1)
    if sys.platform == "linux":  # others refuse
        assert "no answer from" in of(findings, "connect")["text"]


async def test_another_user_listens() -> None:
    """The kernel says who it is; here, as only an administrator could arrange it, by a stand-in."""

    class Stranger(pyipc.Endpoint):
        def admit(self, peer: pyipc.Peer, **options: Any) -> None:
            raise pyipc.PeerNotAllowed("the peer is somebody else", peer)

    async with pyipc.Server("memory:doctor"):
        found = [finding async for finding in visit(Stranger("memory:doctor"), 5)]
    assert [(one.check, one.level) for one in found] == [("peer", Level.PROBLEM)]
    assert found[0].sentence == "somebody listens, but the peer is somebody else"


# --- what is in the way ---


def places(text: str) -> list[Finding]:
    return list(examine_place(pyipc.parse_address(text)))


def test_a_directory_that_others_may_write_to(directory: Path) -> None:
    (directory / "open").mkdir()
    (directory / "open").chmod(0o777)
    found = places(f"unix:{directory}/open/s")
    assert [(one.check, one.level) for one in found] == [("place", Level.WARNING), ("place", Level.PROBLEM)]
    assert "other users may write to the directory" in found[0].sentence
    assert found[1].sentence == f"nobody can listen on unix:{directory}/open/s"
    assert found[1].remedy is not None


@pytest.mark.parametrize("mode", [0o666, 0o622, 0o620])
def test_a_socket_that_others_may_use(address: str, mode: int) -> None:
    with bare_socket(path_of(address), listening=True):
        os.chmod(path_of(address), mode)
        [_, file] = places(address)
    assert (file.level, file.facts["mode"]) == (Level.WARNING, f"{mode:04o}")
    assert file.sentence.endswith("others may connect")


async def test_a_path_that_is_too_long(directory: Path) -> None:
    findings = await examine(f"unix:{directory}/{'x' * 120}", status=1)
    assert [finding["level"] for finding in findings] == ["problem"]
    assert "this system allows" in findings[0]["text"]


def test_default_directories_that_are_open_to_others(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, mode in (("open", 0o755), ("ours", 0o700)):
        (directory / name).mkdir(mode=mode)
        (directory / name).chmod(mode)

    def meant(*names: str) -> list[Finding]:
        directories = tuple(f"{directory}/{name}" for name in names)
        monkeypatch.setattr("pyipc.transports.unix.default_directories", lambda uid, platform: directories)
        return places("world")

    found = meant("missing/x", "open", "ours")
    assert [(one.check, one.level) for one in found] == [
        ("place", Level.OK),
        ("place", Level.WARNING),
        ("place", Level.OK),
        ("path", Level.OK),
    ]
    assert "open to other users (mode 0755)" in found[1].sentence
    assert found[3].sentence.startswith(f"a server that starts now listens at {directory}/ours/world (")
    assert [one.level for one in meant("open")] == [Level.WARNING, Level.PROBLEM]


async def test_a_bare_name_means_several_places() -> None:
    name = f"doctor-{os.getpid()}"
    findings = await examine(name, status=1)
    meant = [finding for finding in findings if finding["check"] == "place"]
    assert [os.path.basename(finding["path"]) for finding in meant] == [name] * len(meant)
    assert all(str(os.geteuid()) in finding["path"] or sys.platform == "darwin" for finding in meant)
    usable = [finding["path"] for finding in meant if finding["usable"]]
    if len(meant) > 1:
        assert of(findings, "path")["path"] == usable[0]
    assert of(findings, "connect")["text"].startswith(f"nobody listens on {name}; start the server")


async def test_a_bare_name_that_is_served() -> None:
    name = f"doctor-{os.getpid()}"
    async with pyipc.Server(name):
        findings = await examine(name, status=0)
        listed = await run("doctor")
    assert of(findings, "protocol")["protocol"] == "pyipc/1"
    assert of(findings, "socket")["lock_file"]
    assert f"/{name} is a socket of user" in listed.out
    assert f"process {os.getpid()} " in listed.out


async def test_tcp_on_this_machine() -> None:
    async with pyipc.Server("tcp://127.0.0.1:0") as server:
        [address] = server.addresses
        findings = await examine(str(address), status=0)
    place = of(findings, "place")
    assert (place["host"], place["port"], place["loopback"]) == ("127.0.0.1", address.port, True)
    assert of(findings, "protocol")["protocol"] == "pyipc/1"


async def test_tcp_beyond_loopback_is_not_visited_unless_that_is_meant() -> None:
    async with pyipc.Server("tcp://127.0.0.1:0") as server:
        address = f"tcp://0.0.0.0:{server.addresses[0].port}"
        findings = await examine(address, status=1)
        assert server.statistics().accepted == 0
        assert (of(findings, "place")["level"], of(findings, "allow")["level"]) == ("warning", "problem")
        assert of(findings, "allow")["allow_needed"] is True
        assert "--allow-anyone" in of(findings, "allow")["remedy"]
        if sys.platform == "linux":  # where connecting to every interface means this machine
            findings = await examine(address, "--allow-anyone", status=0)
            assert of(findings, "protocol")["protocol"] == "pyipc/1"


async def test_a_port_that_is_not_chosen_yet() -> None:
    findings = await examine("tcp://127.0.0.1:0", status=0)
    assert "nobody to visit" in of(findings, "connect")["text"]


class Elsewhere(Transport):
    """A transport that is not to be had on every system, or not without a parent process: its places alone."""

    def __init__(self, *places: transports.Place) -> None:
        self._places = places

    async def connect(self, address: pyipc.Address, options: Mapping[str, object]) -> Link:
        raise AssertionError("nobody is to be disturbed")

    async def listen(self, address: pyipc.Address, options: Mapping[str, object]) -> Listener:
        raise AssertionError("nothing is to be taken")

    def places(self, address: pyipc.Address) -> Sequence[transports.Place]:
        return self._places


async def looked_at(text: str, *where: transports.Place, monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
    """What is found where an address has these places."""
    for module in ("pyipc.cli.examining.address", "pyipc.cli.commands.doctor"):
        monkeypatch.setattr(f"{module}.transport_for", lambda scheme: Elsewhere(*where))
    arguments = make_parser().parse_args(["doctor", text])
    return [finding async for finding in doctor._address(text, arguments)]


def test_a_named_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    free = transports.Place(r"\\.\pipe\world")
    monkeypatch.setattr("pyipc.cli.examining.address.transport_for", lambda scheme: Elsewhere(free))
    [found] = places("pipe:world")
    assert (found.level, found.facts) == (Level.OK, {"path": r"\\.\pipe\world", "usable": True})
    assert found.sentence == r"means the named pipe \\.\pipe\world, which only programs on this machine can reach"


def test_a_named_pipe_that_somebody_else_has(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = transports.Place(r"\\.\pipe\world", "it belongs to another user")
    monkeypatch.setattr("pyipc.cli.examining.address.transport_for", lambda scheme: Elsewhere(taken))
    found = places("pipe:world")
    assert [one.level for one in found] == [Level.WARNING, Level.PROBLEM]
    assert found[0].sentence.endswith("not used, since it belongs to another user")


@pytest.mark.parametrize("text", ["fd:3", "systemd:", "systemd:web"])
async def test_an_inherited_socket_is_looked_at_but_not_used(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where = transports.Place("descriptor 3, listening on tcp://127.0.0.1:80")
    [place, connect] = await looked_at(text, where, monkeypatch=monkeypatch)
    assert (place.level, place.sentence) == (Level.OK, "means descriptor 3, listening on tcp://127.0.0.1:80")
    assert (connect.check, connect.level) == ("connect", Level.OK)
    assert connect.sentence.startswith("nobody is visited: ")


async def test_an_inherited_socket_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    where = transports.Place("descriptor 3", "it is a file")
    [place, _] = await looked_at("fd:3", where, monkeypatch=monkeypatch)
    assert (place.level, place.sentence) == (Level.PROBLEM, "it is a file")


async def test_a_server_over_udp() -> None:
    async with pyipc.Server("udp://127.0.0.1:0") as server:
        findings = await examine(str(server.addresses[0]), status=0)
    assert {finding["level"] for finding in findings} == {"ok"}
    assert of(findings, "protocol")["protocol"] == "pyipc/1"


async def test_nobody_can_tell_whether_somebody_listens_over_udp() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        address = f"udp://127.0.0.1:{sock.getsockname()[1]}"
        findings = await examine(address, status=0)
    assert "nothing tells yet whether somebody listens" in of(findings, "peer")["text"]
    protocol = of(findings, "protocol")
    assert (protocol["level"], protocol["protocol"]) == ("warning", "plain")
    assert protocol["remedy"].endswith(f"pyipc request {address} EVENT")


@pytest.mark.parametrize("scheme", ["tcp", "tls", "udp"])
async def test_a_port_that_is_not_chosen_has_nobody(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    [_, connect] = await looked_at(f"{scheme}://127.0.0.1:0", monkeypatch=monkeypatch)
    assert "nobody to visit" in connect.sentence


def test_a_network_that_is_not_ours_alone() -> None:
    levels = {scheme: places(f"{scheme}://192.0.2.1:9")[0].level for scheme in ("tcp", "udp", "tls")}
    assert levels == {"tcp": Level.WARNING, "udp": Level.WARNING, "tls": Level.OK}


@pytest.mark.parametrize("text", ["foo/bar", "nonsense://here", "amqp://127.0.0.1/x", ""])
async def test_what_is_no_address_is_a_finding_too(text: str) -> None:
    findings = await examine(text, status=1)
    assert (findings[-1]["check"], findings[-1]["level"]) == ("address", "problem")


async def test_several_addresses_each_get_their_findings(address: str) -> None:
    async with pyipc.Server(address):
        findings = await examine(address, "memory:nobody", status=1)
    assert {finding["subject"] for finding in findings} == {address, "memory:nobody"}
    assert all(finding["level"] == "ok" for finding in findings if finding["subject"] == address)


# --- this machine ---


async def test_the_environment() -> None:
    result = await run("doctor", "--json")
    findings = [json.loads(line) for line in result.lines]
    assert result.status == 0
    versions = of(findings, "versions")["versions"]
    assert versions["pyipc"] == pyipc.__version__
    assert {"python", "trio", "msgspec", "rich", "cryptography"} < versions.keys()
    assert of(findings, "platform")["platform"] == sys.platform
    if sys.platform == "linux":
        assert of(findings, "events")["backend"] == "epoll"
    assert {finding["check"] for finding in findings} >= {"open-files", "directory"}


async def test_more_sockets_than_are_visited(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyipc.transports.unix.default_directories", lambda uid, platform: (str(directory),))
    monkeypatch.setattr(doctor, "_MAX_VISITS", 2)
    directory.chmod(0o700)
    for name in "abc":
        with bare_socket(str(directory / name), listening=False):
            pass
    found = [finding async for finding in doctor._environment(make_parser().parse_args(["doctor"]))]
    [summary] = [finding for finding in found if finding.check == "directory"]
    assert summary.sentence == f"{directory} is for your servers; sockets in it: 3, 2 of which are looked at"
    assert [one.facts["path"] for one in found if one.check == "socket"] == [f"{directory}/{name}" for name in "ab"]


def test_a_socket_that_goes_meanwhile_is_not_counted(directory: Path) -> None:
    with bare_socket(str(directory / "a"), listening=False), os.scandir(directory) as entries:
        [entry] = entries
        assert doctor._is_socket(entry)
    with os.scandir(directory) as entries:
        [entry] = entries
        (directory / "a").unlink()
        assert not doctor._is_socket(entry)


@pytest.mark.parametrize(("limit", "level"), [(256, Level.WARNING), (20_000, Level.OK)])
async def test_too_few_open_files(limit: int, level: Level, monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    monkeypatch.setattr(resource, "getrlimit", lambda kind: (limit, 4_096))
    [found] = [finding for finding in examine_environment() if finding.check == "open-files"]
    assert found.level is level
    assert (found.remedy is None) is (level is Level.OK)
    if found.remedy is not None:
        assert found.remedy.startswith("ulimit -n 1088")


async def test_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    found = next(iter(examine_environment()))
    assert found.level is Level.WARNING
    assert "rich not installed; pyipc cannot do without trio and msgspec" in found.sentence


async def test_on_a_terminal(address: str) -> None:
    async with start_in_terminal("doctor", address, columns=140) as terminal:
        assert await terminal.finish() == 1
        assert terminal.lines[0] == address
        assert f"nobody listens on {address}: there is no such socket; start the server" in terminal.text
        assert terminal.style("problem").fg == "red"
        assert terminal.style("ok ").fg == "green"


async def test_a_visit_leaves_nothing_behind() -> None:
    async with pyipc.Server("memory:doctor") as server:
        found = [finding async for finding in visit(pyipc.Endpoint("memory:doctor"), 5)]
        with trio.fail_after(PATIENCE):
            while server.connections:
                await trio.lowlevel.checkpoint()
    assert [one.level for one in found] == [Level.OK, Level.OK]
