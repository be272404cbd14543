"""Who may be on the other side of a connection."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from pyipc.errors import AddressError, InsecureAddress, PeerNotAllowed
from pyipc.protocol.addresses import is_loopback
from pyipc.transports.tls_settings import TLS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from pyipc.protocol.addresses import Address
    from pyipc.transports.port import Peer
    from pyipc.transports.tls_settings import AnyTLS

__all__ = ["ANYONE", "Allow", "Anyone", "admit", "check_allow", "check_listening", "users_of_pipe"]


class Anyone:
    """The type of `ANYONE`."""

    def __repr__(self) -> str:
        return "ANYONE"


#: For ``allow=``: talk to whoever is there. The handlers have to know what they may be asked.
ANYONE: Final = Anyone()

#: Who may be on the other side: user ids, Windows SIDs, names or fingerprints of certificates, a function of the
#: `Peer`, `ANYONE`; ``None`` for whom the kind of address admits by default.
Allow: TypeAlias = "Collection[int | str] | Callable[[Peer], bool] | Anyone | None"

_FINGERPRINT: Final = "sha256:"

# Where the kernel tells the user on the other side, and where it does if the socket is one of those.
_USER_SCHEMES: Final = frozenset({"local", "unix", "node-ipc", "pipe"})
_INHERITED_SCHEMES: Final = frozenset({"fd", "systemd"})
# What is a pipe, and on Windows alone.
_PIPE_SCHEMES: Final = frozenset({"pipe", *({"local", "node-ipc"} if sys.platform == "win32" else ())})
_EVERYONE: Final = frozenset({"S-1-1-0"})


def check_allow(address: Address, allow: Allow, *, tls: bool) -> None:
    """Refuse who cannot be meant at an address.

    Args:
        address: Where.
        allow: Who.
        tls: Whether the peers there have certificates.

    Raises:
        TypeError: It is nothing that could be allowed.
        InsecureAddress: Plain traffic would leave this host, and nobody said that it may.
        AddressError: Nobody could ever be admitted.
    """
    if isinstance(allow, str | bytes) or not (
        allow is None or isinstance(allow, Anyone) or callable(allow) or hasattr(allow, "__contains__")
    ):
        raise TypeError(
            "allow must be user ids, names or fingerprints of certificates, a function of the peer, or pyipc.ANYONE, "
            f"not {allow!r}"
        )
    is_list = not (allow is None or isinstance(allow, Anyone) or callable(allow))
    if address.leaves_host and (allow is None or is_list):
        raise InsecureAddress(
            f"{address} would send plain text beyond this host, to whoever is there; use a loopback "
            "address or tls://, or say allow=pyipc.ANYONE if that is meant"
        )
    if is_list and address.scheme in ("tcp", "udp"):
        raise AddressError(
            f"{address}: over {address.scheme} nobody can tell who a peer is, so user ids or names in allow= would "
            "admit nobody; use a function of the peer, a Unix socket, or tls:// with client certificates"
        )
    # A range, say, may be endless; what it holds is looked at only where it is sure to be small.
    named = isinstance(allow, list | tuple | set | frozenset) and any(isinstance(one, str) for one in allow)
    numbered = isinstance(allow, range) or (
        isinstance(allow, list | tuple | set | frozenset) and any(isinstance(one, int) for one in allow)
    )
    for name in allow if isinstance(allow, list | tuple | set | frozenset) else ():
        if isinstance(name, str) and name.startswith(_FINGERPRINT) and not re.fullmatch("sha256:[0-9a-f]{64}", name):
            raise AddressError(
                f"{address}: {name!r} in allow= is no fingerprint, so it would admit nobody; write 'sha256:' and 64 "
                "small hexadecimal digits, without colons"
            )
    if numbered and address.scheme == "tls":
        raise AddressError(
            f"{address}: TLS tells certificates and not users, so user ids in allow= would admit nobody; give the "
            "names or fingerprints of certificates"
        )
    if named and not tls and address.scheme in _USER_SCHEMES - _PIPE_SCHEMES:
        raise AddressError(
            f"{address}: the kernel tells the user on the other side as a number, so names in allow= would admit "
            "nobody; give user ids"
        )


def check_listening(address: Address, allow: Allow, tls: AnyTLS | None) -> None:
    """Refuse to listen where nobody could ever be admitted.

    Args:
        address: Where.
        allow: Who.
        tls: How what is said there is encrypted, if it is.

    Raises:
        AddressError: Certificates are allowed, and nobody is asked for one.
    """
    if tls is None or allow is None or isinstance(allow, Anyone) or callable(allow):
        return
    asks = tls.client_ca is not None if isinstance(tls, TLS) else tls.verify_mode != 0
    if not asks:
        raise AddressError(
            f"{address}: allow= names certificates, and no client is asked for one, so nobody would be admitted; give "
            "client_ca= with the certificate of the authority that signs theirs, or leave out allow="
        )


def users_of_pipe(address: Address, allow: Allow) -> Collection[int | str] | None:
    """Whom Windows has to let into the pipe of an address beside this user; ``None`` where there is none to be told.

    A function chooses among those whom Windows lets in, as one for a Unix socket does among those whom its mode does.
    """
    if address.scheme not in _PIPE_SCHEMES or allow is None:
        return None
    if isinstance(allow, Anyone):
        return _EVERYONE
    return None if callable(allow) else allow


def admit(
    address: Address,
    allow: Allow,
    peer: Peer,
    *,
    tls: bool,
    own_uid: int | None,
    overflow_uid: int | None,
    own_sid: str | None = None,
) -> None:
    """Check that the process on the other side is one to talk to.

    Args:
        address: Where it came to, or was found.
        allow: Who may be there.
        peer: What the kernel or TLS told about it.
        tls: Whether the connection is encrypted and the other side had to show the certificates that were asked for.
        own_uid: The user this process runs as; ``None`` where there is no such thing.
        overflow_uid: The user id by which the kernel shows users it cannot map.
        own_sid: The Windows user this process runs as; ``None`` on other systems.

    Raises:
        PeerNotAllowed: It is not, or who it is could not be found out.
    """
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
    if tls:
        _admit_certificate(allow, peer)
        return
    is_inherited = address.scheme in _INHERITED_SCHEMES
    if allow is not None or address.scheme in _USER_SCHEMES or (is_inherited and peer.uid is not None):
        _admit_user(allow, peer, own_uid, overflow_uid, own_sid)
    elif is_inherited and peer.host is not None and not is_loopback(peer.host):
        # Whoever opened the socket may have had TLS in mind, or a firewall; nobody said so here.
        raise PeerNotAllowed(
            f"the peer at {peer.address} is on another host and the connection is plain text; give the endpoint "
            "tls=, or say allow=pyipc.ANYONE if that is meant",
            peer,
        )


def _admit_certificate(allow: Collection[int | str] | None, peer: Peer) -> None:
    if allow is None:
        return  # whom the certificate authorities vouch for
    certificate = peer.certificate
    if certificate is None:
        raise PeerNotAllowed(
            f"the peer at {peer.address} has shown no certificate that was verified, so nobody can tell whether it "
            "is allowed; a server asks for certificates with client_ca=, a client verifies them unless it is insecure",
            peer,
        )
    # Who signs certificates vouches for the names in them, of which none may pass for a fingerprint. The common name is
    # not one of them: an authority that is confined to some names can write there what it likes.
    names = {name for name in certificate.names if name and not name.startswith(_FINGERPRINT)}
    if not any(name in allow for name in (certificate.fingerprint, *names)):
        whose = ", ".join(map(repr, certificate.names)) or "no names (a common name does not count)"
        raise PeerNotAllowed(
            f"the peer at {peer.address} has a certificate for {whose}, which is not allowed; say "
            f"allow={{{certificate.fingerprint!r}}} to admit it",
            peer,
        )


def _admit_user(allow: Any, peer: Peer, own_uid: int | None, overflow_uid: int | None, own_sid: str | None) -> None:
    if peer.sid is not None:
        # Windows lets into a server's pipe only whom it is for. A client it lets into anybody's.
        if peer.sid not in ({own_sid} if allow is None else allow):
            raise _stranger(peer, repr(peer.sid))
        return
    if peer.uid is None:
        raise PeerNotAllowed(f"it could not be found out who the peer at {peer.address} is", peer)
    if peer.uid == overflow_uid:
        raise PeerNotAllowed(
            f"the peer at {peer.address} belongs to a user of another namespace (uid {peer.uid}), who could be anyone",
            peer,
        )
    if peer.uid not in ({own_uid} if allow is None else allow):
        raise _stranger(peer, str(peer.uid))


def _stranger(peer: Peer, who: str) -> PeerNotAllowed:
    return PeerNotAllowed(
        f"the peer at {peer.address} ({_who(peer)}) is not an allowed user; say allow={{{who}}} to admit it", peer
    )


def _who(peer: Peer) -> str:
    certificate = peer.certificate
    known = {
        "uid": peer.uid,
        "sid": peer.sid,
        "pid": peer.pid,
        "host": peer.host,
        "certificate": certificate and certificate.holder,
    }
    return ", ".join(f"{name} {value}" for name, value in known.items() if value is not None) or "unknown"
