"""Servers of a Node worker listen through the primary, as those of Python workers do, on the same addresses.

Node's ``listen`` in a worker of a cluster asks its primary (``queryServer``) instead of the system. The answer is that
connections will be handed over, or the socket to accept on, or the number of an error.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
from typing import TYPE_CHECKING, Final

import pyipc
from pyipc.cluster.claiming import CODES, claim_key

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from pyipc.cluster.claiming import Claims
    from pyipc.cluster.node.channel import NodeChannel
    from pyipc.cluster.node.courier import NodeCourier
    from pyipc.cluster.node.lines import Message
    from pyipc.cluster.process import WorkerProcess

__all__ = ["NodeListening", "address_of"]

logger: logging.Logger = logging.getLogger("pyipc.cluster")

_IPV6_ONLY: Final = 1  # libuv's UV_TCP_IPV6ONLY
_BY_DEFAULT: Final = {4: "0.0.0.0", 6: "::"}
_ERRORS: Final[Mapping[type[pyipc.IPCError], int]] = {
    pyipc.AddressInUse: errno.EADDRINUSE,
    pyipc.UnsafePath: errno.EACCES,
    pyipc.AddressError: errno.EINVAL,
    pyipc.ListenError: errno.EADDRNOTAVAIL,
}


class NodeListening:
    """What one process listens on.

    Args:
        process: Which.
        channel: Its channel.
        courier: What hands connections to it.
        claims: Takes addresses.
    """

    def __init__(self, process: WorkerProcess, channel: NodeChannel, courier: NodeCourier, claims: Claims) -> None:
        self._process = process
        self._channel = channel
        self._courier = courier
        self._claims = claims
        # The claims behind each of its servers, by the name of the first.
        self._servers: dict[str, list[str]] = {}
        # How many it has asked for and was not answered about, and where those are to be that it was granted.
        self._asked = 0
        self._opening: dict[str, tuple[object, object, object]] = {}

    # --- what it says ---

    @property
    def is_opening(self) -> bool:
        """Whether it is about to open a server."""
        return self._asked > 0 or bool(self._opening)

    def wanted(self) -> None:
        """It wants to open a server; it is to be answered."""
        self._asked += 1

    def opened(self, message: Message) -> None:
        """A server of it listens."""
        where = (message.get("address"), message.get("addressType"), message.get("port"))
        found = next((key for key, other in self._opening.items() if other == where), None)
        if found is not None:
            del self._opening[found]

    def closed(self, message: Message) -> None:
        """A server of it is closed."""
        self._close(str(message.get("key")))

    def _close(self, key: str) -> None:
        self._opening.pop(key, None)
        for claim in self._servers.pop(key, ()):
            self._courier.rename(claim, claim)
            self._claims.close(self._process, claim)

    # --- what it is told ---

    async def answer(self, question: Message) -> None:
        """Answer ``queryServer``.

        Cancellation: it is not answered.
        """
        reply: Message = {"cmd": "NODE_CLUSTER", "ack": question.get("seq"), "errno": None, "data": None}
        try:
            await self._open(question, reply)
        except pyipc.IPCError as error:
            number = next((number for kind, number in _ERRORS.items() if isinstance(error, kind)), errno.EINVAL)
            name = errno.errorcode.get(number, str(number))
            logger.error("worker %r cannot listen, and is told %s: %s", self._process.handle.id, name, error)
            self._channel.tell(reply | {"errno": -number})
        finally:
            self._asked -= 1

    async def _open(self, question: Message, reply: Message) -> None:
        """Open a server, and say so.

        Raises:
            AddressInUse, ListenError, AddressError: It cannot be opened.
        """
        address, others = address_of(question)
        told, sockets = await self._listen(address, question)
        with contextlib.ExitStack() as received:
            for sock in sockets:
                received.enter_context(sock)
            key, where = str(told["claim"]), pyipc.parse_address(str(told["address"]))
            if key in self._servers:
                raise pyipc.AddressInUse(f"this worker listens on {address} already")
            # What is accepted on by the worker itself is one socket, as Node has one for a server.
            beside = [] if sockets else await self._listen_beside(others, where, question, key)
            self._servers[key] = [key, *beside]
            reply = reply | {"key": key, "data": told["shared"]}
            port = question.get("port")
            if where.scheme == "tcp":
                port, family = where.port, "IPv6" if ":" in (where.host or "") else "IPv4"
                reply["sockname"] = {"address": where.host, "port": port, "family": family}
            self._opening[key] = (question.get("address"), question.get("addressType"), port)
            if not sockets:
                self._channel.tell(reply)
                return
            try:
                self._channel.hand(reply, sockets[0], lost=lambda: None)
            except OSError as error:
                self._close(key)
                raise pyipc.ListenError(f"cannot hand over what listens on {address}: {error.strerror}") from error

    async def _listen(self, address: pyipc.Address, question: Message) -> tuple[dict[str, object], list[socket.socket]]:
        """What `Claims.listen` tells, and the sockets to accept on.

        Raises:
            AddressInUse, ListenError, AddressError: The address cannot be taken.
        """
        options: dict[str, object] = {}
        if address.scheme == "unix":
            mode = 0o600 | (0o044 if question.get("readableAll") else 0) | (0o022 if question.get("writableAll") else 0)
            options = {} if mode == 0o600 else {"mode": mode}
        asked = {
            "address": str(address),
            "options": options,
            "turn": self._turn(address),
            "shared": question.get("data"),
        }
        try:
            told = await self._claims.listen(self._process, asked)
        except pyipc.Refused as error:
            raise CODES.get(error.code, pyipc.ListenError)(error.message) from None
        return told, await self._courier.listening(str(told["claim"]), int(str(told["sockets"])))

    def _turn(self, address: pyipc.Address) -> int:
        """Which server of it this is, of those whose ports the system chooses: the first that it does not have."""
        if address.scheme != "tcp" or address.port:
            return 0
        present = {claim for claims in self._servers.values() for claim in claims}
        return next(turn for turn in itertools.count() if claim_key(address, turn) not in present)

    async def _listen_beside(self, hosts: list[str], where: pyipc.Address, question: Message, key: str) -> list[str]:
        """Listen also on other addresses with the same port, if this machine has them."""
        claims = []
        for host in hosts:
            try:
                told, _ = await self._listen(_tcp(host, where.port or 0), question)
            except pyipc.IPCError as error:
                logger.info("worker %r listens on %s alone: %s", self._process.handle.id, where, error)
                continue
            claims.append(str(told["claim"]))
            self._courier.rename(claims[-1], key)
        return claims


def address_of(message: Message) -> tuple[pyipc.Address, list[str]]:
    """Where a worker wants to listen, or listens.

    Returns:
        The address, and other hosts on whose same port it wants to: Node's ``::`` is for IPv4 as well.

    Raises:
        AddressError: It is no address that can be shared here.
    """
    match message:
        case {"addressType": -1, "address": str(path)}:
            return pyipc.parse_address(f"unix:{path}"), []
        case {"addressType": 4 | 6 as family, "port": int(port), "address": str() | None as host} if port >= 0:
            if not host:
                return _tcp("0.0.0.0", port), ["::"]
            flags = message.get("flags")
            if family == 6 and host == "::" and not (isinstance(flags, int) and flags & _IPV6_ONLY):
                return _tcp("0.0.0.0", port), ["::"]
            return _tcp(host, port), []
    raise pyipc.AddressError(
        "a Node worker can listen here on a port or a path, but not on a descriptor, nor for datagrams; give it "
        "{exclusive: true}, and it does so by itself"
    )


def _tcp(host: str, port: int) -> pyipc.Address:
    return pyipc.parse_address(f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}")
