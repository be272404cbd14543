"""The programs in examples/from_node_ipc: each scenario, in both forms, over every transport, as its README says."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
import trustme

from tests.conftest import CANNOT_RUN

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples" / "from_node_ipc"
PATIENCE = 40

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason=f"{CANNOT_RUN} the README shows Unix sockets")

STREAMS = ["unix", "tcp", "tls-most-secure"]
STRENGTHS = ["tls-basic", "tls-local-only", "tls-more-secure"]
DATAGRAMS = ["udp4", "udp6"]
#: Scenario, program, transport.
RUNS = [
    (scenario, f"{prefix}{scenario}{suffix}", transport)
    for scenarios, transports, ported in [
        (["basic", "sync", "raw", "broadcast"], STREAMS, ""),
        (["basic"], STRENGTHS, ""),
        (["basic", "raw", "broadcast"], DATAGRAMS, "udp_"),
    ]
    for scenario in scenarios
    for prefix, suffix in [("", ""), (ported, "_ported")]
    for transport in transports
]


def said_in_readme(scenario: str, role: str) -> str:
    """What the README shows that a role prints."""
    text = (EXAMPLES / "README.md").read_text("utf-8")
    role = "hello" if role == "goodbye" else role
    found = re.search(rf"```console\n\$ python {scenario}.py {role} unix:/tmp/example\n(.*?)```", text, re.DOTALL)
    assert found is not None, f"the README does not show {scenario}.py {role}"
    return found[1]


class Files:
    """Certificates, and what is said about them on the command line."""

    def __init__(self, directory: Path) -> None:
        authority = trustme.CA()
        self.ca = directory / "ca.pem"
        authority.cert_pem.write_to_path(self.ca)
        for name in ("world", "hello"):
            pair = authority.issue_cert("localhost" if name == "world" else "hello.example", common_name=name)
            pair.private_key_pem.write_to_path(directory / f"{name}.key")
            (directory / f"{name}.key").chmod(0o600)
            pair.cert_chain_pems[0].write_to_path(directory / f"{name}.pem")
        der = ssl.PEM_cert_to_DER_cert((directory / "world.pem").read_text())
        self.fingerprint = f"sha256:{hashlib.sha256(der).hexdigest()}"
        self.directory = directory

    def own(self, name: str) -> list[str]:
        return ["--cert", str(self.directory / f"{name}.pem"), "--key", str(self.directory / f"{name}.key")]

    def arguments(self, transport: str, role: str) -> list[str]:
        """What the README's table says, for one row and column."""
        ca = ["--ca", str(self.ca)]
        match transport, role:
            case "tls-most-secure", "world":
                return [*self.own("world"), *ca]
            case _, "world" if transport.startswith("tls"):
                return self.own("world")
            case "tls-basic", _:
                return ["--insecure"]
            case "tls-local-only", _:
                return ca
            case "tls-more-secure", _:
                return [*ca, "--allow", self.fingerprint]
            case "tls-most-secure", _:
                return [*ca, *self.own("hello")]
        return []


@pytest.fixture(scope="module")
def files() -> Iterator[Files]:
    with tempfile.TemporaryDirectory(prefix="pyipc-") as directory:
        yield Files(Path(directory))


@pytest.fixture
def directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="pyipc-"))
    yield path
    shutil.rmtree(path)


def address_for(transport: str, directory: Path) -> str:
    match transport:
        case "unix":
            return f"unix:{directory / 's'}"
        case "tcp":
            return "tcp://127.0.0.1:0"
        case "udp4":
            return "udp://127.0.0.1:0"
        case "udp6":
            return "udp://[::1]:0"
    return "tls://localhost:0"


async def start(program: str, role: str, address: str, *arguments: str) -> trio.Process:
    return await trio.lowlevel.open_process(
        [sys.executable, "-W", "error", str(EXAMPLES / f"{program}.py"), role, address, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"},
    )


async def read_line(process: trio.Process) -> str:
    """The first line that a process prints."""
    assert process.stdout is not None
    line = b""
    while not line.endswith(b"\n"):
        chunk = await process.stdout.receive_some(1)
        assert chunk, await finish(process)
        line += chunk
    return line.decode()


async def finish(process: trio.Process) -> tuple[int, str, str]:
    """Wait until a process has ended: its exit code, the rest of its output, its errors."""
    assert process.stdout is not None
    assert process.stderr is not None
    texts = {}

    async def read(name: str, stream: trio.abc.ReceiveStream) -> None:
        texts[name] = b"".join([chunk async for chunk in stream]).decode()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read, "out", process.stdout)
        nursery.start_soon(read, "error", process.stderr)
    return await process.wait(), texts["out"], texts["error"]


@pytest.mark.parametrize(("scenario", "program", "transport"), RUNS)
async def test_a_scenario(scenario: str, program: str, transport: str, files: Files, directory: Path) -> None:
    started: list[trio.Process] = []

    async def run(role: str, address: str) -> trio.Process:
        process = await start(program, role, address, *files.arguments(transport, role))
        started.append(process)
        return process

    try:
        with trio.fail_after(PATIENCE):
            world = await run("world", address_for(transport, directory))
            listening = await read_line(world)
            address = listening.removeprefix("listening on ").strip()
            clients = ["hello", "goodbye"] if scenario == "broadcast" else ["hello"]
            for role in clients:
                await run(role, address)
            for role, process in zip(["world", *clients], started, strict=True):
                said = said_in_readme(scenario, role).removeprefix("listening on unix:/tmp/example\n")
                code, printed, errors = await finish(process)
                if (transport, role) == ("tls-basic", "hello"):
                    assert "insecure=True" in errors, "nobody was warned"
                    errors = ""
                assert (code, printed, errors) == (0, said, ""), role
    finally:
        for process in started:
            process.kill()
            await process.wait()


@pytest.mark.parametrize("program", ["cluster", "cluster_ported"])
async def test_a_cluster(program: str, directory: Path) -> None:
    for _ in range(2):  # the first leaves nothing in the way of the second
        with trio.fail_after(PATIENCE):
            process = await start(program, "world", f"unix:{directory / 's'}")
            try:
                assert await finish(process) == (0, said_in_readme("cluster", "world"), "")
            finally:
                process.kill()
                await process.wait()


def test_no_program_is_left_out() -> None:
    programs = {path.stem for path in EXAMPLES.glob("*.py")} - {"place"}
    assert programs == {program for _, program, _ in RUNS} | {"cluster", "cluster_ported"}


def test_the_readme_names_every_program() -> None:
    text = (EXAMPLES / "README.md").read_text("utf-8")
    assert set(re.findall(r"`(\w+\.py)`", text)) >= {path.name for path in EXAMPLES.glob("*.py")}
