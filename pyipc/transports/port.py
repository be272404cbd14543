"""The port between pyipc and everything that moves bytes.

A transport knows how to reach or to listen on the addresses of its schemes; what it hands out are
links. Nothing above this line knows which transport a link belongs to, and nothing below it knows
what the bytes mean.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, TypeAlias

from pyipc.errors import AddressError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping, Sequence

    from pyipc.protocol.addresses import Address
    from pyipc.transports.pipe_instance import PipeInstance

__all__ = ["Carrier", "Certificate", "Claim", "Link", "Listener", "Peer", "Place", "Transport"]

#: What passes from the process that accepts a peer to the one that serves it: a connected socket, or on Windows the
#: instance of a pipe. Whoever has it closes it.
Carrier: TypeAlias = "socket.socket | PipeInstance"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """The certificate by which a peer was authenticated, once it was verified.

    Attributes:
        subject: The common name of its subject, to be shown to people; empty if there is none. It proves nothing: an
            authority that is confined to some names may write any into it.
        names: The DNS names and IP addresses that it is for, which is who the peer is.
        fingerprint: ``"sha256:"`` and the hash of the whole certificate in 64 small hexadecimal digits.
        not_after: When it expires, in seconds since the epoch.
    """

    subject: str = ""
    names: tuple[str, ...] = ()
    fingerprint: str
    not_after: float = math.inf

    @property
    def holder(self) -> str:
        """Whom it is for, as people read it: its names, or its fingerprint if it has none."""
        return ", ".join(self.names) or self.fingerprint


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Who is on the other side, as the kernel or the transport tells; never as the peer tells.

    Attributes:
        address: Where the peer is, as text. For a local socket, the address that was connected to.
        pid: Process id, where the kernel reports it. Informational: ids are reused.
        uid: User id, where the kernel reports it.
        gid: Group id, where the kernel reports it.
        sid: Security identifier of the user, where the kernel is Windows.
        certificate: What the peer was authenticated by over TLS, if it had to be.
        host: The network source that quotas are counted by, such as an IP address, if there is one.
        protocol: ``"pyipc/1"`` once the peer has introduced itself, or the transport has agreed on that with it;
            ``"plain"`` until then.
    """

    address: str
    pid: int | None = None
    uid: int | None = None
    gid: int | None = None
    sid: str | None = None
    certificate: Certificate | None = None
    host: str | None = None
    protocol: str = "plain"


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """One of the places that an address stands for on this machine.

    Attributes:
        name: Where it is, such as the path of a socket.
        obstacle: Why no server of this user would listen there as things are, as a sentence; ``None``
            if nothing is in the way.
    """

    name: str
    obstacle: str | None = None


