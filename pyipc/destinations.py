"""Where a client may find its server: one address or several, and which of them is tried first."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

import trio

from pyipc.errors import AddressError, ConnectError, IPCError, PeerNotAllowed
from pyipc.transports.registry import transport_for

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from pyipc.endpoint import Endpoint
    from pyipc.options import Options
    from pyipc.transports.port import Link, Transport

__all__ = ["Destinations"]

logger: logging.Logger = logging.getLogger("pyipc.client")


class Destinations:
    """The endpoints of a client, best first, and how to reach them.

    Args:
        endpoints: At least one. All of one framing, and all for streams or all for datagrams, since what waits for a
            connection is encoded before it is known which it will be.
        options: Times.
        on_failure: Awaited with the error of every attempt that failed.

    Attributes:
        max_size: How much a datagram there can hold; ``None`` for streams.

    Raises:
        ValueError: The endpoints do not go together.
    """

    def __init__(
        self, endpoints: Sequence[Endpoint], options: Options, on_failure: Callable[[IPCError], Awaitable[None]]
    ) -> None:
        self._endpoints = list(endpoints)
        self._options = options
        self._on_failure = on_failure
        framings = {endpoint.framing for endpoint in endpoints}
        sizes = {_transport(endpoint).max_chunk_size(endpoint.parsed) for endpoint in endpoints}
        if len(framings) > 1:
            raise ValueError(
                f"the addresses of one client must be of one framing, not {' and '.join(sorted(map(repr, framings)))}"
            )
        if len(sizes) > 1:
            raise ValueError(f"{self} cannot be one client's addresses: some are for streams, some for datagrams")
        self.max_size: int | None = sizes.pop()

    def __str__(self) -> str:
        return " or ".join(endpoint.parsed.redacted for endpoint in self._endpoints)

    def __len__(self) -> int:
        return len(self._endpoints)

    @property
    def first(self) -> Endpoint:
        """The one that is tried first."""
        return self._endpoints[0]

    def put_last(self, endpoint: Endpoint) -> None:
        """Try all others before this one: its server is about to go, or is of no use."""
        self._endpoints.remove(endpoint)
        self._endpoints.append(endpoint)

    async def dial(self) -> tuple[Link, Endpoint]:
        """Open a link to the first that answers; the option ``connect_timeout`` is for each of them.

        Raises:
            IPCError: None did. Of several addresses, a `ConnectError` that names them and what was wrong with each.

        Cancellation: nothing stays open.
        """
        errors: list[IPCError] = []
        for endpoint in tuple(self._endpoints):
            try:
                link = await self._dial(endpoint)
            except IPCError as error:
                logger.info("could not connect to %s: %s", endpoint.parsed.redacted, error)
                errors.append(error)
                await self._on_failure(error)
            else:
                self._endpoints.remove(endpoint)
                self._endpoints.insert(0, endpoint)  # what works is kept to
                return link, endpoint
        if len(errors) == 1:
            raise errors[0]
        kind = AddressError if all(isinstance(error, AddressError) for error in errors) else ConnectError
        raise kind(f"none of {len(errors)} addresses answers: {'; '.join(map(str, errors))}") from errors[-1]

    async def _dial(self, endpoint: Endpoint) -> Link:
        timeout = self._options.connect_timeout
        with trio.move_on_after(math.inf if timeout is None else timeout):
            link = await _transport(endpoint).connect(endpoint.parsed, endpoint.connect_options)
            try:
                endpoint.admit(link.peer)
            except PeerNotAllowed:
                await link.aclose()
                raise
            return link
        raise ConnectError(f"no answer from {endpoint.parsed.redacted} within {timeout:g} s (connect_timeout)")


def _transport(endpoint: Endpoint) -> Transport:
    return endpoint.transport or transport_for(endpoint.parsed.scheme)
