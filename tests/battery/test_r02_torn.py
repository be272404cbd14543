"""R2: a peer that is killed in the middle of a frame hurts nobody.

A process writes the beginning of three frames and is ended with `kill -9`, once for every number of bytes from none to
all: as a client of a server and as the server of a client, over Unix sockets and over TCP; plain, confirmed and
attached events, and requests. Each time the frames that are whole are handled, of the one that is torn nothing is,
there is one disconnect with the right reason, and the connection that comes next is as good as any: that of a peer
which writes all three.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio

import pyipc
from tests.battery import torn_writer
from tests.battery.leaks import leak_gate
from tests.battery.sizes import FACTOR, sized
from tests.cli.processes import PATIENCE, Program, start
from tests.conftest import CANNOT_RUN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from tests.battery.conftest import Tally

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason=f"{CANNOT_RUN} Windows has neither SIGKILL nor fork"),
    pytest.mark.time_limit(240),
]

FEATURES = ["attachments", "confirm"]
HELLO = {"versions": [1], "features": FEATURES, "session": torn_writer.ANYBODY.decode()}
WELCOME = {"version": 1, "features": FEATURES, "max_attachments_size": 1 << 20, "instance": "1", "session_timeout": 60}
#: Bytes that would be a delimiter, the beginning of a record or the end of text anywhere else.
TRICKY = b'\x0c\x01{"}\x0c'


def frame(name: str, data: object) -> bytes:
    return json.dumps({"type": name, "data": data}, ensure_ascii=False).encode() + b"\f"


def record(content: bytes) -> bytes:
    return b"\x01" + len(content).to_bytes(8, "big") + content


@dataclasses.dataclass(frozen=True)
class Part:
    """One frame, with what is attached to it.

    Attributes:
        data: Its bytes.
        event: The name that its handler hears.
        content: The data that its handler gets.
        attachments: The attachments.
        is_answered: Whether whoever gets it writes something in return.
    """

    data: bytes
    event: str
    content: object
    attachments: tuple[bytes, ...] = ()
    is_answered: bool = False


def events(padding: str) -> list[Part]:
    """A plain event, one that is to be confirmed, and one with an attachment."""
    text = f"café \f \U0001f600 {padding}"
    picture = TRICKY + padding.encode()
    sure = {"number": 1, "event": "sure", "data": [text], "lowest": 1}
    return [
        Part(frame("plain", {"text": text}), "plain", {"text": text}),
        Part(frame("pyipc.deliver", sure), "sure", [text], is_answered=True),
        Part(record(picture) + frame("photo", None), "photo", None, (picture,)),
    ]


def requests(padding: str) -> list[Part]:
    """Three questions, one of them with attachments."""
    text = f"naïve \f \U0001f600 {padding}"
    picture = TRICKY + padding.encode()
    calls = [frame("pyipc.request", {"call": n, "event": "ask", "data": text}) for n in (1, 2)]
    attached = record(b"") + record(picture) + frame("pyipc.request", {"call": 3, "event": "ask"})
    return [
        Part(calls[0], "ask", text, is_answered=True),
        Part(attached, "ask", None, (b"", picture), is_answered=True),
        Part(calls[1], "ask", text, is_answered=True),
    ]


class Batch:
    """Three frames, padded to a size, and what is to be heard of the beginning of them."""

    def __init__(self, make: Callable[[str], list[Part]], size: int) -> None:
        missing = size - sum(len(part.data) for part in make(""))
        self.parts = make("-" * (missing // 3))
        self.data = b"".join(part.data for part in self.parts)
        self.ends = [sum(len(part.data) for part in self.parts[: n + 1]) for n in range(len(self.parts))]

    def whole(self, length: int) -> list[Part]:
        """The parts that are complete within so many bytes."""
        return [part for part, end in zip(self.parts, self.ends, strict=True) if end <= length]

    def cuts(self) -> Iterator[int]:
        """How long the beginnings are: all lengths, or on an ordinary day some of them, the borders included."""
        step = 1 if FACTOR >= 1 else round(1 / FACTOR)
        for cut in range(len(self.data) + 1):
            if cut % step == 0 or any(abs(cut - end) <= 1 for end in self.ends):
                yield cut


class Side:
    """Our side: a program's handlers, and what they hear."""

    def __init__(self) -> None:
        self.router = pyipc.Router()
        self.heard: list[tuple[str, object, tuple[bytes, ...]]] = []
        self._met = 0
        self._ends: list[pyipc.Disconnected] = []
        self._parted = trio.Event()
        for name in ("plain", "sure", "photo", "ask"):
            self.router.on(name, self._hear)

    def part(self, end: pyipc.Disconnected) -> None:
        """A connection has ended."""
        self._ends.append(end)
        self._parted.set()

    def _hear(self, message: pyipc.Message[Any]) -> Any:
        self.heard.append((message.event, message.data, tuple(message.attachments)))
        return message.data

    async def meet(self, peers: Program, batch: Batch, length: int) -> None:
        """Have a peer write so much and be killed, and see what comes of it."""
        self._parted = trio.Event()
        self._met += 1
        self._ends.clear()
        self.heard.clear()
        await peers.write(f"{length}\n")
        with trio.fail_after(PATIENCE):
            await self._parted.wait()
        whole = batch.whole(length)
        assert self.heard == [(part.event, part.content, part.attachments) for part in whole], length
        (end,) = self._ends
        # Who is killed before reading an answer leaves a connection that was reset.
        codes = {"eof", "lost"} if any(part.is_answered for part in whole) else {"eof"}
        assert end.code in codes, (length, end)
        assert end.by_peer

    async def meet_all(self, peers: Program, batch: Batch, tally: Tally) -> None:
        """Meet a peer for each length, and after each one that writes everything."""
        for cut in batch.cuts():
            for length in (cut, len(batch.data)):
                await self.meet(peers, batch, length)
        await peers.close_stdin()
        assert (await peers.finish()).lines[-1:] == [f"killed {self._met}"]
        tally.add(kills=self._met, lost=0)


