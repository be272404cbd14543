"""What a server's handlers get as ``socket``."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

import pyipc

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Socket"]

logger: logging.Logger = logging.getLogger("pyipc.node_ipc")

_NETWORK: Final = frozenset({"tcp", "tls", "udp"})


class Socket:
    """A client, as its server sees it.

    Attributes:
        id: The last ``id`` that the client put into the data of a message, if it was a number, or text of at most 256
            characters. It is a label and proves nothing: for who the client is, ask `peer`.
        connection: The connection below.
    """

    __slots__ = ("_start", "connection", "id")

    def __init__(self, connection: pyipc.Connection, start: Callable[..., None]) -> None:
        self._start = start
        self.connection: pyipc.Connection = connection
        self.id: Any = None

    def __repr__(self) -> str:
        return f"<Socket {self.peer.address}{'' if self.id is None else f' id={self.id!r}'}>"

    @property
    def peer(self) -> pyipc.Peer:
        """Who the client is, as the kernel or TLS tells."""
        return self.connection.peer

    @property
    def address(self) -> str | None:
        """The client's host, on a network."""
        return self._where()[0]

    @property
    def port(self) -> int | None:
        """The client's port, on a network."""
        return self._where()[1]

    @property
    def destroyed(self) -> bool:
        """Whether the connection is closed."""
        return not self.connection.is_open

    def destroy(self) -> None:
        """Close the connection at once; what was not sent yet is lost."""
        self.connection.abort("closed", "this side closed the connection", linger=False)

    def end(self) -> None:
        """Close the connection once everything is sent."""
        self._start(self._end)

    async def flush(self) -> None:
        """Wait until everything emitted to this client is with the operating system.

        Raises:
            ConnectionClosed: The connection ended meanwhile.

        Cancellation: nothing is unsent by it.
        """
        await self.connection.flush()

    async def _end(self) -> None:
        try:
            await self.connection.aclose()
        except pyipc.Undelivered as error:
            logger.warning("%s", error)

    def _where(self) -> tuple[str | None, int | None]:
        address = pyipc.parse_address(self.peer.address)
        return (address.host, address.port) if address.scheme in _NETWORK else (None, None)
