"""What ``pyipc doctor`` finds out by connecting: who listens, and whether it speaks pyipc's protocol.

One connection, on which nothing is said beyond a hello, and not even that to node-ipc programs.
"""

from __future__ import annotations

import dataclasses
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

import trio

import pyipc
from pyipc.cli.examining.address import user_name
from pyipc.cli.examining.findings import Finding, ok, problem, warning
from pyipc.cli.peers import check_peer
from pyipc.cli.showing.figures import duration
from pyipc.transports import Transport, transport_for

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from pyipc.transports import Link, Listener, Peer

__all__ = ["visit"]

#: Seconds in which a server of pyipc answers a hello, unless it is very busy.
_HANDSHAKE_TIMEOUT: Final = 1.0


async def visit(endpoint: pyipc.Endpoint, timeout: float) -> AsyncGenerator[Finding, None]:
    """Connect, look, and leave.

    Args:
        endpoint: Where to.
        timeout: Seconds that connecting may take.

    Cancellation: leaves at once.
    """
    began = trio.current_time()
    try:
        link = await _connect(endpoint, timeout)
    except pyipc.PeerNotAllowed as error:
        yield problem("peer", f"somebody listens, but {error}")
        return
    except pyipc.HandshakeFailed as error:
        yield problem("handshake", str(error), code=error.code)
        return
    except pyipc.IPCError as error:
        yield problem("connect", str(error))
        return
    async with aclosing(link):
        if link.reliable:
            yield _who(link.peer, trio.current_time() - began)
        else:
            yield ok("peer", "there are no connections here, so nothing tells yet whether somebody listens")
        yield await _talk(endpoint, link)


async def _connect(endpoint: pyipc.Endpoint, timeout: float) -> Link:
    address = endpoint.parsed
    with trio.move_on_after(timeout):
        link = await transport_for(address.scheme).connect(address, endpoint.connect_options)
        await check_peer(endpoint, link)
        return link
    raise pyipc.ConnectError(
        f"no answer from {address.redacted} within {timeout:g} s: its server is stopped or far too busy, or the "
        "network lets nothing through; look at the server"
    )


def _who(peer: Peer, seconds: float) -> Finding:
    facts: dict[str, Any] = {"pid": peer.pid, "uid": peer.uid, "gid": peer.gid, "sid": peer.sid, "seconds": seconds}
    if peer.certificate is not None:
        facts["fingerprint"] = peer.certificate.fingerprint
        holder = peer.certificate.holder
        text = f"{holder} listens at {peer.address} and has proved it; connected in {duration(seconds * 1e9)}"
        return ok("peer", text, **facts)
    if peer.pid is None:
        return ok("peer", f"somebody listens at {peer.address}; connected in {duration(seconds * 1e9)}", **facts)
    facts["process"] = name = _process_name(peer.pid)
    who = f"process {peer.pid}" + (f" ({name})" if name else "")
    user = "" if peer.uid is None else f" of user {user_name(peer.uid)}"
    return ok("peer", f"{who}{user} listens; connected in {duration(seconds * 1e9)}", **facts)


def _process_name(pid: int) -> str | None:
    """The command line of a process, where /proc has it."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read(4_096).rstrip(b"\0").split(b"\0")
    except OSError:
        return None
    text = b" ".join(words).decode("utf-8", "replace")
    return (text if len(text) <= 80 else f"{text[:77]}...") or None


async def _talk(endpoint: pyipc.Endpoint, link: Link) -> Finding:
    """Introduce ourselves on a link, where that is done, and see what comes back."""
    send, receive = trio.open_memory_channel[tuple[pyipc.Connection, float]](1)
    try:
        async with pyipc.connect(
            dataclasses.replace(endpoint, transport=_Opened(link)),
            reconnect=False,
            handshake_timeout=_HANDSHAKE_TIMEOUT,
            close_timeout=_HANDSHAKE_TIMEOUT,
            on_connect=lambda connection: send.send_nowait((connection, trio.current_time())),
        ):
            connection, began = await receive.receive()
            await connection.know_peer()
            seconds = trio.current_time() - began
            protocol = connection.peer.protocol
    except pyipc.HandshakeFailed as error:
        # Over TLS 1.3 a client is told only now what the server thinks of its certificate.
        return problem("handshake", str(error), code=error.code)
    except pyipc.IPCError as error:
        return problem("protocol", f"it ended the connection at once: {error}", "look at what the server logs")
    if protocol != "plain":
        return ok(
            "protocol",
            f"it speaks {protocol}, and answered a hello in {duration(seconds * 1e9)}",
            protocol=protocol,
            round_trip=seconds,
        )
    if not link.reliable:
        return warning(
            "protocol",
            f"nothing answered a hello within {_HANDSHAKE_TIMEOUT:g} s; nobody can tell a program that keeps silent, "
            "as those of node-ipc do, from nobody at all",
            f"an answer is the only proof: pyipc request {endpoint.parsed} EVENT",
            protocol=protocol,
        )
    if not endpoint.says_hello:
        return ok("protocol", "node-ipc programs are not asked what they speak", protocol=protocol)
    return warning(
        "protocol",
        f"it did not answer a hello within {_HANDSHAKE_TIMEOUT:g} s, so it speaks plain node-ipc or something else",
        "events go both ways with node-ipc programs; for requests use a server of pyipc",
        protocol=protocol,
    )


class _Opened(Transport):
    """Gives a client a link that is open already."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def connect(self, address: pyipc.Address, options: Mapping[str, object]) -> Link:
        """The link."""
        await trio.lowlevel.checkpoint()
        return self._link

    async def listen(self, address: pyipc.Address, options: Mapping[str, object]) -> Listener:
        """Not what it is for."""
        raise pyipc.AddressError(f"{address} is only visited")
