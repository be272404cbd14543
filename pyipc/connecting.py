"""Being a client for the length of a block."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Unpack

from pyipc.client import Client
from pyipc.endpoint import as_endpoint
from pyipc.errors import Undelivered
from pyipc.nursery import hidden_nursery
from pyipc.options import OptionOverrides, Options
from pyipc.watch import Watch
from pyipc.watched_client import WatchedClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from pyipc.connection import Connection
    from pyipc.endpoint import Endpoint
    from pyipc.errors import IPCError
    from pyipc.instrument import Instrument
    from pyipc.protocol.addresses import Address
    from pyipc.router import Router
    from pyipc.statistics import Disconnected

__all__ = ["connect"]

logger: logging.Logger = logging.getLogger("pyipc.client")


@asynccontextmanager
async def connect(
    address: str | Address | Endpoint,
    *others: str | Address | Endpoint,
    router: Router | None = None,
    wait: bool = True,
    on_connect: Callable[[Connection], object] | None = None,
    on_disconnect: Callable[[Disconnected], object] | None = None,
    on_failed_connect: Callable[[IPCError], object] | None = None,
    instrument: Instrument | None = None,
    **options: Unpack[OptionOverrides],
) -> AsyncIterator[Client]:
    """Connect to a server, for the length of an ``async with`` block.

    The connection is made again whenever it is lost. Leaving the block sends what is queued, says
    goodbye and closes; a cancelled block closes at once.

    Args:
        address: Where the server is: an address, or a `pyipc.Endpoint` for one with options of its own.
        *others: Where else it may be. The client uses whichever answers and stays there while it works; it goes on
            to the next when nobody is there, or when the server asks for that (`Server.drain`). All must be of one
            framing, and all for streams or all for datagrams.
        router: Handlers for what the server sends; handlers added to the client later may miss
            what came before.
        wait: Wait until the server is there, up to the option ``connect_timeout``. With ``False``
            the block is entered at once, and what is emitted meanwhile is queued.
        on_connect: Called, plain or async, with every new connection before its messages are handled.
        on_disconnect: Called, plain or async, with the reason when a connection has ended.
        on_failed_connect: Called, plain or async, with the error of every attempt to connect that failed.
        instrument: Is told what the client does, for metrics and traces.
        **options: Any of `pyipc.Options`.

    Yields:
        The client.

    Raises:
        AddressError: The address is wrong, or cannot be used on this system.
        ValueError: An option is out of range, or the addresses do not go together.
        ConnectError: Nobody was there in time, or somebody who is not allowed.
        Undelivered: On leaving: not everything could be handed to the server.

    Cancellation: closes at once.
    """
    endpoints = [as_endpoint(each) for each in (address, *others)]
    if instrument is None:
        client = Client(endpoints, router, Options.of(options))
    else:
        client = WatchedClient(endpoints, router, Options.of(options), Watch(instrument))
    if on_connect is not None:
        client.on_connect(on_connect)
    if on_disconnect is not None:
        client.on_disconnect(on_disconnect)
    if on_failed_connect is not None:
        client.on_failed_connect(on_failed_connect)
    async with hidden_nursery() as nursery:
        client._start(nursery)
        if wait:
            await client.wait_connected()
        try:
            yield client
        except Exception:
            try:
                await client.aclose()
            except Undelivered as undelivered:
                logger.warning("%s", undelivered)
            raise
        await client.aclose()
