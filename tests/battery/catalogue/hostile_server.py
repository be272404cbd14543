"""Sends the cases of a chapter to clients, as a server that nobody should have to meet."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import trio

import pyipc
from pyipc.transports import Link, transport_for
from tests.battery.catalogue.cases import request
from tests.battery.catalogue.from_server import CREDIT, WELCOME_FRAME
from tests.battery.catalogue.runner import LAST_CALL, FrameReader, differences, farewell, patience_for, try_each
from tests.conformance.sides import greet, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from pyipc.transports import Listener
    from tests.battery.catalogue.cases import Case, Chapter, Heard, Told
    from tests.conformance.subjects import Subject

__all__ = ["complaints"]


class _Asking:
    """A client that has asked for one of everything, and what became of that."""

    def __init__(self) -> None:
        self.heard: list[Heard] = []
        self.lost: list[str] = []
        self.connections: list[pyipc.Connection] = []
        self.endings: list[pyipc.Disconnected] = []
        self.router = pyipc.Router()
        self.router.on("e", lambda message: self.heard.append((message.event, message.data, *message.attachments)))
        self.router.on("echo", lambda message: message.data)

    async def ask(self, client: pyipc.Client) -> None:
        with self._noting("ask"):
            self.heard.append(("ask", await client.request("ask")))

    async def rows(self, client: pyipc.Client) -> None:
        with self._noting("rows"):
            async with client.stream("rows") as rows:
                self.heard.append(("rows", [row async for row in rows]))

    async def subscribe(self, client: pyipc.Client) -> None:
        async with client.subscribe("t") as messages:
            async for message in messages:
                self.heard.append((message.event, message.data))

    async def confirm(self, client: pyipc.Client) -> None:
        with self._noting("confirmed"):
            await client.emit("e", confirm=True)
            self.heard.append(("confirmed",))

    @contextlib.contextmanager
    def _noting(self, what: str) -> Iterator[None]:
        try:
            yield
        except pyipc.RemoteError as error:
            self.heard.append((what, f"RemoteError {error.code}"))
        except pyipc.ConnectionLost:
            self.lost.append(what)


class _HostileServer:
    """Listens, and is no server."""

    def __init__(self, subject: Subject, listener: Listener, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._where = subject.client_endpoint(listener.address)
        self._patience = patience_for(subject)
        self._listener = listener
        self._send, self._accepted = trio.open_memory_channel[Link](1_000)

    async def accept_all(self) -> None:
        while True:
            await self._send.send(await greet(await self._listener.accept()))

    async def check(self, case: Case) -> list[str]:
        """Try one case; return what did not come out as it says."""
        asking = _Asking()
        async with (
            pyipc.connect(
                self._where,
                router=asking.router,
                on_connect=asking.connections.append,
                on_disconnect=asking.endings.append,
                reconnect_interval=0.001,
                max_stream_items=CREDIT,
                **self._patience,
            ) as client,
            trio.open_nursery() as nursery,
        ):
            link = await self._accepted.receive()
            told, unheard = await self._converse(case, link, client, asking, nursery)
            wrong = differences(
                ("the connection ended by", "".join(each.code for each in asking.endings), case.code),
                ("handlers and callers got", asking.heard, [*case.hears]),
                ("the server was told", told, [*case.told, *farewell(case)]),
                ("events that nobody handles:", unheard, case.unheard),
            )
            if case.code == "version":
                wrong += await _expect_given_up(client)
            elif asking.endings:
                wrong += await self._expect_back(asking, has_asked=bool(case.first))
            else:
                self._nursery.start_soon(_let_go, link)
            nursery.cancel_scope.cancel()
        return wrong

    async def _converse(
        self, case: Case, link: Link, client: pyipc.Client, asking: _Asking, nursery: trio.Nursery
    ) -> tuple[list[Told], int]:
        """Say what the case says, once the client has asked; return what it answered, and what nobody handled."""
        reader = FrameReader(link)
        assert (await reader.read_some(1))[0][0] == "hello"
        if case.first:
            await link.send(case.first)
            for call in (asking.ask, asking.rows, asking.subscribe, asking.confirm):
                nursery.start_soon(call, client)
                await reader.read_some(1)
        told: list[Told] = []
        for piece in case.sends:
            with contextlib.suppress(pyipc.ConnectionLost):  # the client has closed, and has said why
                await link.send(piece)
        if not case.code:
            told += await reader.read_some(len(case.told))
            with contextlib.suppress(pyipc.ConnectionLost):
                await link.send(request(LAST_CALL))
        told += await reader.read_until(("reply", {"call": LAST_CALL, "data": None}))
        if reader.has_ended:
            await link.aclose()
            await until(lambda: bool(asking.endings))
        else:
            await until(lambda: len(asking.heard) >= len(case.hears))
        return told, asking.connections[0].statistics().unheard

    async def _expect_back(self, asking: _Asking, *, has_asked: bool) -> list[str]:
        """Whether the client comes back, sends again what is to be sent again, and has given up the rest."""
        link = await self._accepted.receive()
        reader = FrameReader(link)
        told = [name for name, _ in await reader.read_some(1)]
        await link.send(WELCOME_FRAME)
        if has_asked:
            told += sorted(name for name, _ in await reader.read_some(2))
        self._nursery.start_soon(_let_go, link)
        return differences(
            ("the client came back with", told, ["hello", "deliver", "subscribe"] if has_asked else ["hello"]),
            ("it was told that these are lost:", sorted(asking.lost), ["ask", "rows"] if has_asked else []),
        )


async def _expect_given_up(client: pyipc.Client) -> list[str]:
    """Whether the client knows that nothing would be different the next time."""
    try:
        await client.wait_connected()
    except pyipc.ConnectionLost:
        return []
    return ["the client came back"]


async def _let_go(link: Link) -> None:
    """Read on until the client has closed."""
    with contextlib.suppress(pyipc.ConnectionLost):
        while await link.receive():
            pass
    await link.aclose()


@contextlib.asynccontextmanager
async def _hostile_server(subject: Subject) -> AsyncIterator[_HostileServer]:
    endpoint = subject.raw_server_endpoint()
    transport = endpoint.transport or transport_for(endpoint.parsed.scheme)
    listener = await transport.listen(endpoint.parsed, endpoint.listen_options)
    try:
        async with trio.open_nursery() as nursery:
            server = _HostileServer(subject, listener, nursery)
            nursery.start_soon(server.accept_all)
            yield server
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            await listener.aclose()


async def complaints(subject: Subject, chapter: Chapter) -> list[str]:
    """Try the cases of a chapter at clients, and say what came out otherwise than it should."""
    async with _hostile_server(subject) as server:
        return await try_each(server.check, chapter.cases)
