"""Two programs and a place where they meet."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pyipc.node_ipc import IPC
from tests.conftest import CANNOT_RUN
from tests.node_ipc.programs import Meeting

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory for Unix sockets, whose paths have to be short."""
    if sys.platform == "win32":
        pytest.skip(f"{CANNOT_RUN} there are no Unix sockets that Python knows")
    path = Path(tempfile.mkdtemp(prefix="pyipc-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(params=["unix", "tcp"])
def meeting(request: pytest.FixtureRequest) -> Meeting:
    """A server that is not started and a client that is not connected, on each of two transports."""
    return new_meeting(request.getfixturevalue("directory") / "s" if request.param == "unix" else None)


@pytest.fixture
def meeting_unix(directory: Path) -> Meeting:
    """The same, where the transport makes no difference."""
    return new_meeting(directory / "s")


def new_meeting(path: Path | None) -> Meeting:
    here, there = IPC(), IPC()
    for ipc in (here, there):
        ipc.config.retry = 5
    return Meeting(here, there, None if path is None else str(path))
