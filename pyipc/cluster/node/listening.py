"""Servers of a Node worker listen through the primary, as those of Python workers do, on the same addresses.

Node's ``listen`` in a worker of a cluster asks its primary (``queryServer``) instead of the system. The answer is that
connections will be handed over, or the socket to accept on, or the number of an error.
"""

from __future__ import annotations

import errno
import logging
from typing import TYPE_CHECKING, Final

import pyipc
from pyipc.cluster.claiming import CODES

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

    async def answer(self, question: Message) -> bool:
        """Answer ``queryServer``.

        Returns:
            Whether the process can listen.

        Cancellation: it is not answered.
        """
        reply: Message = {"cmd": "NODE_CLUSTER", "ack": question.get("seq"), "errno": None, "data": None}
        try:
            address, others = address_of(question)
            told, sockets = await self._listen(address, question)
        except pyipc.Refused as error:
            return self._refuse(reply, CODES.get(error.code, pyipc.ListenError)(error.message))
        except pyipc.IPCError as error:
            return self._refuse(reply, error)
        claim = str(told["claim"])
        if claim in self._servers:
            _close(sockets)
            return self._refuse(reply, pyipc.AddressInUse(f"this worker listens on {address} already"))
        where = pyipc.parse_address(str(told["address"]))
        # What is accepted on by the worker itself is one socket, as Node has one for a server.
        beside = [] if sockets else await self._listen_beside(others, where, question, claim)
        self._servers[claim] = [claim, *beside]
        reply |= {"key": claim, "data": told["shared"]}
        if where.scheme == "tcp":
            reply["sockname"] = {
                "address": where.host,
                "port": where.port,
                "family": "IPv6" if ":" in (where.host or "") else "IPv4",
            }
        if sockets:
            self._channel.hand(reply, sockets[0], lost=lambda: None)
            _close(sockets)
        else:
            self._channel.tell(reply)
        return True

    async def _listen(self, address: pyipc.Address, question: Message) -> tuple[dict[str, object], list[socket.socket]]:
        """What `Claims.listen` tells, and the sockets to accept on."""
        options: dict[str, object] = {}
        if address.scheme == "unix":
            mode = 0o600 | (0o044 if question.get("readableAll") else 0) | (0o022 if question.get("writableAll") else 0)
            options = {} if mode == 0o600 else {"mode": mode}
        index = question.get("index")
        told = await self._claims.listen(
            self._process,
            {
                "address": str(address),
                "options": options,
                "turn": index if isinstance(index, int) else 0,
                "shared": question.get("data"),
            },
        )
        return told, await self._courier.listening(str(told["claim"]), int(str(told["sockets"])))

    async def _listen_beside(self, hosts: list[str], where: pyipc.Address, question: Message, claim: str) -> list[str]:
        """Listen also on other addresses with the same port, if this machine has them."""
        names = []
        for host in hosts:
            try:
                told, sockets = await self._listen(_tcp(host, where.port or 0), question)
            except pyipc.Refused as error:
                logger.info("worker %r listens on %s alone: %s", self._process.handle.id, where, error.message)
                continue
            _close(sockets)
            name = str(told["claim"])
            self._courier.rename(name, claim)
            names.append(name)
        return names

    def _refuse(self, reply: Message, error: pyipc.IPCError) -> bool:
        number = next((number for kind, number in _ERRORS.items() if isinstance(error, kind)), errno.EINVAL)
        logger.error("worker %r cannot listen, and is told %s: %s", self._process.handle.id, _name(number), error)
        self._channel.tell(reply | {"errno": -number, "key": None})
        return False

    def close(self, message: Message) -> None:
        """A server of the process is closed."""
        for claim in self._servers.pop(str(message.get("key")), ()):
            self._claims.close(self._process, claim)


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


def _close(sockets: list[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


def _name(number: int) -> str:
    return errno.errorcode.get(number, str(number))
