"""Talking to other workers, without the primary in between: it makes the connection, and has no part in what is said.

A worker serves the others by the same handlers as its primary. To each of them that it wants to talk to it is a client.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import logging
import socket
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar, final, overload

import trio

import pyipc
from pyipc.cluster import control
from pyipc.cluster.errors import UnknownWorker
from pyipc.cluster.links import Links
from pyipc.nursery import hidden_nursery
from pyipc.transports import Peer, SocketLink, Transport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping
    from contextlib import AbstractAsyncContextManager

    from pyipc.cluster.courier import Carrier, Header
    from pyipc.cluster.job import Attachment
    from pyipc.transports import Link

__all__ = ["Colleague", "Linking", "WorkerPeer"]

logger: logging.Logger = logging.getLogger("pyipc.cluster")

T = TypeVar("T")

# Nobody but the primary can bring anybody here.
_MANY: Final = 1_000_000


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPeer(Peer):
    """Another worker, as the primary tells.

    Attributes:
        worker: Its id.
    """

    worker: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class _Target:
    """Whom to talk to: a worker by its id, or by its role; the primary if both are ``None``."""

    id: str | None = None
    role: str | None = None

    def __str__(self) -> str:
        if self.role is not None:
            return f"a worker of the role {self.role!r}"
        return "the primary" if self.id is None else f"worker {self.id!r}"


def _named(id: str | None, role: str | None) -> _Target:
    """A worker that a program has named.

    Raises:
        TypeError: It has not, or has twice.
    """
    if (id is None) == (role is None):
        raise TypeError("say which worker, by its id or by role=, and not by both")
    return _Target(id, role)


class Linking(Links):
    """The connections of this worker with others, which its primary makes.

    Args:
        primary: The client by which this worker is ruled.
        router: Handlers for what others send.
        options: For all connections.
    """

    def __init__(self, primary: pyipc.Client, router: pyipc.Router, options: Mapping[str, Any]) -> None:
        self._primary = primary
        self._options = dict(options)
        self._numbers = itertools.count(1)
        self._awaited: dict[int, _Awaited] = {}
        limits = {"max_connections": _MANY, "max_connections_per_peer": _MANY}
        self._server = pyipc.Server(router=router, plain_peers=False, **self._options | limits)
        self._colleagues: dict[_Target, Colleague] = {}
        self._nursery: trio.Nursery | None = None

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve other workers, for the length of a block. In the end what is queued for them is sent."""
        async with contextlib.AsyncExitStack() as servers:
            with pyipc.hosted_by(None):  # it is no server of the program
                await servers.enter_async_context(self._server)
            async with hidden_nursery() as self._nursery:
                try:
                    yield
                finally:
                    for colleague in list(self._colleagues.values()):
                        await colleague.aclose()

    async def drain(self) -> None:
        """Have others take new work elsewhere, and wait until what is under way has come to its end.

        Cancellation: the drain goes on.
        """
        await self._server.drain(None, "this worker is about to leave")

    # --- what the primary hands over ---

    def take(self, header: Header, carrier: Carrier | None) -> None:
        """One end of a connection with another worker has arrived."""
        sock = carrier if isinstance(carrier, socket.socket) else None
        # If it does not hear of it, the primary keeps its copy until this process ends.
        with contextlib.suppress(trio.WouldBlock, pyipc.ConnectionClosed):
            self._primary.emit_nowait(control.LINKED, header.get("token"))
        match header:
            case {"link": str(worker), "pid": int(pid)} if sock is not None:
                link = SocketLink(sock, WorkerPeer(address=f"worker {worker}", pid=pid, worker=worker))
                try:
                    self._server.adopt(link)
                except RuntimeError:
                    sock.close()  # this worker is about to leave, and the other one asks again
            case {"linked": str(worker), "pid": int(pid), "number": int(number)} if number in self._awaited:
                self._awaited[number].arrive(sock, WorkerPeer(address=f"worker {worker}", pid=pid, worker=worker))
            case _ if sock is not None:
                sock.close()  # whoever has asked for it waits no longer
            case _:
                logger.warning("another worker cannot talk to this one: this process has no descriptors left")

    # --- being a client ---

    def connect(
        self, id: str | None, role: str | None, router: pyipc.Router | None, options: Mapping[str, Any]
    ) -> contextlib.AbstractAsyncContextManager[pyipc.Client]:
        """A client of another worker; see `Worker.connect`."""
        chosen = self._options | {"reconnect": True, "offline": "queue", "connect_timeout": None} | dict(options)
        return self._connect(_named(id, role), router, chosen)

    def _connect(
        self, target: _Target, router: pyipc.Router | None, options: Mapping[str, Any]
    ) -> contextlib.AbstractAsyncContextManager[pyipc.Client]:
        endpoint = pyipc.Endpoint("memory:worker", transport=_ThroughPrimary(self, target))
        return pyipc.connect(endpoint, router=router, **options)

    def to(self, id: str | None, role: str | None) -> Colleague:
        """Another worker, to be talked to now and then; see `Worker.to`."""
        return self._colleague(_named(id, role), functools.partial(self.connect, id, role, None, {}))

    def to_primary(self, router: pyipc.Router, options: Mapping[str, Any]) -> Colleague:
        """The primary, over a connection of its own for what servers say; see `pyipc.cluster.exchange`."""
        target = _Target()
        return self._colleague(target, functools.partial(self._connect, target, router, options))

    def _colleague(
        self, target: _Target, connect: Callable[[], contextlib.AbstractAsyncContextManager[pyipc.Client]]
    ) -> Colleague:
        colleague = self._colleagues.get(target)
        if colleague is None:
            if self._nursery is None:
                raise RuntimeError("other workers can be talked to inside the block of `join` alone")
            colleague = self._colleagues[target] = Colleague(str(target), connect, self._nursery)
        return colleague

    async def make(self, target: _Target) -> Link:
        """Have the primary make a connection.

        Raises:
            UnknownWorker: There is no such worker.
            ConnectionLost: It has ended just now, or the primary is gone.

        Cancellation: no connection is made, or it is closed.
        """
        number = next(self._numbers)
        awaited = self._awaited[number] = _Awaited()
        try:
            wanted = {"id": target.id, "role": target.role, "number": number}
            await self._primary.request(control.LINK, wanted)
            return await awaited.link()
        except pyipc.RemoteError as error:
            if error.code == control.UNKNOWN_WORKER:
                raise UnknownWorker(str(error.data), error.message) from None
            raise pyipc.ConnectionLost(error.message) from error
        finally:
            del self._awaited[number]
            awaited.close()


