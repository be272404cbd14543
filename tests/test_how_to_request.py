"""The program in the guide to requests, run as it stands there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio
import trio.testing

from tests.test_how_to_sockets import blocks

if TYPE_CHECKING:
    import pytest


async def test_the_program_of_the_guide(
    autojump_clock: trio.testing.MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    (program,) = blocks("request.md", "python")
    names: dict[str, Any] = {}
    exec(program.replace('"bank"', '"memory:guide-to-requests"'), names)
    with trio.fail_after(60):
        async with names["server"]:
            await names["client"]()
    assert sorted(capsys.readouterr().out.splitlines()) == sorted(
        ["100", "no-account {'known': ['ada']}", "too late", "the report is not wanted any more"]
    )
