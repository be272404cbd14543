"""What tests of clusters need."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.battery.leaks import leak_gate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def nothing_is_left() -> AsyncIterator[None]:
    """No process, zombie, descriptor or task of a test is there afterwards."""
    async with leak_gate():
        yield
