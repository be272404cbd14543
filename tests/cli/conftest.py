"""What every test of the command line needs: an address that nobody else has."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import CANNOT_RUN

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory for sockets; not ``tmp_path``, since the path of a socket has to be short."""
    path = Path(tempfile.mkdtemp(prefix="pyipc-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def address(directory: Path) -> str:
    """A free address, in a directory that should be empty again at the end."""
    if sys.platform == "win32":
        pytest.skip(f"{CANNOT_RUN} there are no Unix sockets")
    return f"unix:{directory / 's'}"
