"""The parameters of the conformance suite: every transport, both roles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.conformance.sides import TRANSPORTS, Stage

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(params=TRANSPORTS)
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh address of one transport."""
    return TRANSPORTS[request.param](tmp_path)


@pytest.fixture(params=["client", "server"])
def stage(request: pytest.FixtureRequest, address: str) -> Stage:
    """Both roles on one transport."""
    return Stage(address, request.param)
