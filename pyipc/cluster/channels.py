"""The connections between a primary and a worker process, as links.

Owns nothing but the joining: both ends are sockets that are there already, and neither can be opened anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn, final

import trio

import pyipc
from pyipc.transports import Peer, SocketLink, Transport

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from pyipc.transports import Link

__all__ = ["GivenLink", "given_endpoint", "socket_link"]


def socket_link(sock: socket.socket, name: str, pid: int | None = None) -> SocketLink:
    """A link over one end of a socket pair.

    Args:
        sock: The end; it belongs to the link from here on.
        name: Who is at the other end, for people.
        pid: Its process id, if it is known.
    """
    return SocketLink(sock, Peer(address=name, pid=pid))


@final
class GivenLink(Transport):
    """Connects by handing out the one link that there is.

    Args:
        link: The link.
    """

    def __init__(self, link: Link) -> None:
        self._link: Link | None = link

    async def connect(self, address: pyipc.Address, options: Mapping[str, object]) -> Link:
        """Hand it out.

        Raises:
            AddressError: It was handed out already.

        Cancellation: it is not handed out.
        """
        await trio.lowlevel.checkpoint()
        if self._link is None:
            raise pyipc.AddressError(f"the connection to {address} cannot be made a second time")
        link, self._link = self._link, None
        return link

    async def listen(self, address: pyipc.Address, options: Mapping[str, object]) -> NoReturn:
        """Refuse: there is nobody to wait for.

        Raises:
            AddressError: Always.

        Cancellation: it is refused before anything is waited for.
        """
        raise pyipc.AddressError(f"{address} is one connection, on which nobody can listen")


def given_endpoint(name: str, link: Link, *, hello: bool = True) -> pyipc.Endpoint:
    """An endpoint for a client that is to talk over a link.

    Args:
        name: Who is at the other end, as a name in an address.
        link: The link.
        hello: Whether to introduce this side.
    """
    return pyipc.Endpoint(f"memory:{name}", transport=GivenLink(link), hello=hello)
