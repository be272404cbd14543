"""What the pages on systemd and on writing transports show is run."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

import pyipc
from pyipc.transports import Link, Listener, Peer, SocketLink, SocketListener, Transport, refuse_unknown_options
from tests.cli.processes import PATIENCE, PYIPC, run, start
from tests.conftest import CANNOT_RUN
from tests.test_inherited_processes import LAUNCHER, unix_listener

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyipc import Address

HOW_TO = Path(__file__).resolve().parent.parent / "docs" / "how-to"

posix = pytest.mark.skipif(sys.platform == "win32", reason=f"{CANNOT_RUN} systemd is of Linux")


def blocks(page: str, language: str) -> list[str]:
    """The blocks of a language on a page."""
    return re.findall(rf"^```{language}\n(.*?)^```$", (HOW_TO / page).read_text("utf-8"), re.MULTILINE | re.DOTALL)


def units() -> dict[str, str]:
    """The unit files that the page shows, by their names."""
    return {text.splitlines()[0].removeprefix("# "): text for text in blocks("systemd.md", "ini")}


def settings(unit: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(units()[unit])
    return parser


# --- systemd ----------------------------------------------------------------------------------------------------


@pytest.fixture
def greeter(tmp_path: Path) -> Path:
    """The page's program."""
    path = tmp_path / "greeter.py"
    path.write_text(blocks("systemd.md", "python")[0], "utf-8")
    return path


def launched(program: Path, name: str, sock: socket.socket) -> Any:
    """A program started as systemd would."""
    launcher = (sys.executable, "-c", LAUNCHER, name, str(sock.fileno()))
    return start(sys.executable, "-W", "error", program, command=launcher, pass_fds=(sock.fileno(),))


@posix
async def test_the_program_serves_on_the_socket_of_its_unit(tmp_path: Path, greeter: Path) -> None:
    name = settings("greeter.socket")["Socket"]["FileDescriptorName"]
    with unix_listener(tmp_path / "greeter.sock") as sock:
        where = f"unix:{tmp_path}/greeter.sock"
        async with launched(greeter, name, sock), pyipc.connect(where, connect_timeout=PATIENCE) as client:
            assert await client.request("greet", {"name": "Ada"}, timeout=PATIENCE) == "Hello, Ada!"


@posix
def test_the_unit_files_are_of_one_service() -> None:
    assert list(units()) == ["greeter.socket", "greeter.service"]
    service = settings("greeter.service")
    assert service["Unit"]["Requires"] == "greeter.socket"
    assert blocks("systemd.md", "python")[0].startswith(f"# {service['Service']['ExecStart'].split()[-1]}\n")
    for commands in blocks("systemd.md", "console"):
        assert "Hello, Ada!" in commands