class Link(ABC):
    """Moves chunks of bytes to and from one peer.

    A reliable link is a stream: chunks may be split and merged but arrive whole and in order. An
    unreliable link may lose, double or reorder chunks, but never splits or merges them.

    One task at a time may be in `send`, and one in `receive`. `send_nowait` is never called while
    a `send` is under way, unless the link is unreliable.
    """

    #: Whether everything sent arrives, in order.
    reliable: bool = True
    #: The largest chunk that can be sent, in bytes; ``None`` for streams.
    max_chunk_size: int | None = None
    #: Whether `wake_receiver` works.
    can_wake_receiver: bool = False
    #: Whether the peer can read all that was sent also after `aclose`, whatever of its own was not read here.
    keeps_sent: bool = False
    #: Whether `handshake` must be done before anything else; no more once it is done.
    needs_handshake: bool = False
    #: Whether it is certain that the peer is where it says, so that it may be sent what it did not ask for.
    verified: bool = True
    #: Whether the peer began it and nobody would tell of its end, so that its silence must not be waited out for ever.
    expires: bool = False

    @property
    @abstractmethod
    def peer(self) -> Peer:
        """Who is on the other side."""

    @property
    def dropped(self) -> int:
        """How many chunks are known to be lost, on the way out or in; of an unreliable link."""
        return 0

    async def handshake(self) -> None:
        """Do what has to be done before bytes can move; what `peer` says is final only afterwards.

        A server does it with what a listener hands out, in a task and within a time of its own. What
        `Transport.connect` returns is past it.

        Raises:
            HandshakeFailed: The peer cannot be talked to.

        Cancellation: the link can then only be closed.
        """
        raise NotImplementedError

    def send_nowait(self, data: bytes | bytearray | memoryview) -> int:
        """Hand over as much of ``data`` as goes without waiting.

        What was not taken is offered again before anything else.

        Returns:
            How many bytes were taken, from the front; ``0`` if none. An unreliable link takes all or
            none. A link that cannot send without waiting leaves this method alone.

        Raises:
            ConnectionLost: The link is broken.
        """
        return 0

    @abstractmethod
    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Hand over all of ``data``.

        Raises:
            ConnectionLost: The link is broken, or `aclose` was called meanwhile.

        Cancellation: an unknown part of ``data`` may have been sent, so the link can then only
        be closed.
        """

    @abstractmethod
    async def receive(self) -> bytes:
        """Wait for the next chunk. Always a schedule point.

        Returns:
            At least one byte, or ``b""`` when the peer has finished sending. An unreliable link has no
            such end: there ``b""`` is a chunk without bytes.

        Raises:
            ConnectionLost: The link is broken, or `aclose` was called meanwhile.

        Cancellation: loses nothing.
        """

    def verify(self) -> None:
        """From now on the peer is known to be where it says: it has told what only somebody there can know."""
        self.verified = True

    def tell_forgotten(self, tell: Callable[[str], None]) -> None:  # noqa: B027 - hardly any link is
        """Have a function called with the reason, as a sentence, if the transport forgets the peer by itself.

        Only a link that `expires` is ever forgotten. Nobody need be receiving then.
        """

    def wake_receiver(self) -> None:
        """Let a task that waits in `receive` raise `trio.WouldBlock` instead, having lost nothing.

        A link need not have this. With it, a program that makes one request after the other reads its answers
        by itself, which saves a scheduler turn each.
        """
        raise NotImplementedError

    def send_eof(self) -> bool:
        """Tell the peer that nothing more will be sent, while still receiving.

        Returns:
            Whether the link can do that. Errors are ignored: the peer may be gone already.
        """
        return False

    @abstractmethod
    async def aclose(self) -> None:
        """Close the link, at once and more than once. Wakes whoever is in `send` or `receive`.

        Cancellation: the link is closed all the same.
        """


class Listener(ABC):
    """Waits for peers on one address."""

    @property
    @abstractmethod
    def address(self) -> Address:
        """Where it listens, with the port that was really taken."""

    @property
    def dropped(self) -> int:
        """How many chunks that belong to no link were lost on this side; of a listener for unreliable links."""
        return 0

    @abstractmethod
    async def accept(self) -> Link:
        """Wait for the next peer.

        Raises:
            ConnectionClosed: `aclose` was called.
            OSError: Accepting failed for now (out of descriptors, say); the caller waits a little and goes on.

        Cancellation: loses no peer.
        """

    async def dial(self, address: Address) -> Link:
        """Open a link to a peer from the very address that is listened on, as only unreliable links can.

        Returns:
            The link to that peer; the one that there is, if there is one.

        Raises:
            AddressError: This listener cannot, or there is no such host.
            ConnectionClosed: `aclose` was called.

        Cancellation: nothing stays open.
        """
        raise AddressError(f"what listens on {self.address} cannot call {address}; use pyipc.connect")

    def retire(self) -> Sequence[Link]:
        """Take no newcomers, and hand out the peers that have come and wait for `accept`; called once, before `aclose`.

        Those believe that they are connected, and what they have sent since would be lost with them. A listener need
        not have this: by default they find their connection broken.
        """
        return ()

    @abstractmethod
    async def aclose(self) -> None:
        """Stop listening and release the address, at once and more than once.

        Cancellation: the address is released all the same.
        """


class Claim(ABC):
    """An address that is taken for other processes to serve.

    The process that has it accepts, and passes on what it gets, out of which another makes links with what
    `Transport.adopter` returns. Or it passes on the `sockets`, on which others accept by themselves.
    """

    @property
    @abstractmethod
    def address(self) -> Address:
        """Where it is, with the port that was really taken."""

    @property
    def sockets(self) -> Sequence[socket.socket]:
        """The listening sockets, which stay the claim's; none where there is no such thing, as with pipes."""
        return ()

    @abstractmethod
    async def accept(self) -> Carrier:
        """Wait for the next peer.

        Raises:
            ConnectionClosed: `aclose` was called.
            OSError: Accepting failed for now (out of descriptors, say); the caller waits a little and goes on.

        Cancellation: loses no peer.
        """

    def retire(self) -> Sequence[Carrier]:
        """Take no newcomers, and hand out the peers that wait for `accept`; called once, before `aclose`.

        As `Listener.retire`.
        """
        return ()

    @abstractmethod
    async def aclose(self) -> None:
        """Release the address, at once and more than once. Wakes whoever is in `accept`.

        What was accepted is not closed by it.

        Cancellation: the address is released all the same.
        """


