"""What the tests of the cluster share: that nothing is left, and, with the command line, a place for sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.battery.leaks import leak_gate
from tests.cli.conftest import directory as directory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def nothing_is_left() -> AsyncIterator[None]:
    """No process, zombie, descriptor or task of a test is there afterwards."""
    async with leak_gate():
        yield
