"""What the page on attachments shows is run."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import trio

import pyipc
from pyipc.testing import pair

PAGE = Path(__file__).resolve().parent.parent / "docs" / "how-to" / "attachments.md"


def blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)


async def run(block: str, scope: dict[str, Any]) -> None:
    """Run a block in which something is awaited."""
    made: dict[str, Any] = {}
    source = f"async def block():\n{textwrap.indent(block, '    ')}    return locals()\n"
    exec(compile(source, str(PAGE), "exec"), scope, made)
    scope |= await made["block"]()


async def test_the_page() -> None:
    sending, photo, answering, larger = blocks()
    saved: list[Any] = []
    frames: list[Any] = []
    router, watching = pyipc.Router(), pyipc.Router()
    router.on("resize", lambda message: len(message.attachments))
    watching.on("frame", lambda message: frames.append((message.data, list(message.attachments))))
    with trio.fail_after(10):
        async with pair(router, client_router=watching) as (client, server):
            scope: dict[str, Any] = {
                "pyipc": pyipc,
                "client": client,
                "server": server,
                "save": lambda name, picture: saved.append((name, picture)),
                "small": lambda picture: picture[:2],
                "picture": b"picture",
                "mask": bytearray(b"mask"),
                "frame": memoryview(b"frame"),
            }
            await run(photo, scope)
            await run(sending, scope)
            assert scope["answer"] == 2
            assert saved == [("cat.jpg", b"picture")]
            await run(answering, scope)
            assert (scope["answer"].data, list(scope["answer"].attachments)) == ({"width": 100}, [b"pi"])
            assert frames == [({"number": 7}, [b"frame"])]
            exec(larger, scope)
