"""One address with its own options."""

from __future__ import annotations

import dataclasses
import secrets
from typing import TYPE_CHECKING, Final

from pyipc import identity
from pyipc.admission import admit, check_allow, check_listening, users_of_pipe
from pyipc.errors import AddressError
from pyipc.options import UNSET, Unset
from pyipc.protocol.addresses import Address, parse_address
from pyipc.protocol.conversation import Conversation, Role
from pyipc.protocol.datagram import DatagramConversation
from pyipc.protocol.framed import JsonConversation
from pyipc.protocol.framing import Json, Raw
from pyipc.protocol.raw import RawConversation
from pyipc.transports.tls_settings import check_tls

if TYPE_CHECKING:
    from pyipc.admission import Allow
    from pyipc.options import Options
    from pyipc.protocol.conversation import SessionTerms
    from pyipc.protocol.framing import Framing
    from pyipc.transports.port import Link, Peer, Transport
    from pyipc.transports.tls_settings import AnyTLS

__all__ = ["Endpoint", "as_endpoint"]

_INHERITED_SCHEMES: Final = frozenset({"fd", "systemd"})
# What can be encrypted: an inherited socket by whoever inherits it.
_TLS_SCHEMES: Final = _INHERITED_SCHEMES | {"tls"}


@dataclasses.dataclass(frozen=True, slots=True)
class Endpoint:
    """An address and how to use it.

    Args:
        address: Such as ``"world"``, ``"unix:/run/app.sock"`` or ``"tcp://127.0.0.1:4000"``.
        allow: Who may be on the other side: user ids, names or fingerprints of certificates, a function of
            the `Peer`, or `ANYONE`. By default, on local sockets, processes of this user; over TLS, whom the
            certificate authorities vouch for. Plain network addresses beyond this host need `ANYONE` or a function.
        framing: `Json` or `Raw`.
        hello: Whether to introduce this side and to answer introductions. Never on ``node-ipc:``.
        transport: Moves the bytes, instead of the one registered for the address's scheme.
        mode: Permissions of a Unix socket that is listened on, such as ``0o660``.
        group: The group (name or id) that such a socket belongs to.
        tls: Certificates and whom to trust, for ``tls://`` and for sockets that were inherited: a `TLS`, or an
            ``ssl.SSLContext``, which is used as it is.
        trust_sources: Whether ``udp://`` may send to any source address without having seen that it is really there.

    Raises:
        AddressError: The address is malformed.
        InsecureAddress: Plain traffic would leave this host and ``allow`` does not say that it may.
    """

    address: Address | str
    _: dataclasses.KW_ONLY
    allow: Allow = None
    framing: Framing = dataclasses.field(default_factory=Json)
    hello: bool = True
    transport: Transport | None = None
    mode: int | None = None
    group: str | int | None = None
    tls: AnyTLS | None = None
    trust_sources: bool = False

    def __post_init__(self) -> None:
        address = parse_address(self.address)
        object.__setattr__(self, "address", address)
        if not isinstance(self.framing, Json | Raw):
            raise TypeError(f"framing must be pyipc.Json(...) or pyipc.Raw(), not {self.framing!r}")
        if self.trust_sources and address.scheme != "udp":
            raise AddressError(f"{address} has no sources to trust; trust_sources is for udp://host:port")
        if self.tls is not None:
            check_tls(self.tls)
            if address.scheme not in _TLS_SCHEMES:
                raise AddressError(f"{address} has no TLS; write tls://host:port, or leave out tls=")
        check_allow(address, self.allow, tls=self.is_tls)
        if self.mode is not None and (self.mode & ~0o777 or not self.mode & 0o200):
            raise ValueError(f"mode must be permissions such as 0o600 or 0o660, not {self.mode!r}")

    @property
    def parsed(self) -> Address:
        """The address, taken apart."""
        assert isinstance(self.address, Address)
        return self.address

    @property
    def is_tls(self) -> bool:
        """Whether what is said here is encrypted, and the other side identified by its certificate."""
        return self.tls is not None or self.parsed.scheme == "tls"

    @property
    def is_inherited(self) -> bool:
        """Whether it is a socket that somebody else has opened."""
        return self.parsed.scheme in _INHERITED_SCHEMES

    @property
    def connect_options(self) -> dict[str, object]:
        """What a transport is told when it connects to here."""
        return {} if self.tls is None else {"tls": self.tls}

    @property
    def listen_options(self) -> dict[str, object]:
        """What a transport is told when it listens here.

        Raises:
            AddressError: Nobody could ever be admitted.
        """
        check_listening(self.parsed, self.allow, self.tls)
        users = users_of_pipe(self.parsed, self.allow)
        trust_sources = self.trust_sources or None
        given = {
            "mode": self.mode,
            "group": self.group,
            "tls": self.tls,
            "allow": users,
            "trust_sources": trust_sources,
        }
        return {name: value for name, value in given.items() if value is not None}

    @property
    def says_hello(self) -> bool:
        """Whether pyipc's own frames may be used here unasked."""
        return self.hello and self.parsed.scheme != "node-ipc" and isinstance(self.framing, Json)

    @property
    def can_refuse(self) -> bool:
        """Whether there are words here by which a peer can be told that it is turned away, and why."""
        return isinstance(self.framing, Json)

    def converse(
        self,
        role: Role,
        options: Options,
        *,
        agent: str,
        link: Link | None = None,
        max_size: int | None = None,
        require_hello: bool = False,
        refusal: tuple[str, str] | None = None,
        session: str = "",
        terms: SessionTerms | None = None,
    ) -> Conversation:
        """A new conversation with a peer at this endpoint.

        Over a link; without one, as over a stream, or in datagrams that hold ``max_size`` bytes. A client gives the
        name of its ``session``, a server its ``terms``.
        """
        if link is not None and not link.reliable:
            max_size = link.max_chunk_size
        if isinstance(self.framing, Raw):
            return RawConversation(max_size)
        if max_size is not None:
            return DatagramConversation(
                role,
                self.framing,
                options,
                max_size=max_size,
                token=secrets.token_hex(16) if role is Role.SERVER else "",
                hello=self.says_hello or role is Role.SERVER,
                require_hello=require_hello,
                agent=agent,
            )
        return JsonConversation(
            role,
            self.framing,
            options,
            hello=self.says_hello or role is Role.SERVER,
            require_hello=require_hello,
            refusal=refusal,
            agent=agent,
            session=session,
            terms=terms,
        )

    def encode(self, event: str, data: object, options: Options) -> bytes:
        """The bytes by which an event goes to a peer here: to learn whether it can be sent, and how large it is.

        Args:
            event: The name.
            data: Anything that has a form on the wire here.
            options: The limits that hold.

        Raises:
            LocalProtocolError: The name or the data cannot be sent, to a peer that has not introduced itself.
        """
        return self.converse(Role.CLIENT, options, agent=identity.AGENT).event(event, data)

    def admit(
        self, peer: Peer, *, own_uid: int | Unset | None = UNSET, overflow_uid: int | Unset | None = UNSET
    ) -> None:
        """Check that the process on the other side is one to talk to.

        Args:
            peer: What the kernel or TLS told about it.
            own_uid: The user this process runs as; ``None`` where there is no such thing. Looked up by default.
            overflow_uid: The user id by which the kernel shows users it cannot map. Looked up by default.

        Raises:
            PeerNotAllowed: It is not, or who it is could not be found out.
        """
        own = identity.own_uid() if isinstance(own_uid, Unset) else own_uid
        overflow = identity.overflow_uid() if isinstance(overflow_uid, Unset) else overflow_uid
        sid = identity.own_sid() if peer.sid is not None else None
        admit(self.parsed, self.allow, peer, tls=self.is_tls, own_uid=own, overflow_uid=overflow, own_sid=sid)


def as_endpoint(address: Endpoint | Address | str) -> Endpoint:
    """An endpoint for what a user gave as an address.

    Raises:
        AddressError: It is none.
    """
    if isinstance(address, Endpoint):
        return address
    if not isinstance(address, Address | str):
        raise AddressError(f"an address must be text, a pyipc.Address or a pyipc.Endpoint, not {address!r}")
    return Endpoint(address)