@asynccontextmanager
async def peers_that_are_killed(
    folder: Path, role: str, kind: str, address: str, greeting: bytes, batch: Batch
) -> AsyncIterator[Program]:
    """A program that makes such peers."""
    (folder / "greeting").write_bytes(greeting)
    (folder / "batch").write_bytes(batch.data)
    command = (sys.executable, "-S", "-E", torn_writer.__file__)
    async with start(role, kind, address, folder / "greeting", folder / "batch", command=command) as peers:
        yield peers


@pytest.fixture(params=[events, requests])
def batch(request: pytest.FixtureRequest) -> Batch:
    return Batch(request.param, sized(512, least=512))


@pytest.mark.parametrize("kind", ["unix", "tcp"])
async def test_a_server_whose_client_is_killed_after_any_byte(
    kind: str, batch: Batch, tmp_path: Path, tally: Tally
) -> None:
    sockets = tmp_path / "sockets"
    sockets.mkdir(mode=0o700)
    side = Side()
    async with leak_gate(sockets):
        server = pyipc.Server(f"unix:{sockets}/s" if kind == "unix" else "tcp://127.0.0.1:0", router=side.router)
        async with server, pyipc.connect(server.addresses[0]) as bystander:
            server.on_disconnect(side.part)
            place = f"{sockets}/s" if kind == "unix" else str(server.addresses[0].port)
            greeting = frame("pyipc.hello", HELLO)
            async with peers_that_are_killed(tmp_path, "connect", kind, place, greeting, batch) as peers:
                await side.meet_all(peers, batch, tally)
            assert await bystander.request("ask", "well?") == "well?"
            assert bystander.statistics().connects == 1


@pytest.mark.parametrize("kind", ["unix", "tcp"])
async def test_a_client_whose_server_is_killed_after_any_byte(
    kind: str, batch: Batch, tmp_path: Path, tally: Tally
) -> None:
    side = Side()
    greeting = frame("pyipc.welcome", WELCOME)
    async with (
        leak_gate(),
        peers_that_are_killed(tmp_path, "accept", kind, f"{tmp_path}/s", greeting, batch) as peers,
    ):
        place = (await peers.line(r"(\S+)"))[1]
        address = f"unix:{place}" if kind == "unix" else f"tcp://127.0.0.1:{place}"
        async with pyipc.connect(
            address, router=side.router, reconnect_interval=0.001, reconnect_max_interval=0.01
        ) as client:
            client.on_disconnect(side.part)
            await side.meet_all(peers, batch, tally)
