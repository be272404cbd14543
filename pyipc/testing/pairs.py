"""A client and a server joined in memory, for tests of the handlers that run on them.

Owns only the joining: everything else is the public API, so a test sees what a program would see.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NoReturn, final

import trio

import pyipc
from pyipc.testing.faulty_transport import FaultyTransport
from pyipc.transports import Transport, memory_link_pair

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from typing import Any

    from pyipc import Address, Client, Router, Server
    from pyipc.testing.faults import Faults
    from pyipc.transports import Link, Peer

__all__ = ["pair"]

_ADDRESS = "memory:pair"


@asynccontextmanager
async def pair(
    router: Router | None = None,
    *,
    client_router: Router | None = None,
    peer: Peer | None = None,
    plain_peers: bool = True,
    server_options: Mapping[str, Any] | None = None,
    client_options: Mapping[str, Any] | None = None,
    buffer_size: int = 65_536,
    faults: Faults | FaultyTransport | None = None,
) -> AsyncIterator[tuple[Client, Server]]:
    """Run a server and a client that is connected to it, for the length of an ``async with`` block.

    Nothing is opened, so many may run side by side. When the connection is lost, the client makes
    another one to the same server.

    Args:
        router: The server's handlers.
        client_router: The client's handlers.
        peer: Who the client is to the server, such as another user; this process if left out.
        plain_peers: As for `pyipc.Server`.
        server_options: Options of the server.
        client_options: Options of the client.
        buffer_size: Bytes that may be under way in each direction before a sender waits.
        faults: What happens to what the client sends; a `FaultyTransport`, of which only the
            wrapping is used, also for what it receives, and to break links at a time of your choice.

    Yields:
        The client and the server.

    Raises:
        ConnectError: The server did not let the client in.
        Undelivered: On leaving: not everything could be handed over.

    Cancellation: closes both at once.
    """
    server = pyipc.Server(router=router, plain_peers=plain_peers, **dict(server_options or {}))
    if faults is not None and not isinstance(faults, FaultyTransport):
        faults = FaultyTransport(faults)
    endpoint = pyipc.Endpoint(_ADDRESS, transport=_Joining(server, peer, buffer_size, faults))
    async with server, pyipc.connect(endpoint, router=client_router, **dict(client_options or {})) as client:
        yield client, server


@final
class _Joining(Transport):
    """Connects by handing one end of a pair to the server."""

    def __init__(self, server: Server, peer: Peer | None, buffer_size: int, faults: FaultyTransport | None) -> None:
        self._server = server
        self._peer = peer
        self._buffer_size = buffer_size
        self._faults = faults

    async def connect(self, address: Address, options: Mapping[str, object]) -> Link:
        """Join a new pair to the server.

        Raises:
            ConnectError: The server is closed.
        """
        await trio.lowlevel.checkpoint()
        ours, theirs = memory_link_pair(right=self._peer, buffer_size=self._buffer_size)
        try:
            self._server.adopt(theirs)
        except RuntimeError as error:
            await ours.aclose()
            raise pyipc.ConnectError("the server of this pair is closed") from error
        return ours if self._faults is None else self._faults.wrap(ours)

    async def listen(self, address: Address, options: Mapping[str, object]) -> NoReturn:
        """Refuse: the server of a pair listens nowhere.

        Raises:
            AddressError: Always.
        """
        raise pyipc.AddressError(f"{address} joins one client to one server; nobody else can listen there")
