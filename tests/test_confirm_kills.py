"""kill -9 of either side at each step of a confirmed event: real processes, real sockets, and what is left."""

from __future__ import annotations

import dataclasses
import re
import secrets
import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from tests.cli.processes import PATIENCE, ROOT, eventually, start

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.time_limit(90)

PAGE = ROOT / "docs" / "how-to" / "confirm.md"


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table of promises.

    Attributes:
        who: Which side is killed.
        step: When.
        log: What the handlers do, those of the next server included.
        handled: The same in words.
    """

    who: str
    step: str
    log: tuple[str, ...]
    handled: str

    @property
    def line(self) -> str:
        other = "hears that it is confirmed"
        if self.who == "client":
            other = "goes on; the client's next run knows nothing of it"
        return f"| {self.who} | {self.step} | {self.handled} | {other} |"


NEVER, ONCE = "never", "once"
BY_THE_NEXT = "once, by the next server: `redelivered`"
TWICE = "once by each server, by the next as `redelivered`"
CUT_OFF = "begun, and then handled by the next server: `redelivered`"
FIRST, AGAIN = ("begun first", "done first"), ("begun again", "done again")

ROWS = [
    Row("client", "before it is sent", (), NEVER),
    Row("client", "after it was sent", FIRST, ONCE),
    Row("client", "while it is handled", FIRST, ONCE),
    Row("client", "before the outcome is read", FIRST, ONCE),
    Row("client", "when it is confirmed", FIRST, ONCE),
    Row("server", "before it is read", AGAIN, BY_THE_NEXT),
    Row("server", "while it is handled", ("begun first", *AGAIN), CUT_OFF),
    Row("server", "when it is handled", (*FIRST, *AGAIN), TWICE),
    Row("server", "before the outcome is sent", (*FIRST, *AGAIN), TWICE),
    Row("server", "after the outcome was sent", FIRST, ONCE),
]


def local(folder: Path) -> str:
    return f"pipe:pyipc-{secrets.token_hex(8)}" if sys.platform == "win32" else f"unix:{folder}/socket"


run = partial(start, command=(sys.executable, "-W", "error", "-m", "tests.confirm_program"), cwd=ROOT)


def log_of(folder: Path) -> tuple[str, ...]:
    log = folder / "log"
    return tuple(log.read_text().splitlines()) if log.exists() else ()


@pytest.mark.parametrize("kind", ["local", "tcp"])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.who} {row.step}")
async def test_what_is_left_is_what_was_promised(row: Row, kind: str, tmp_path: Path) -> None:
    address = local(tmp_path) if kind == "local" else "tcp://127.0.0.1:0"
    server_step, client_step = (row.step, "") if row.who == "server" else ("", row.step)
    is_killed_from_here = row.who == "client" and row.step == "while it is handled"
    async with run("server", address, server_step, str(tmp_path)) as server:
        address = (await server.line(r"\S+"))[0]
        data = "wait" if is_killed_from_here else "go"
        async with run("client", address, client_step, data) as client:
            if is_killed_from_here:
                await eventually(lambda: log_of(tmp_path) == ("begun first",))
                client.process.kill()
            if row.who == "client":
                with trio.fail_after(PATIENCE):
                    await client.process.wait()
                (tmp_path / "release").touch()
                await eventually(lambda: log_of(tmp_path) == row.log)
                assert ("confirmed" in (await client.finish()).lines) is (row.step == "when it is confirmed")
                # The server is as well as before.
                async with run("client", address, "", "go") as another:
                    await another.line("^confirmed$")
                assert log_of(tmp_path) == (*row.log, *FIRST)
                return
            with trio.fail_after(PATIENCE):
                await server.process.wait()
            async with run("server", address, "", str(tmp_path)):
                await client.line("^confirmed$")
                assert log_of(tmp_path) == row.log


def test_the_page_makes_the_same_promises() -> None:
    table = [line for line in PAGE.read_text("utf-8").splitlines() if re.match(r"\| (client|server) \|", line)]
    assert table == [row.line for row in ROWS]
