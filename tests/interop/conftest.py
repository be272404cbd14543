"""What every test against a real node-ipc needs: a program of each version, and a place to meet."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import CANNOT_RUN, NODE_IPC_VERSIONS, needs_node
from tests.interop.certificates import Certificates, make_certificates
from tests.interop.node import Place, start_node, start_tap

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    import trio

    from tests.interop.node import NodePeer, Tap

    StartNode = Callable[[], Awaitable[NodePeer]]
    StartTap = Callable[..., Awaitable[Tap]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.interop)


@pytest.fixture(params=NODE_IPC_VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    """A version of node-ipc."""
    assert isinstance(request.param, str)
    return request.param


@pytest.fixture
def modules(version: str) -> Path:
    """Where that version is installed."""
    return needs_node(version)


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory for sockets; not ``tmp_path``, since the path of a socket has to be short."""
    path = Path(tempfile.mkdtemp(prefix="pyipc-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def certificates() -> Iterator[Certificates]:
    """An authority and those it vouches for."""
    with tempfile.TemporaryDirectory(prefix="pyipc-") as directory:
        yield make_certificates(Path(directory))


@pytest.fixture(params=["unix", "tcp"])
def place(request: pytest.FixtureRequest, directory: Path) -> Place:
    """A free place to listen on: a path, or port 0."""
    if request.param == "tcp":
        return Place("tcp")
    return unix_place(directory)


@pytest.fixture
def unix(directory: Path) -> Place:
    """A free path, for tests to which the transport makes no difference."""
    return unix_place(directory)


def unix_place(directory: Path) -> Place:
    if sys.platform == "win32":
        pytest.skip(f"{CANNOT_RUN} there are no Unix sockets that both sides know")
    return Place("unix", path=str(directory / "s"))


@pytest.fixture
async def node(nursery: trio.Nursery, modules: Path, directory: Path) -> AsyncIterator[StartNode]:
    """Starts node-ipc programs, which end with the test."""
    started: list[NodePeer] = []

    async def start() -> NodePeer:
        peer = await start_node(nursery, modules, directory)
        started.append(peer)
        return peer

    yield start
    for peer in started:
        await peer.aclose()


@pytest.fixture
def tap(nursery: trio.Nursery, directory: Path) -> StartTap:
    """Puts taps in front of whoever listens; they end with the test."""
    count = 0

    async def start(target: Place, *, chunk: int | None = None) -> Tap:
        nonlocal count
        count += 1
        place = Place("unix", path=str(directory / f"tap{count}")) if target.transport == "unix" else Place("tcp")
        return await start_tap(nursery, place, target, chunk=chunk)

    return start