class _Awaited:
    """An end of a connection that is to arrive."""

    def __init__(self) -> None:
        self._arrived = trio.Event()
        self._socket: socket.socket | None = None

    def arrive(self, sock: socket.socket | None, peer: WorkerPeer) -> None:
        self._socket = sock
        self._peer = peer
        self._arrived.set()

    async def link(self) -> Link:
        await self._arrived.wait()
        sock, self._socket = self._socket, None
        if sock is None:
            raise pyipc.ConnectionLost("this process has no descriptors left for a connection with another worker")
        return SocketLink(sock, self._peer)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()


class Colleague:
    """Another worker, to be talked to now and then. Made by `Worker.to`.

    The connection is made when it is first needed, and kept until the end of this worker. While the other one is being
    replaced or started again, what is to be sent to it waits; if it has left for good, that is `UnknownWorker`.

    Args:
        name: Who it is, for people.
        connect: Makes a client of it.
        nursery: Where that is kept.
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[], contextlib.AbstractAsyncContextManager[pyipc.Client]],
        nursery: trio.Nursery,
    ) -> None:
        self._name = name
        self._connect = connect
        self._nursery = nursery
        self._opening = trio.Lock()
        self._client: pyipc.Client | None = None
        self._closing = trio.Event()
        self._closed = trio.Event()

    def __repr__(self) -> str:
        state = "connected" if self._client is not None and self._client.connected else "not connected"
        return f"<Colleague {self._name}, {state}>"

    async def send(self, data: object) -> None:
        """Send it something, for its handlers of ``message``; see `emit`.

        Cancellation: a cancelled send has sent nothing.
        """
        await self.emit("message", data)

    async def emit(
        self,
        event: str,
        data: object = None,
        *,
        attachments: Iterable[Attachment] = (),
        confirm: bool = False,
        timeout: float | None = None,
        traceparent: str = "",
    ) -> None:
        """Send it an event, for its handlers. See `pyipc.Client.emit`.

        Raises:
            UnknownWorker: It is not there, and will not be.
            LocalProtocolError: The event cannot be sent.

        Cancellation: a cancelled emit has sent nothing, unless it was waiting to be confirmed.
        """
        client = await self.client()
        if not (attachments or confirm or traceparent):  # which costs less
            await client.emit(event, data)
            return
        await client.emit(
            event, data, attachments=list(attachments), confirm=confirm, timeout=timeout, traceparent=traceparent
        )

    @overload
    async def request(
        self,
        event: str,
        data: object = None,
        *,
        attachments: Iterable[Attachment] = (),
        timeout: float | None = None,
        idempotent: bool = False,
        traceparent: str = "",
    ) -> Any: ...

    @overload
    async def request(
        self,
        event: str,
        data: object = None,
        *,
        attachments: Iterable[Attachment] = (),
        timeout: float | None = None,
        idempotent: bool = False,
        result: type[T],
        traceparent: str = "",
    ) -> T: ...

    async def request(
        self,
        event: str,
        data: object = None,
        *,
        attachments: Iterable[Attachment] = (),
        timeout: float | None = None,
        idempotent: bool = False,
        result: Any = None,
        traceparent: str = "",
    ) -> Any:
        """Ask it something. See `pyipc.Client.request`.

        Raises:
            UnknownWorker: It is not there, and will not be.
            RequestError: It was not answered with a result.
            ConnectionLost: Its process ended; ``maybe_handled`` says whether it may have acted.
            LocalProtocolError: The request cannot be sent.

        Cancellation: the worker is told, and cancels its handler.
        """
        client = await self.client()
        return await client.request(
            event,
            data,
            attachments=list(attachments),
            timeout=timeout,
            idempotent=idempotent,
            result=result,
            traceparent=traceparent,
        )

    @overload
    def stream(
        self,
        event: str,
        data: object = None,
        *,
        attachments: Iterable[Attachment] = (),
        timeout: float | None = None,
        traceparent: str = "",
    ) -> AbstractAsyncContextManager[pyipc.Stream[Any]]: ...

    @overload
    def stream(
        self,
        event: str,
        data: object = None,
        *,
        attachments: Iterable[Attachment] = (),
        timeout: float | None = None,
        result: type[T],
        traceparent: str = "",
    ) -> AbstractAsyncContextManager[pyipc.Stream[T]]: ...

    def stream(
        self,
        event: str,
        data: object = None,
        *,
        attachments: Iterable[Attachment] = (),
        timeout: float | None = None,
        result: Any = None,
        traceparent: str = "",
    ) -> AbstractAsyncContextManager[pyipc.Stream[Any]]:
        """Ask it for a stream. See `pyipc.Client.stream`.

        Raises:
            UnknownWorker: It is not there, and will not be.
        """
        return self._stream(
            event,
            data,
            {"attachments": list(attachments), "timeout": timeout, "result": result, "traceparent": traceparent},
        )

    @contextlib.asynccontextmanager
    async def _stream(self, event: str, data: object, how: dict[str, Any]) -> AsyncIterator[pyipc.Stream[Any]]:
        async with (await self.client()).stream(event, data, **how) as stream:
            yield stream

    async def client(self) -> pyipc.Client:
        """The client, once it is connected.

        Raises:
            UnknownWorker: The worker is not there, and will not be.

        Cancellation: changes nothing.
        """
        if self._client is not None and self._client.connected:
            return self._client
        async with self._opening:
            if self._client is not None:
                try:
                    await self._client.wait_connected()
                except pyipc.AddressError:
                    await self.aclose()  # it had left for good; there may be another of its name by now
            if self._client is None:
                self._closing, self._closed = trio.Event(), trio.Event()
                self._client = await self._nursery.start(self._keep)
            return self._client

    async def _keep(self, *, task_status: trio.TaskStatus[pyipc.Client]) -> None:
        closed, is_open = self._closed, False
        try:
            async with self._connect() as client:
                is_open = True
                task_status.started(client)
                await self._closing.wait()
        except pyipc.IPCError as error:
            if not is_open:
                raise
            logger.warning("%s: %s", self._name, error)
        finally:
            closed.set()

    async def aclose(self) -> None:
        """Send what is queued, and close the connection, until it is needed again.

        Cancellation: it is closed all the same.
        """
        if self._client is None:
            await trio.lowlevel.checkpoint()
            return
        self._client = None
        self._closing.set()
        await self._closed.wait()


@final
class _ThroughPrimary(Transport):
    """Connects by asking the primary."""

    def __init__(self, linking: Linking, target: _Target) -> None:
        self._linking = linking
        self._target = target

    async def connect(self, address: pyipc.Address, options: Mapping[str, object]) -> Link:
        """Have the primary make a connection.

        Raises:
            UnknownWorker: There is no such worker.
            ConnectionLost: It has ended just now, or the primary is gone.

        Cancellation: no connection is made, or it is closed.
        """
        return await self._linking.make(self._target)

    async def listen(self, address: pyipc.Address, options: Mapping[str, object]) -> NoReturn:
        """Refuse: others are brought by the primary.

        Raises:
            AddressError: Always.

        Cancellation: it is refused before anything is waited for.
        """
        raise pyipc.AddressError("other workers are brought by the primary; nobody can listen for them")
