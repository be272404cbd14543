"""A third party's transport: built, installed and found as any other package is, and put through the whole suite."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.conftest import CANNOT_RUN

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "examples" / "transport_package"
MAX_LINES = 200

pytestmark = pytest.mark.skipif(
    sys.platform == "win32" and importlib.util.find_spec("pip") is None, reason=f"{CANNOT_RUN} there is no pip"
)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the package in it, built without the network by what the tests need anyway."""
    target = tmp_path_factory.mktemp("site-packages")
    options = ("--quiet", "--no-build-isolation", "--no-index", "--no-deps", "--disable-pip-version-check")
    run("-m", "pip", "install", *options, "--target", target, PACKAGE)
    return target


def run(*arguments: str | Path, path: tuple[Path, ...] = (), **variables: str) -> str:
    """What Python prints, with these directories on its path beside the root of this repository."""
    result = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path)), **variables},
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def program(source: str, installed: Path) -> str:
    return run("-W", "error", "-c", textwrap.dedent(source), path=(installed,))


@pytest.mark.slow
@pytest.mark.time_limit(170)
def test_it_passes_the_conformance_suite(installed: Path) -> None:
    suite = ("-m", "pytest", "-v", "-p", "no:cacheprovider", "tests/conformance")
    out = run(*suite, path=(installed, PACKAGE), PYIPC_CONFORMANCE="conformance:Deflate", PYIPC_TEST_SCALE="1")
    assert out.count("-deflate] PASSED") > 50


def test_its_scheme_is_an_address_like_any_other(installed: Path) -> None:
    out = program(
        """
        import pyipc, trio

        async def main():
            server = pyipc.Server("deflate:127.0.0.1:0")
            server.on("echo", lambda message: message.data)
            async with server, pyipc.connect(server.addresses[0]) as client:
                print(server.addresses[0].scheme, await client.request("echo", "x" * 100_000) == "x" * 100_000)

        trio.run(main)
        """,
        installed,
    )
    assert out == "deflate True\n"


def test_it_really_compresses(installed: Path) -> None:
    out = program(
        """
        import pyipc, trio
        from pyipc.testing import Faults, FaultyTransport
        from pyipc.transports import transport_for
        from pyipc_deflate import DeflateLink

        async def main():
            listener = await transport_for("deflate").listen(pyipc.parse_address("deflate:127.0.0.1:0"), {})
            tcp = pyipc.parse_address(f"tcp://{listener.address.name}")
            counting = FaultyTransport(Faults()).wrap(await transport_for("tcp").connect(tcp, {}))
            link = DeflateLink(counting, 6)
            await link.send(b"x" * 1_000_000)
            served = await listener.accept()
            assert sum([len(await served.receive()) for _ in range(16)]) == 1_000_000
            print(counting.statistics().sent.size < 2_000)
            for each in (served, link, listener):
                await each.aclose()

        trio.run(main)
        """,
        installed,
    )
    assert out == "True\n"


def test_a_bomb_is_unpacked_in_pieces(installed: Path) -> None:
    out = program(
        """
        import zlib
        import pyipc, trio
        from pyipc.transports import memory_link_pair
        from pyipc_deflate import MAX_PIECE, DeflateLink

        async def main():
            ours, theirs = memory_link_pair()
            packer = zlib.compressobj(9, zlib.DEFLATED, -15)
            await theirs.send(packer.compress(b"x" * 10_000_000) + packer.flush(zlib.Z_SYNC_FLUSH))
            await theirs.aclose()
            link, sizes = DeflateLink(ours, 6), []
            while piece := await link.receive():
                sizes.append(len(piece))
            print(sum(sizes), max(sizes) <= MAX_PIECE)

            # And a server drops who sends one, as it does with whatever is too large.
            server = pyipc.Server(max_frame_size=100_000)
            ended = []
            server.on_disconnect(ended.append)
            async with server:
                ours, theirs = memory_link_pair()
                server.adopt(DeflateLink(ours, 6))
                packer = zlib.compressobj(9, zlib.DEFLATED, -15)
                await theirs.send(packer.compress(b"x" * 10_000_000) + packer.flush(zlib.Z_SYNC_FLUSH))
                while await theirs.receive():
                    pass
                await theirs.aclose()
            print(ended[0].code)

        trio.run(main)
        """,
        installed,
    )
    assert out == "10000000 True\nsize\n"


def test_nothing_is_read_behind_the_end_of_what_is_compressed(installed: Path) -> None:
    """zlib would collect it, and copy all of it each time."""
    out = program(
        """
        import zlib
        import pyipc, trio
        from pyipc.transports import memory_link_pair
        from pyipc_deflate import DeflateLink

        async def main():
            ours, theirs = memory_link_pair()
            packer = zlib.compressobj(9, zlib.DEFLATED, -15)
            await theirs.send(packer.compress(b"the last") + packer.flush(zlib.Z_FINISH))
            await theirs.send(b"more")
            link = DeflateLink(ours, 6)
            print(await link.receive())
            with trio.fail_after(10):
                try:
                    print(await link.receive())
                except pyipc.ConnectionLost as error:
                    print(error)

        trio.run(main)
        """,
        installed,
    )
    assert out.startswith("b'the last'\n")
    assert out.endswith("ended its compressed stream and kept the connection\n")


def test_what_is_not_compressed_ends_its_connection(installed: Path) -> None:
    out = program(
        """
        import pyipc, trio
        from pyipc.transports import memory_link_pair
        from pyipc_deflate import DeflateLink

        async def main():
            ours, theirs = memory_link_pair()
            await theirs.send(b"GET / HTTP/1.1")
            try:
                await DeflateLink(ours, 6).receive()
            except pyipc.ConnectionLost as error:
                print(error)

        trio.run(main)
        """,
        installed,
    )
    assert out.endswith("sent what is not compressed; let it use a deflate: address too\n")


def test_it_does_not_leave_the_host_unasked(installed: Path) -> None:
    out = program(
        """
        import pyipc
        from pyipc.transports import transport_for
        from pyipc_deflate import DeflateTransport

        address = pyipc.parse_address("deflate:192.0.2.1:80")
        try:
            transport_for("deflate").places(address)
        except pyipc.InsecureAddress as error:
            print(error)
        print(DeflateTransport(plain_text=True).places(address)[0].name)
        """,
        installed,
    )
    assert "would send plain text beyond this host" in out
    assert out.endswith("\ntcp://192.0.2.1:80\n")


def test_it_needs_public_names_alone_and_is_short() -> None:
    source = (PACKAGE / "src" / "pyipc_deflate" / "__init__.py").read_text("utf-8")
    assert len(source.splitlines()) < MAX_LINES
    imported = [line.strip() for line in source.splitlines() if "import" in line and "pyipc" in line]
    assert imported == [
        "import pyipc",
        "from pyipc.transports import Link, Listener, Place, Transport, transport_for",
        "from pyipc import Address, Peer",
    ]