class Transport(ABC):
    """Reaches and listens on the addresses of some schemes.

    Third parties register an instance under the entry point group ``pyipc.transports``, with the
    scheme as its name.
    """

    @abstractmethod
    async def connect(self, address: Address, options: Mapping[str, object]) -> Link:
        """Open a link to whoever listens on ``address``.

        Args:
            address: Where to.
            options: What the endpoint said for this transport, such as ``tls``; an option that is
                not known is an error.

        Raises:
            ConnectError: Nobody answered; the operating system's error is the cause.
            HandshakeFailed: Somebody did, who cannot be talked to.
            AddressError: The address cannot be used on this system.

        Cancellation: nothing stays open.
        """

    @abstractmethod
    async def listen(self, address: Address, options: Mapping[str, object]) -> Listener:
        """Start to listen on ``address``.

        Raises:
            AddressInUse: Somebody else listens there.
            ListenError: The operating system or a safety rule refuses; the message says why.
            AddressError: The address cannot be used on this system.

        Cancellation: nothing stays open.
        """

    async def claim(self, address: Address, options: Mapping[str, object]) -> Claim:
        """Take ``address`` for other processes to serve. By default, what a transport moves stays in its process.

        Args:
            address: Where.
            options: As for `listen`. What only matters to whoever makes the links, such as ``tls``, may be left out.

        Raises:
            AddressInUse: Somebody else listens there.
            ListenError: The operating system or a safety rule refuses; the message says why.
            AddressError: The address cannot be used on this system, or cannot be shared between processes.

        Cancellation: nothing stays open.
        """
        raise _not_shared(address)

    def adopter(self, address: Address, options: Mapping[str, object]) -> Callable[[Carrier], Link]:
        """How links are made of what a `Claim` has accepted, in this process or in another one.

        Args:
            address: That of the claim.
            options: As for `listen`. Here they are checked, once.

        Returns:
            A function that makes a link, which owns what it was given. If it raises `OSError`, because the connection
            is broken or its peer cannot be identified, the caller closes that.

        Raises:
            AddressError: The options cannot be used, or what is accepted here cannot be passed to another process.
            TypeError, ValueError: An option does not exist, or has a wrong value.
        """
        raise _not_shared(address)

    def places(self, address: Address) -> Sequence[Place]:
        """The places that ``address`` stands for on this machine, in the order in which clients try them.

        For people who want to know what an address means here. Nothing is changed, and nobody is
        disturbed: whether somebody listens there is not asked. By default, the address itself.

        Raises:
            AddressError: The address cannot be used on this system.
        """
        return (Place(str(address)),)

    def max_chunk_size(self, address: Address) -> int | None:
        """The largest chunk that links to ``address`` can send, in bytes, as far as that is known beforehand.

        So what is too large is an error also while there is no link. By default, ``None``, as for streams.
        """
        return None


def _not_shared(address: Address) -> AddressError:
    return AddressError(
        f"{address} cannot be shared between processes; listen there in one process only, or use a bare name, unix:, "
        "tcp:// or tls://"
    )
