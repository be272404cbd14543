"""Calling a peer from the very socket that a server listens on, as only datagrams allow."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from pyipc.errors import AddressError, ConnectError, PeerNotAllowed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyipc.accepting import Acceptor
    from pyipc.broadcasting import Audience
    from pyipc.connection import Connection
    from pyipc.endpoint import Endpoint
    from pyipc.protocol.addresses import Address
    from pyipc.transports.port import Link, Listener

__all__ = ["call"]


async def call(address: Address, acceptor: Acceptor, audience: Audience, endpoints: Sequence[Endpoint]) -> Connection:
    """Open a connection to a peer, or find the one that there is; see `Server.dial`.

    Args:
        address: Of the peer.
        acceptor: Listens, and knows who may be here.
        audience: The connections that there are.
        endpoints: Where it listens.

    Raises:
        AddressError, PeerNotAllowed, ConnectError, ConnectionClosed: As `Server.dial`.

    Cancellation: no connection is opened.
    """
    refusal = AddressError(f"this server listens on no {address.scheme} address, so it cannot call {address} from one")
    for listener, endpoint in zip(acceptor.listeners, endpoints, strict=False):
        if listener.address.scheme == address.scheme:
            there = dataclasses.replace(endpoint, address=address)  # raises where nobody said that it may leave here
            try:
                return await _call_from(listener, address, there, acceptor, audience)
            except AddressError as error:
                refusal = error
    raise refusal


async def _call_from(
    listener: Listener, address: Address, endpoint: Endpoint, acceptor: Acceptor, audience: Audience
) -> Connection:
    while True:
        link = await listener.dial(address)
        connection = audience.find(link)
        if connection is None:
            return await _called(link, endpoint, acceptor, audience)
        if connection.is_open and not connection._vigil.awaits_hello:
            return connection
        # It is about to end, or the peer was to introduce itself first, which nobody asks of whom we call.
        if connection.is_open:
            connection.abort("closed", "this side calls the peer")
        await connection.wait_lost()
        await link.aclose()


async def _called(link: Link, endpoint: Endpoint, acceptor: Acceptor, audience: Audience) -> Connection:
    try:
        admitted = acceptor.admit(link, endpoint)
    except PeerNotAllowed:
        await link.aclose()
        raise
    connection = audience.find(link)
    if not admitted or connection is None:
        await link.aclose()
        raise ConnectError(f"the server has too many connections to call {link.peer.address} as well")
    return connection