@posix
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason=f"{CANNOT_RUN} systemd-analyze is not here")
def test_systemd_finds_nothing_wrong_with_the_unit_files(tmp_path: Path, greeter: Path) -> None:
    for name, text in units().items():
        (tmp_path / name).write_text(re.sub("ExecStart=.*", f"ExecStart={sys.executable} {greeter}", text), "utf-8")
    found = subprocess.run(
        ["systemd-analyze", "--user", "verify", *(tmp_path / name for name in units())],
        env={"XDG_RUNTIME_DIR": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (found.returncode, found.stdout + found.stderr) == (0, "")


@posix
@pytest.mark.skipif(
    shutil.which("systemd-socket-activate") is None, reason=f"{CANNOT_RUN} systemd-socket-activate is not here"
)
async def test_it_can_be_tried_out_as_the_page_says(tmp_path: Path, greeter: Path) -> None:
    [lines] = [block.splitlines() for block in blocks("systemd.md", "console") if "systemd-socket-activate" in block]
    activate, request = (
        shlex.split(line.removeprefix("$ ").replace("/tmp/", f"{tmp_path}/")) for line in lines if line.startswith("$ ")
    )
    assert activate[-2:] == ["python3", "greeter.py"]
    command = [*activate[:-2], sys.executable, str(greeter)]
    async with start(command=command) as service:
        await service.line("Listening on", stream="err")
        assert request[0] == "pyipc"
        answered = await run(*request[1:], command=PYIPC)
    assert (answered.status, answered.out) == (0, lines[-1] + "\n")


@posix
async def test_a_process_for_each_connection_ends_with_it(tmp_path: Path) -> None:
    [block] = [each for each in blocks("systemd.md", "python") if "on_disconnect" in each]
    program = tmp_path / "greeter.py"
    block = block.replace("trio.run(", "server.on('e', lambda message: 1)\ntrio.run(")
    program.write_text(f"import pyipc, trio\n{block}")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        async with launched(program, "connection", theirs) as service:
            theirs.close()
            ours.settimeout(PATIENCE)
            ours.sendall(b'{"type":"pyipc.request","data":{"call":1,"event":"e"}}\f')
            assert b"pyipc.reply" in await trio.to_thread.run_sync(ours.recv, 1_000)
            ours.close()
            ended = await service.finish()
    assert (ended.status, ended.err) == (0, "")


def test_the_network_block_is_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    monkeypatch.setattr(pyipc, "TLS", lambda **files: made.append(str(files)))
    [block] = [each for each in blocks("systemd.md", "python") if "systemd:network" in each]
    names: dict[str, Any] = {"pyipc": pyipc}
    exec(block, names)
    assert [str(address) for address in names["server"].addresses] == ["systemd:local", "systemd:network"]
    assert made == ["{'cert': 'server.pem', 'client_ca': 'clients.pem'}"]


def test_whoever_connects_to_a_socket_that_root_opened_has_to_say_so() -> None:
    root = Peer(address="unix:/run/greeter.sock", uid=0, pid=1, gid=0)
    with pytest.raises(pyipc.PeerNotAllowed, match=re.escape("say allow={0} to admit it")):
        pyipc.Endpoint("unix:/run/greeter.sock").admit(root, own_uid=1000, overflow_uid=65534)
    [block] = [each for each in blocks("systemd.md", "python") if "allow={0}" in each]
    endpoint = re.search(r"connect\((.*)\)\n", block)
    assert endpoint is not None
    eval(endpoint[1], {"pyipc": pyipc}).admit(root, own_uid=1000, overflow_uid=65534)


@posix
async def test_a_socket_is_passed_to_a_child_as_the_reference_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [block] = [each for each in blocks("../reference/addresses.md", "python") if "pass_fds" in each]
    program, _, worker = block.rstrip().rpartition("# In worker.py: ")
    (tmp_path / "worker.py").write_text(f"import sys, pyipc, trio\ntrio.run({worker}.run)\n")
    names: dict[str, Any] = {"socket": socket, "subprocess": subprocess, "sys": sys}
    monkeypatch.chdir(tmp_path)
    exec(program.replace("subprocess.Popen(", "child = subprocess.Popen("), names)
    with names["child"] as child, names["listener"] as listener:
        try:
            where = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
            async with pyipc.connect(where, connect_timeout=PATIENCE) as client:
                with pytest.raises(pyipc.NoHandler):
                    await client.request("anything", timeout=PATIENCE)
        finally:
            child.kill()


# --- transports -------------------------------------------------------------------------------------------------


async def echo_over(endpoint: pyipc.Endpoint) -> None:
    server = pyipc.Server(endpoint)
    server.on("echo", lambda message: message.data)
    async with server, pyipc.connect(endpoint) as client:
        assert await client.request("echo", "x" * 100_000) == "x" * 100_000


async def test_the_smallest_transport_works(tmp_path: Path) -> None:
    [block] = blocks("write-a-transport.md", "python")
    names: dict[str, Any] = {}
    exec(block, names)
    transport = names["PortFileTransport"]()
    endpoint = pyipc.Endpoint(f"portfile:{tmp_path}/port", transport=transport)
    with pytest.raises(pyipc.ConnectError, match="start the server"):
        await transport.connect(endpoint.parsed, {})
    await echo_over(endpoint)
    [entry] = blocks("write-a-transport.md", "toml")
    assert tomllib.loads(entry)["project"]["entry-points"]["pyipc.transports"] == {
        "portfile": "my_package:PortFileTransport"
    }


class Loft(Transport):
    """Sockets of a family that pyipc does not have itself; here, of one that every system with these tests has."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def connect(self, address: Address, options: Mapping[str, object]) -> Link:
        refuse_unknown_options(options, (), f"connecting to {address}")
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(self._folder / address.name))
        return SocketLink(sock, Peer(address=str(address)))

    async def listen(self, address: Address, options: Mapping[str, object]) -> Listener:
        refuse_unknown_options(options, ("depth",), f"listening on {address}")
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(self._folder / address.name))
        sock.listen()
        return SocketListener([sock], address, adopt=lambda each: SocketLink(each, Peer(address=str(address))))


@posix
async def test_a_transport_with_sockets_of_its_own(tmp_path: Path) -> None:
    await echo_over(pyipc.Endpoint("loft:pigeon", transport=Loft(tmp_path)))
    with pytest.raises(TypeError, match="the options are depth"):
        await Loft(tmp_path).listen(pyipc.parse_address("loft:owl"), {"height": 3})
