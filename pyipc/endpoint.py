"""One address with its own options."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from pyipc.errors import AddressError, InsecureAddress, PeerNotAllowed
from pyipc.protocol.addresses import Address, parse_address
from pyipc.protocol.conversation import Conversation, Role
from pyipc.protocol.framed import JsonConversation
from pyipc.protocol.framing import Json, Raw
from pyipc.protocol.raw import RawConversation

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from pyipc.options import Options
    from pyipc.protocol.framing import Framing
    from pyipc.transports.port import Peer, Transport

__all__ = ["ANYONE", "Allow", "Anyone", "Endpoint"]


class Anyone:
    """The type of `ANYONE`."""

    def __repr__(self) -> str:
        return "ANYONE"


#: For ``allow=``: talk to whoever is there. The handlers have to know what they may be asked.
ANYONE: Final = Anyone()

# Where the kernel tells the user on the other side.
_USER_SCHEMES = frozenset({"local", "unix", "node-ipc"})

#: Who may be on the other side: user ids, a function of the `Peer`, `ANYONE`; ``None`` for this user.
Allow: TypeAlias = "Collection[int] | Callable[[Peer], bool] | Anyone | None"


@dataclasses.dataclass(frozen=True, slots=True)
class Endpoint:
    """An address and how to use it.

    Args:
        address: Such as ``"world"``, ``"unix:/run/app.sock"`` or ``"tcp://127.0.0.1:4000"``.
        allow: Who may be on the other side. By default, on local sockets, processes of this user;
            plain network addresses beyond this host need `ANYONE` or a function.
        framing: `Json` or `Raw`.
        hello: Whether to introduce this side and to answer introductions. Never on ``node-ipc:``.
        transport: Moves the bytes, instead of the one registered for the address's scheme.
        mode: Permissions of a Unix socket that is listened on, such as ``0o660``.
        group: The group (name or id) that such a socket belongs to.

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

    def __post_init__(self) -> None:
        address = parse_address(self.address)
        object.__setattr__(self, "address", address)
        if not isinstance(self.framing, Json | Raw):
            raise TypeError(f"framing must be pyipc.Json(...) or pyipc.Raw(), not {self.framing!r}")
        allow = self.allow
        if isinstance(allow, str | bytes) or not (
            allow is None or isinstance(allow, Anyone) or callable(allow) or hasattr(allow, "__contains__")
        ):
            raise TypeError(f"allow must be user ids, a function of the peer, or pyipc.ANYONE, not {allow!r}")
        if address.leaves_host and not (isinstance(allow, Anyone) or callable(allow)):
            raise InsecureAddress(
                f"{address} would send plain text beyond this host, to whoever is there; use a loopback "
                "address, or say allow=pyipc.ANYONE if that is meant"
            )
        if address.scheme == "tcp" and not (allow is None or isinstance(allow, Anyone) or callable(allow)):
            raise AddressError(
                f"{address}: over tcp nobody can tell which user a peer is, so user ids in allow= would admit "
                "nobody; use a function of the peer, or a Unix socket"
            )
        if self.mode is not None and (self.mode & ~0o777 or not self.mode & 0o200):
            raise ValueError(f"mode must be permissions such as 0o600 or 0o660, not {self.mode!r}")

    @property
    def parsed(self) -> Address:
        """The address, taken apart."""
        assert isinstance(self.address, Address)
        return self.address

    @property
    def listen_options(self) -> dict[str, object]:
        """What a transport is told when it listens here."""
        given = {"mode": self.mode, "group": self.group}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def says_hello(self) -> bool:
        """Whether pyipc's own frames may be used here unasked."""
        return self.hello and self.parsed.scheme != "node-ipc" and isinstance(self.framing, Json)

    def converse(
        self,
        role: Role,
        options: Options,
        *,
        agent: str,
        require_hello: bool = False,
        refusal: tuple[str, str] | None = None,
    ) -> Conversation:
        """A new conversation with a peer at this endpoint."""
        if isinstance(self.framing, Raw):
            return RawConversation()
        return JsonConversation(
            role,
            self.framing,
            options,
            hello=self.says_hello or role is Role.SERVER,
            require_hello=require_hello,
            refusal=refusal,
            agent=agent,
        )

    def admit(self, peer: Peer, *, own_uid: int | None, overflow_uid: int | None = None) -> None:
        """Check that the process on the other side is one to talk to.

        Args:
            peer: What the kernel told about it.
            own_uid: The user this process runs as; ``None`` where there is no such thing.
            overflow_uid: The user id by which the kernel shows users it cannot map.

        Raises:
            PeerNotAllowed: It is not, or who it is could not be found out.
        """
        allow = self.allow
        if isinstance(allow, Anyone):
            return
        if callable(allow):
            try:
                admitted = allow(peer) is True
            except Exception as error:
                # What cannot be decided is denied.
                raise PeerNotAllowed(f"allow= failed for the peer at {peer.address} ({_who(peer)})", peer) from error
            if not admitted:
                raise PeerNotAllowed(f"allow= does not admit the peer at {peer.address} ({_who(peer)})", peer)
            return
        if allow is None and self.parsed.scheme not in _USER_SCHEMES:
            return
        if peer.uid is None:
            raise PeerNotAllowed(f"it could not be found out who the peer at {peer.address} is", peer)
        if peer.uid == overflow_uid:
            raise PeerNotAllowed(
                f"the peer at {peer.address} belongs to a user of another namespace (uid {peer.uid}), "
                "who could be anyone",
                peer,
            )
        allowed: Any = {own_uid} if allow is None else allow
        if peer.uid not in allowed:
            raise PeerNotAllowed(
                f"the peer at {peer.address} ({_who(peer)}) is not an allowed user; "
                f"say allow={{{peer.uid}}} to admit it",
                peer,
            )


def _who(peer: Peer) -> str:
    known = {"uid": peer.uid, "pid": peer.pid, "host": peer.host}
    return ", ".join(f"{name} {value}" for name, value in known.items() if value is not None) or "unknown"


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
