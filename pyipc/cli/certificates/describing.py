"""What there is to tell of a certificate."""

from __future__ import annotations

import dataclasses
import datetime
import enum
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pyipc.cli.certificates.issuing import extension

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Description", "State", "describe"]

#: Days in which a certificate should be renewed.
_SOON: Final = 30
_PURPOSES: Final = {ExtendedKeyUsageOID.SERVER_AUTH: "server", ExtendedKeyUsageOID.CLIENT_AUTH: "client"}
#: As RFC 5280 and other programs call them.
_KEY_USAGES: Final = {
    "digital_signature": "digitalSignature",
    "content_commitment": "nonRepudiation",
    "key_encipherment": "keyEncipherment",
    "data_encipherment": "dataEncipherment",
    "key_agreement": "keyAgreement",
    "key_cert_sign": "keyCertSign",
    "crl_sign": "cRLSign",
}
_EDWARDS_CURVES: Final[dict[type, str]] = {ed25519.Ed25519PublicKey: "Ed25519", ed448.Ed448PublicKey: "Ed448"}


class State(enum.Enum):
    """What the calendar says of a certificate."""

    VALID = "valid"
    EXPIRING = "expiring"
    EXPIRED = "expired"
    NOT_YET_VALID = "not-yet-valid"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """A certificate in words and figures.

    Attributes:
        subject: Whom it is for: its common name, or the whole name if it has none.
        names: The DNS names and IP addresses that it is for.
        issuer: Who vouches for that, in the same form as the subject.
        serial: Its number, in hexadecimal digits.
        not_before: When it begins to be valid.
        not_after: When it expires.
        fingerprint: Its hash, in the form that ``allow=`` takes.
        authority: Whether it is that of a certificate authority.
        confines: The domains and networks that such an authority is confined to, if it is.
        purposes: What it may be used for: ``"server"``, ``"client"`` and others; anything, if there are none.
        key_usage: What its key may do.
        key: The kind of its key, such as ``"EC secp256r1"``.
    """

    subject: str
    names: tuple[str, ...]
    issuer: str
    serial: str
    not_before: datetime.datetime
    not_after: datetime.datetime
    fingerprint: str
    authority: bool
    confines: tuple[str, ...]
    purposes: tuple[str, ...]
    key_usage: tuple[str, ...]
    key: str

    @property
    def title(self) -> str:
        """What to call it in a sentence."""
        return self.subject or next(iter(self.names), "nobody")

    def days_left(self, now: datetime.datetime) -> int:
        """Whole days until it expires; below zero if it has."""
        return (self.not_after - now) // datetime.timedelta(days=1)

    def state(self, now: datetime.datetime) -> State:
        """What the calendar says of it."""
        if now < self.not_before:
            return State.NOT_YET_VALID
        if now > self.not_after:
            return State.EXPIRED
        return State.EXPIRING if self.days_left(now) < _SOON else State.VALID

    def validity(self, now: datetime.datetime) -> str:
        """The same for people."""
        match self.state(now):
            case State.NOT_YET_VALID:
                return f"is not valid before {self.not_before:%Y-%m-%d %H:%M} UTC; look at the clock of this machine"
            case State.EXPIRED:
                return f"expired on {self.not_after:%Y-%m-%d %H:%M} UTC; renew it"
            case State.EXPIRING:
                return f"expires on {self.not_after:%Y-%m-%d %H:%M} UTC, {self._left(now)}; renew it soon"
            case State.VALID:
                return f"is valid until {self.not_after:%Y-%m-%d %H:%M} UTC, {self._left(now)}"

    def _left(self, now: datetime.datetime) -> str:
        days = self.days_left(now)
        return f"{days:,} day{'' if days == 1 else 's'} left"

    def facts(self, now: datetime.datetime) -> dict[str, Any]:
        """The same for programs."""
        return {
            "subject": self.subject,
            "names": self.names,
            "issuer": self.issuer,
            "serial": self.serial,
            "not_before": self.not_before.isoformat(),
            "not_after": self.not_after.isoformat(),
            "days_left": self.days_left(now),
            "state": self.state(now).value,
            "fingerprint": self.fingerprint,
            "authority": self.authority,
            "confines": self.confines,
            "purposes": self.purposes,
            "key_usage": self.key_usage,
            "public_key": self.key,
        }


def describe(certificate: x509.Certificate) -> Description:
    """Read a certificate.

    Raises:
        ValueError: It is malformed.
    """
    constraints = extension(certificate, x509.BasicConstraints)
    purposes = extension(certificate, x509.ExtendedKeyUsage)
    usage = extension(certificate, x509.KeyUsage)
    confines = extension(certificate, x509.NameConstraints)
    return Description(
        subject=_common_name(certificate.subject),
        names=tuple(_names(certificate)),
        issuer=_common_name(certificate.issuer),
        serial=f"{certificate.serial_number:x}",
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        fingerprint=f"sha256:{certificate.fingerprint(hashes.SHA256()).hex()}",
        authority=constraints is not None and constraints.ca,
        confines=() if confines is None else tuple(str(each.value) for each in confines.permitted_subtrees or ()),
        purposes=tuple(_PURPOSES.get(each, each.dotted_string) for each in purposes or ()),
        key_usage=tuple(name for field, name in _KEY_USAGES.items() if usage is not None and getattr(usage, field)),
        key=_kind_of_key(certificate),
    )


def _common_name(name: x509.Name) -> str:
    common = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(common[0].value) if common else name.rfc4514_string()


def _names(certificate: x509.Certificate) -> Iterator[str]:
    for each in extension(certificate, x509.SubjectAlternativeName) or ():
        if isinstance(each, x509.DNSName | x509.IPAddress):
            yield str(each.value)


def _kind_of_key(certificate: x509.Certificate) -> str:
    try:
        key = certificate.public_key()
    except UnsupportedAlgorithm:
        return "of another kind"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"EC {key.curve.name}"
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA {key.key_size}"
    return next((kind for cls, kind in _EDWARDS_CURVES.items() if isinstance(key, cls)), "of another kind")
