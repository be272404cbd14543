"""What the page on confirmed events shows is run."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import pytest

import pyipc
from pyipc.testing import pair
from tests.test_how_to_sockets import blocks

if TYPE_CHECKING:
    import trio.testing

    from pyipc import Client

pytestmark = pytest.mark.time_limit(10)


async def run(block: str, client: Client) -> None:
    """Run a block of a page as if it stood where there is a client."""
    names: dict[str, Any] = {"pyipc": pyipc, "client": client}
    exec(f"async def block():\n{textwrap.indent(block, '    ')}", names)
    await names["block"]()


async def test_every_block(autojump_clock: trio.testing.MockClock, capsys: pytest.CaptureFixture[str]) -> None:
    router = pyipc.Router()
    orders: list[Any] = []
    router.on("order", lambda message: orders.append(message.data))
    shown = blocks("confirm.md", "python")
    assert len(shown) == 2
    async with pair(router) as (client, _):
        for block in shown:
            await run(block, client)
    assert orders == [7, 7]
    async with pyipc.connect("memory:nobody", wait=False) as client:
        await run(shown[1], client)
    assert capsys.readouterr().out == "was not sent timeout\n"
