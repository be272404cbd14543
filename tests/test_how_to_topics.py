"""The code in the guide to topics, run as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from tests.conformance.sides import until

if TYPE_CHECKING:
    import pytest

PAGE = Path(__file__).resolve().parent.parent / "docs" / "how-to" / "topics.md"


async def test_the_code_in_the_guide(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 6
    booking = trio.Event()

    async def book(data: object) -> None:
        await booking.wait()

    names: dict[str, Any] = {"book": book}
    for block in blocks:
        exec(block.replace('"shop"', '"memory:guide-to-topics"'), names)
    server = names["server"]
    with trio.fail_after(20):
        async with server, trio.open_nursery() as nursery:
            for name in ("kitchen", "log", "accounts"):
                nursery.start_soon(names[name])
            await until(lambda: server.statistics().subscriptions == 3)
            await names["open_shop"]()
            await names["passer_by"]()
            for number in range(4):
                await names["table"](number)
            await until(lambda: server.statistics().subscriptions == 2)  # accounts has given up
            booking.set()
            seen = ""
            while seen.count("accounts") < 1 or seen.count("kitchen") < 4 or seen.count("log") < 5:
                await trio.lowlevel.checkpoint()
                seen += capsys.readouterr().out
            nursery.cancel_scope.cancel()
    lines = seen.splitlines()
    assert "the shop is open - since before we came" in lines
    assert [line for line in lines if line.startswith("kitchen")] == [
        f"kitchen: orders.food {{'table': {number}}}" for number in range(4)
    ]
    assert [line for line in lines if line.startswith("log")] == ["log: shop.state"] + ["log: orders.food"] * 4
    assert any(line.startswith("accounts: messages for 'orders.**' came faster") for line in lines)
