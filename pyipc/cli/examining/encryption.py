"""What ``pyipc doctor`` finds out about TLS: what was agreed on, and the certificate, whether or not it can be trusted.

The library connects only where everything can be verified, and says what could not. Here the certificate itself is
shown, so nothing is verified: one connection, on which nothing is sent once its handshake is done.
"""

from __future__ import annotations

import contextlib
import datetime
from typing import TYPE_CHECKING, Final

import trio

from pyipc.cli.examining.findings import Finding, ok, problem, warning

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    import pyipc

__all__ = ["examine_encryption"]

_ALPN: Final = "pyipc/1"


async def examine_encryption(address: pyipc.Address, arguments: argparse.Namespace, timeout: float) -> list[Finding]:
    """Shake hands with a server, and see what it shows; no findings if that cannot be done, which a visit explains.

    Args:
        address: Where it is.
        arguments: With ``--cert`` and ``--key``, which are shown to a server that wants a certificate.
        timeout: Seconds that it may take.

    Cancellation: leaves at once.
    """
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([_ALPN])
    if arguments.cert is not None:
        context.load_cert_chain(arguments.cert, arguments.key)
    with trio.move_on_after(timeout), contextlib.suppress(OSError, trio.BrokenResourceError):
        stream = await trio.open_tcp_stream(address.host, address.port)
        # Closing it says goodbye, so that the server has nothing to complain of.
        async with trio.SSLStream(stream, context, server_hostname=address.host) as encrypted:
            await encrypted.do_handshake()
            return [_agreement(encrypted), *_certificate(encrypted)]
    return []


def _agreement(stream: trio.SSLStream[trio.SocketStream]) -> Finding:
    version, cipher, alpn = stream.version(), stream.cipher(), stream.selected_alpn_protocol()
    name = "no cipher" if cipher is None else cipher[0]
    spoken = f"it agrees on {alpn}" if alpn else f"it does not know {_ALPN} by name (ALPN), which is no matter"
    return ok("tls", f"{version} with {name}; {spoken}", version=version, cipher=name, alpn=alpn)


def _certificate(stream: trio.SSLStream[trio.SocketStream]) -> Iterator[Finding]:
    # Takes a while to load, and only this needs it.
    from cryptography import x509

    from pyipc.cli.certificates.describing import State, describe

    encoded = stream.getpeercert(binary_form=True)
    if not encoded:
        return
    try:
        description = describe(x509.load_der_x509_certificate(encoded))
    except ValueError as error:
        yield problem("certificate", f"its certificate is malformed: {error}", "make a new one")
        return
    now = datetime.datetime.now(datetime.UTC)
    names = ", ".join(description.names) or "no name at all"
    state = description.state(now)
    make = ok if state is State.VALID else warning if state is State.EXPIRING else problem
    yield make(
        "certificate",
        f"its certificate is for {names}, by {description.issuer or 'nobody'}, and {description.validity(now)}; "
        f"its fingerprint is {description.fingerprint}",
        **description.facts(now),
    )
