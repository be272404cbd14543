"""Two sides of one real connection, over any transport and in either role."""

from __future__ import annotations

import dataclasses
import random
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import trio

import pyipc
from pyipc.nursery import hidden_nursery
from pyipc.transports import Link, Listener, Transport, transport_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.conformance.subjects import Subject


class Closable(Protocol):
    async def aclose(self) -> None: ...


T = TypeVar("T", bound=Closable)


@dataclasses.dataclass
class Side:
    """One end: its router, its connection, why that ended."""

    router: pyipc.Router
    connection: Any = None
    ended: list[pyipc.Disconnected] = dataclasses.field(default_factory=list)

    def begin(self, connection: pyipc.Connection) -> None:
        self.connection = connection

    @property
    def conn(self) -> pyipc.Connection:
        assert isinstance(self.connection, pyipc.Connection)
        return self.connection


@dataclasses.dataclass
class Wire:
    """What a test gets.

    ``ours`` and ``theirs`` are the two sides; the parameter ``role`` says which of them is the
    client, so every test runs from both ends.
    """

    ours: Side
    theirs: Side
    client: pyipc.Client
    server: pyipc.Server


@dataclasses.dataclass
class RawWire:
    """One side of ours and a bare link to it; ``again`` makes another link."""

    ours: Side
    link: Link
    again: Callable[[], Awaitable[Link]]


@dataclasses.dataclass
class Stage:
    """Opens wires of one transport, with this side in one role."""

    subject: Subject
    role: str

    @asynccontextmanager
    async def open(
        self,
        ours: pyipc.Router | None = None,
        theirs: pyipc.Router | None = None,
        *,
        our_options: dict[str, Any] | None = None,
        their_options: dict[str, Any] | None = None,
        **both: Any,
    ) -> AsyncIterator[Wire]:
        """A server and a client, connected and introduced; closed at the end of the block."""
        our, their = Side(ours or pyipc.Router()), Side(theirs or pyipc.Router())
        our_all, their_all = {**both, **(our_options or {})}, {**both, **(their_options or {})}
        client_side, client_options = (our, our_all) if self.role == "client" else (their, their_all)
        server_side, server_options = (their, their_all) if self.role == "client" else (our, our_all)
        client_side.router.on("conformance.ready", lambda message: True)
        server_side.router.on("conformance.ready", lambda message: True)
        server = pyipc.Server(self.subject.server_endpoint(), router=server_side.router, **server_options)
        server.on_connect(server_side.begin)
        server.on_disconnect(server_side.ended.append)
        async with (
            server,
            pyipc.connect(
                self.subject.client_endpoint(server.addresses[0]),
                router=client_side.router,
                on_connect=client_side.begin,
                on_disconnect=client_side.ended.append,
                **client_options,
            ) as client,
        ):
            # One request proves that both sides have introduced themselves.
            await client.request("conformance.ready")
            yield Wire(our, their, client, server)

    @asynccontextmanager
    async def open_raw(self, router: pyipc.Router, **options: Any) -> AsyncIterator[RawWire]:
        """This side, and a link in the hands of the test where the other would be."""
        side = Side(router)
        if self.role == "server":
            server = pyipc.Server(self.subject.server_endpoint(), router=router, **options)
            server.on_connect(side.begin)
            server.on_disconnect(side.ended.append)
            async with server:
                dial = partial(dial_link, self.subject.client_endpoint(server.addresses[0]))
                async with _closing(await dial()) as link:
                    yield RawWire(side, link, dial)
            return
        endpoint = self.subject.raw_server_endpoint()
        listener = await _transport(endpoint).listen(endpoint.parsed, endpoint.listen_options)
        async with _closing(listener), hidden_nursery() as nursery:
            accepted, links = trio.open_memory_channel[Link](1)

            async def accept_one() -> None:
                await accepted.send(await _accept(listener))

            # Beside the client, which does not get in before a handshake is answered.
            nursery.start_soon(accept_one)
            async with (
                pyipc.connect(
                    self.subject.client_endpoint(listener.address),
                    router=router,
                    on_connect=side.begin,
                    on_disconnect=side.ended.append,
                    **options,
                ),
                _closing(await links.receive()) as link,
            ):
                yield RawWire(side, link, partial(_accept, listener))


@asynccontextmanager
async def open_listener(subject: Subject) -> AsyncIterator[tuple[Listener, Callable[[], Awaitable[Link]]]]:
    """Listens, without a server; the second makes links to there."""
    endpoint = subject.server_endpoint()
    listener = await _transport(endpoint).listen(endpoint.parsed, endpoint.listen_options)
    async with _closing(listener):
        yield listener, partial(dial_link, subject.client_endpoint(listener.address))


@asynccontextmanager
async def open_pairs(subject: Subject) -> AsyncIterator[Callable[[], Awaitable[tuple[Link, Link]]]]:
    """Makes pairs of links that are joined to each other: the client's, and the server's."""
    async with open_listener(subject) as (listener, dial):

        async def make() -> tuple[Link, Link]:
            accepted: list[Link] = []

            async def accept_one() -> None:
                accepted.append(await greet(await listener.accept()))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(accept_one)
                dialed = await dial()
            return dialed, accepted[0]

        yield make


def _transport(endpoint: pyipc.Endpoint) -> Transport:
    return endpoint.transport or transport_for(endpoint.parsed.scheme)


async def dial_link(endpoint: pyipc.Endpoint) -> Link:
    return await _transport(endpoint).connect(endpoint.parsed, endpoint.connect_options)


async def _accept(listener: Listener) -> Link:
    return await greet(await listener.accept())


async def greet(link: Link) -> Link:
    """Do the handshake of a link that a listener handed out, if it needs one."""
    if link.needs_handshake:
        await link.handshake()
    return link


@asynccontextmanager
async def _closing(resource: T) -> AsyncIterator[T]:
    try:
        yield resource
    finally:
        with trio.CancelScope(shield=True):
            await resource.aclose()


_CHANCE = random.Random(1)


def noise(size: int) -> str:
    """Text that no transport can make much smaller, so that it fills what is to be filled."""
    return _CHANCE.randbytes(size // 2).hex()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that another task or process will make true; bounded by the test's own bound."""
    while not condition():  # noqa: ASYNC110 - what makes it true has no event to wait for
        await trio.sleep(0.002)


async def until_quiet(count: Callable[[], int]) -> None:
    """Wait until a number above 0 has not changed for a while: no more of it is under way in the kernel."""
    seen = unchanged = 0
    while seen == 0 or unchanged < 20:
        await trio.sleep(0.002)
        unchanged = unchanged + 1 if count() == seen else 0
        seen = count()


class _CancelAtStep(trio.abc.Instrument):
    """Cancels a scope when a task is about to take its n-th step."""

    def __init__(self, task: trio.lowlevel.Task, step: int, scope: trio.CancelScope) -> None:
        self.task, self.step, self.scope = task, step, scope

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.step -= 1
            if self.step == 0:
                self.scope.cancel()


async def cancelled_at(step: int, call: Callable[[], Awaitable[object]]) -> bool:
    """Make a call and cancel it after so many of its steps; say whether it was cancelled."""
    with trio.CancelScope() as scope:
        if step == 0:
            scope.cancel()
        instrument = _CancelAtStep(trio.lowlevel.current_task(), step, scope)
        trio.lowlevel.add_instrument(instrument)
        try:
            await call()
        finally:
            trio.lowlevel.remove_instrument(instrument)
    return scope.cancelled_caught
