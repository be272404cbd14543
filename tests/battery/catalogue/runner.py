"""Sends the cases of a chapter to real servers, and says of each where it did not come out as it should."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import trio

import pyipc
from tests.battery.catalogue.cases import ANSWER, FF, OPTIONS, House, request
from tests.battery.catalogue.descriptors import PassingLink, open_count
from tests.conformance.sides import dial_link, until
from tests.conformance.subjects import Feature

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

    from pyipc.transports import Link
    from tests.battery.catalogue.cases import Case, Chapter, Heard, Told
    from tests.conformance.subjects import Subject

__all__ = ["LAST_CALL", "FrameReader", "complaints", "differences", "farewell", "patience_for", "try_each"]

# The call by which a connection shows that it lives on; no case uses the number.
LAST_CALL = 2**53 - 1
#: Names that mean something in Python or JavaScript, and nothing to pyipc.
ODD_NAMES = (
    *("__class__", "__init__", "__proto__", "constructor", "hasOwnProperty", "toString", "connect", "data", "error"),
    *("pyipc", "pyipcx", "PYIPC.hello", "a.b.c", "*", "**", "\0", "\n", " ", "\ud800", "\u202e", "☃"),
)


def _router(heard: list[Heard], wait: Callable[[], Awaitable[None]]) -> pyipc.Router:
    """All that the servers of the catalogue serve; the request ``wait`` is answered after that."""
    router = pyipc.Router()

    def note(message: pyipc.Message[Any]) -> None:
        heard.append((message.event, message.data, *map(bytes, message.attachments)))

    for name in ("e", "e.*", *(name for name in ODD_NAMES if "*" not in name)):
        router.on(name, note)

    router.on("echo", lambda message: message.data)
    router.on("attached", lambda message: [bytes(each).decode() for each in message.attachments])
    router.on("huge", lambda message: "x" * 2_000_000)

    router.on("wait", lambda message: wait())

    @router.on("typed")
    def typed(message: pyipc.Message[list[int]]) -> int:
        return sum(message.data)

    @router.on("fails")
    def fails(message: pyipc.Message[Any]) -> None:
        raise pyipc.Refused("busy", "not now", data={"wait": 1})

    @router.on("rows")
    async def rows(message: pyipc.Message[int]) -> AsyncIterator[int]:
        for number in range(message.data):
            yield number

    return router


def patience_for(subject: Subject) -> dict[str, Any]:
    """Options for transports on which neither side sees an end before the other closes: they wait for it in vain."""
    return {} if Feature.HALF_CLOSE in subject.promises else {"close_timeout": 0.02}


class Stand:
    """A server, a client of it that means well, and what was seen of both."""

    def __init__(self, subject: Subject, house: House) -> None:
        self._subject = subject
        self.heard: list[Heard] = []
        options = {**OPTIONS[house], **patience_for(subject)}
        self.server = pyipc.Server(subject.server_endpoint(), router=_router(self.heard, self._wait), **options)
        self._is_over = trio.Event()
        self._endings: dict[pyipc.Connection, pyipc.Disconnected] = {}
        self.server.on_disconnect(self._note_end)

    def _note_end(self, reason: pyipc.Disconnected) -> None:
        assert isinstance(reason.connection, pyipc.Connection)
        self._endings[reason.connection] = reason

    async def _wait(self) -> None:
        await self._is_over.wait()

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Stand]:
        async with self.server:
            self._where = self._subject.client_endpoint(self.server.addresses[0])
            async with pyipc.connect(self._where) as self._neighbor:
                await self._neighbor.request("echo")
                yield self

    async def check(self, case: Case) -> list[str]:
        """Try one case; return what did not come out as it says."""
        self.heard.clear()
        self._endings.clear()
        self._is_over = trio.Event()
        before = self.server.connections
        descriptors = open_count() if case.passes else 0
        link = await self._dial(case)
        try:
            await until(lambda: len(self.server.connections) > len(before))
            (connection,) = self.server.connections - before
            received, ended = await self._converse(case, link, connection)
            unheard = connection.statistics().unheard
        finally:
            self._is_over.set()
            await link.aclose()
        await until(lambda: bool(self._endings))
        (reason,) = self._endings.values()
        wrong = differences(
            ("the connection ended by", reason.code if ended else "", case.code),
            ("handlers got", self.heard, [*case.hears]),
            ("the peer was told", received, [*case.told, *farewell(case)]),
            ("events that nobody handles:", unheard, case.unheard),
            ("descriptors open in the server:", open_count() if case.passes else 0, descriptors),
        )
        return [*wrong, *await self._look_after_the_neighbor()]

    async def _dial(self, case: Case) -> Link | PassingLink:
        if not case.passes:
            return await dial_link(self._where)
        sock = trio.socket.socket(trio.socket.AF_UNIX)
        await sock.connect(self._where.parsed.name)
        return PassingLink(sock, case.passes, case.first)

    async def _converse(
        self, case: Case, link: Link | PassingLink, connection: pyipc.Connection
    ) -> tuple[list[Told], bool]:
        """Say what the case says; return what was answered, and whether the connection has ended."""
        reader = FrameReader(link)
        if case.first:
            await link.send(case.first)
            assert await reader.read() == ("welcome", {})
        told: list[Told] = []
        sent = len(case.first)
        for piece in case.sends:
            if piece == ANSWER:
                told += await reader.read_some(1)
                continue
            try:
                await link.send(piece)
            except pyipc.ConnectionLost:
                break  # the server has closed at once, and what it has said is there to be read
            sent += len(piece)
            await until(lambda: connection.reason is not None or connection.statistics().bytes_received >= sent)  # noqa: B023
        if case.finishes and not link.send_eof():
            await link.aclose()  # there is no other end on this transport, and nobody left to hear anything
            return told, True
        if not case.code:
            # What is told must be there before the last answer, and nothing more.
            told += await reader.read_some(len(case.told) - len(told))
            with contextlib.suppress(pyipc.ConnectionLost):  # then the reader says so
                await link.send(request(LAST_CALL))
        told += await reader.read_until(("reply", {"call": LAST_CALL, "data": None}))
        return told, reader.has_ended

    async def _look_after_the_neighbor(self) -> list[str]:
        """Whether another client of the server has noticed nothing."""
        answer = await self._neighbor.request("echo", "still there")
        connects = self._neighbor.statistics().connects
        return differences(
            ("another client is answered", answer, "still there"), ("another client had connections:", connects, 1)
        )


class FrameReader:
    """Reads frames as a peer without pyipc would."""

    def __init__(self, link: Link | PassingLink) -> None:
        self._link = link
        self._buffer = b""
        self.has_ended = False

    async def read(self) -> Told | None:
        """The next frame, without the words that are for people; ``None`` at the end of the stream."""
        while FF not in self._buffer:
            try:
                chunk = await self._link.receive()
            except pyipc.ConnectionLost:
                chunk = b""
            if not chunk:
                self.has_ended = True
                return None
            self._buffer += chunk
        text, _, self._buffer = self._buffer.partition(FF)
        value = json.loads(text)
        name, fields = value["type"].removeprefix("pyipc."), value["data"]
        if name == "welcome":
            return name, {}
        return name, {key: field for key, field in fields.items() if key != "message"}

    async def read_some(self, count: int) -> list[Told]:
        """So many frames, or fewer at the end of the stream."""
        frames: list[Told] = []
        while len(frames) < count and (told := await self.read()) is not None:
            frames.append(told)
        return frames

    async def read_until(self, last: Told) -> list[Told]:
        """All frames before this one, or before the end of the stream."""
        frames = []
        while (told := await self.read()) not in (None, last):
            assert told is not None
            frames.append(told)
        return frames


def farewell(case: Case) -> Iterable[Told]:
    return [("goodbye", {"code": case.code})] if case.has_goodbye else []


def differences(*looks: tuple[str, object, object]) -> list[str]:
    # As text, in which -0.0 is not 0 and True is not 1.
    found = [(what, repr(seen), repr(wanted)) for what, seen, wanted in looks]
    return [f"{what} {seen[:500]}, and not {wanted[:500]}" for what, seen, wanted in found if seen != wanted]


async def complaints(make_subject: Callable[[str], Subject], chapter: Chapter) -> list[str]:
    """Try the cases of a chapter, those of one house at one server, and say what came out otherwise than it should.

    Args:
        make_subject: A transport at a place of its own, by the name of that place.
        chapter: What to try.
    """
    found = []
    for house in House:
        cases = {name: case for name, case in chapter.cases.items() if case.house is house}
        if cases:
            async with Stand(make_subject(house.name.lower()), house).open() as stand:
                found += await try_each(stand.check, cases)
    return found


async def try_each(check: Callable[[Case], Awaitable[list[str]]], cases: dict[str, Case]) -> list[str]:
    """Try cases one after the other; say of which what came out otherwise."""
    found = []
    for name, case in cases.items():
        with trio.move_on_after(10) as patience:
            found += [f"{name}: {complaint}" for complaint in await check(case)]
        if patience.cancelled_caught:
            found.append(f"{name}: nothing came of it for 10 s")
    return found
