"""The transport of ``tls`` addresses.

Owns joining sockets, settings and links. Must not know how TLS is spoken, which is for `tls_link`.

`client_link` and `server_link` are for sockets that come from elsewhere, such as inherited ones.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from pyipc.errors import AddressError, ConnectError
from pyipc.transports.claims import ClaimListener, SocketClaim, socket_adopter
from pyipc.transports.port import Transport
from pyipc.transports.sockets import SHORTAGE, refuse_unknown_options
from pyipc.transports.tcp import claim_host, dial, peer_of, tune
from pyipc.transports.tls_link import TlsLink
from pyipc.transports.tls_settings import TLS, check_tls, client_context, server_context

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping

    from pyipc.protocol.addresses import Address
    from pyipc.transports.port import Carrier, Link, Listener, Peer
    from pyipc.transports.tls_settings import AnyTLS

__all__ = ["TlsTransport", "client_link", "server_link"]


class TlsTransport(Transport):
    """Reaches and listens on ``tls://host:port``."""

    def __init__(self) -> None:
        self._default = TLS()

    async def connect(self, address: Address, options: Mapping[str, object]) -> Link:
        """Connect to the first address of the host that answers, and shake hands.

        Options: ``tls``; by default the authorities that this system trusts, and no certificate of our own.

        Raises:
            ConnectError: The host is unknown or nobody answered; the operating system's error is the cause.
            HandshakeFailed: The server is not who it should be, refused us, or does not speak TLS.
            AddressError: The settings are not for clients.
            TypeError: An option does not exist, or has a wrong value.

        Cancellation: nothing stays open.
        """
        refuse_unknown_options(options, ("tls",), f"connecting to {address}")
        tls = _tls_of(options) or self._default
        try:
            client_context(tls)
        except ValueError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno in SHORTAGE:
                raise ConnectError(f"cannot connect to {address} for now: {error}") from error
            raise AddressError(f"{address}: {error}") from error
        sock = await dial(address)
        try:
            peer = peer_of(sock, address.scheme)
        except OSError as error:
            sock.close()
            raise ConnectError(f"the connection to {address} broke at once: {error.strerror}; try again") from error
        return await client_link(sock, peer, tls, address.host)

    async def listen(self, address: Address, options: Mapping[str, object]) -> Listener:
        """Listen on every address of the host, with the same port on all of them.

        Options: ``tls``, with a certificate.

        Raises:
            AddressInUse, ListenError: As `claim`.
            AddressError, TypeError: As `adopter`.

        Cancellation: nothing stays open.
        """
        adopt = self.adopter(address, options)
        return ClaimListener(await self.claim(address, options), adopt)

    async def claim(self, address: Address, options: Mapping[str, object]) -> SocketClaim:
        """Take every address of the host, with the same port on all of them.

        Options: ``tls``, which does nothing here: certificates are for whoever makes the links.

        Raises:
            AddressInUse: Another program listens there.
            ListenError: The host is unknown, is not this machine, or the port is not for us.
            TypeError: An option does not exist, or has a wrong value.

        Cancellation: nothing stays open.
        """
        refuse_unknown_options(options, ("tls",), f"listening on {address}")
        _tls_of(options)
        return await claim_host(address)

    def adopter(self, address: Address, options: Mapping[str, object]) -> Callable[[Carrier], Link]:
        """How links are made of sockets that were accepted on ``address``; their handshake is still to do.

        Options: ``tls``, with a certificate.

        Raises:
            AddressError: There is no certificate to show, or the settings are not for servers.
            TypeError: An option does not exist, or has a wrong value.
        """
        refuse_unknown_options(options, ("tls",), f"listening on {address}")
        tls = _tls_of(options) or self._default
        try:
            server_context(tls)
        except ValueError as error:
            raise AddressError(f"{address}: {error}") from error
        return socket_adopter(functools.partial(_adopt, tls=tls), address)


async def client_link(sock: socket.socket, peer: Peer, tls: AnyTLS, host: str) -> TlsLink:
    """Make a link of a connected socket, as its client, and shake hands.

    Args:
        sock: The socket. It is closed if this fails.
        peer: Who is on the other side, as far as is known without TLS.
        tls: What to show, and whom to trust.
        host: The name or the IP address that the server's certificate must be for.

    Raises:
        HandshakeFailed: The server is not who it should be, refused us, or does not speak TLS.
        ValueError: The settings cannot be used by a client.

    Cancellation: the socket is closed.
    """
    try:
        link = TlsLink(sock, peer, client_context(tls), host)
        await link.handshake()
    except BaseException:
        sock.close()
        raise
    return link


def server_link(sock: socket.socket, peer: Peer, tls: AnyTLS) -> TlsLink:
    """Make a link of a socket that was accepted, or inherited connected, as its server; the handshake is still to do.

    Args:
        sock: The socket. The link owns it, unless this fails.
        peer: Who is on the other side, as far as is known without TLS.
        tls: What to show, and which certificates to ask for.

    Raises:
        ValueError: The settings cannot be used by a server.
    """
    return TlsLink(sock, peer, server_context(tls))


def _adopt(sock: socket.socket, tls: AnyTLS) -> Link:
    tune(sock)
    return server_link(sock, peer_of(sock, "tls"), tls)


def _tls_of(options: Mapping[str, object]) -> AnyTLS | None:
    tls: Any = options.get("tls")
    if tls is not None:
        check_tls(tls)
    return tls  # type: ignore[no-any-return]
