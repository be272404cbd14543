"""Making certificates: a private authority, and those that it vouches for.

Pure: what comes out depends on the arguments and on chance alone. Keys are on the curve P-256, which is quick and
which everybody knows; an authority that came from elsewhere may have a key of another kind.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import ipaddress
from typing import TYPE_CHECKING, Final, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pyipc.cli.certificates.names import is_within

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography.hazmat.primitives.asymmetric.types import (
        CertificateIssuerPrivateKeyTypes,
        CertificateIssuerPublicKeyTypes,
    )

    from pyipc.cli.certificates.names import Domain, Name

__all__ = ["CannotIssue", "Credential", "Use", "extension", "issue", "make_authority"]

#: Clocks differ: a certificate made here has to be valid at once on a machine that is a little late.
_HEAD_START: Final = datetime.timedelta(hours=1)
#: The most characters of a common name.
_MAX_COMMON_NAME: Final = 64


_Extension = TypeVar("_Extension", bound=x509.ExtensionType)


class CannotIssue(Exception):
    """An authority is not able to vouch for this; the message says why and what to do."""


class Use(enum.Enum):
    """What a certificate is for."""

    SERVER = ExtendedKeyUsageOID.SERVER_AUTH
    CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH


@dataclasses.dataclass(frozen=True, slots=True)
class Credential:
    """A certificate with its private key."""

    certificate: x509.Certificate
    key: CertificateIssuerPrivateKeyTypes = dataclasses.field(repr=False)

    def certificate_pem(self) -> bytes:
        """The certificate, as it is written to a file."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def key_pem(self) -> bytes:
        """The private key, as it is written to a file: not encrypted."""
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def make_authority(
    name: str, *, lifetime: datetime.timedelta, now: datetime.datetime, only: Sequence[Domain] = ()
) -> Credential:
    """A new authority, which vouches for others and signs nothing else.

    Args:
        name: What it is called.
        lifetime: How long it is valid.
        now: The time.
        only: The domains and networks that it is confined to; all, if there are none.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    not_before, not_after = _validity(lifetime, now)
    builder = (
        _builder(subject, subject, key.public_key(), not_before, not_after)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(is_authority=True), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
    )
    if only:
        builder = builder.add_extension(_confines(only), critical=True)
    return Credential(builder.sign(key, hashes.SHA256()), key)


def issue(
    authority: Credential, use: Use, names: Sequence[Name], *, lifetime: datetime.timedelta, now: datetime.datetime
) -> Credential:
    """A new certificate that an authority vouches for. It does not outlive the authority.

    Args:
        authority: Who vouches.
        use: What it is for.
        names: Whom it is for; the first host name is its subject too.
        lifetime: How long it is valid.
        now: The time.

    Raises:
        CannotIssue: The authority is none, or not any more, or is confined to other names.
    """
    issuer = authority.certificate
    try:
        _check_authority(issuer, names, now)
    except ValueError as error:
        raise CannotIssue(f"its certificate is malformed: {error}") from error
    key = ec.generate_private_key(ec.SECP256R1())
    # The subject is for people, and has to be short; what counts is the list of names. An IP address in it would be
    # taken for a host name by OpenSSL where an authority is confined.
    common_name = next((name for name in names if isinstance(name, str) and len(name) <= _MAX_COMMON_NAME), None)
    subject = x509.Name([] if common_name is None else [x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    not_before, not_after = _validity(lifetime, now)
    certificate = (
        _builder(
            subject,
            issuer.subject,
            key.public_key(),
            max(not_before, issuer.not_valid_before_utc),
            min(not_after, issuer.not_valid_after_utc),
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(is_authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([use.value]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=common_name is None)
        .add_extension(_authority_key_identifier(issuer, authority.key.public_key()), critical=False)
        .sign(authority.key, _hash_for(authority.key))
    )
    return Credential(certificate, key)


def extension(certificate: x509.Certificate, kind: type[_Extension]) -> _Extension | None:
    """The extension of this kind, if the certificate has it.

    Raises:
        ValueError: An extension is malformed.
    """
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
    except (x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise ValueError(str(error)) from error


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    not_before: datetime.datetime,
    not_after: datetime.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _validity(lifetime: datetime.timedelta, now: datetime.datetime) -> tuple[datetime.datetime, datetime.datetime]:
    whole = now.astimezone(datetime.UTC).replace(microsecond=0)
    return whole - _HEAD_START, whole + lifetime


def _key_usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general(name: Name) -> x509.GeneralName:
    return x509.DNSName(name) if isinstance(name, str) else x509.IPAddress(name)


def _hash_for(key: CertificateIssuerPrivateKeyTypes) -> hashes.SHA256 | None:
    """Keys of Edwards curves have a hash of their own."""
    return None if isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey) else hashes.SHA256()


def _authority_key_identifier(
    issuer: x509.Certificate, key: CertificateIssuerPublicKeyTypes
) -> x509.AuthorityKeyIdentifier:
    known = extension(issuer, x509.SubjectKeyIdentifier)
    if known is None:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(key)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(known)


# --- what an authority may do ---


def _confines(only: Sequence[Domain]) -> x509.NameConstraints:
    """Names are confined kind by kind: where only domains are meant, IP addresses have to be excluded, and so on."""
    permitted: list[x509.GeneralName] = [
        x509.DNSName(each) if isinstance(each, str) else x509.IPAddress(each) for each in only
    ]
    excluded: list[x509.GeneralName] = []
    if not any(isinstance(each, str) for each in only):
        excluded.append(x509.DNSName(""))
    if not any(isinstance(each, ipaddress.IPv4Network) for each in only):
        excluded.append(x509.IPAddress(ipaddress.IPv4Network("0.0.0.0/0")))
    if not any(isinstance(each, ipaddress.IPv6Network) for each in only):
        excluded.append(x509.IPAddress(ipaddress.IPv6Network("::/0")))
    return x509.NameConstraints(permitted, excluded or None)


def _check_authority(issuer: x509.Certificate, names: Sequence[Name], now: datetime.datetime) -> None:
    if issuer.not_valid_after_utc <= now:
        raise CannotIssue(
            f"it expired on {issuer.not_valid_after_utc:%Y-%m-%d}; make a new one in another directory, and give "
            "its certificate to everybody before you use it"
        )
    constraints, usage = extension(issuer, x509.BasicConstraints), extension(issuer, x509.KeyUsage)
    if constraints is None or not constraints.ca or (usage is not None and not usage.key_cert_sign):
        raise CannotIssue("its certificate is not that of a CA, and so cannot vouch for others; use that of a CA")
    confines = extension(issuer, x509.NameConstraints)
    if confines is not None:
        for name in names:
            _check_within(confines, name)


def _check_within(confines: x509.NameConstraints, name: Name) -> None:
    permitted = _of_kind(name, confines.permitted_subtrees)
    excluded = _of_kind(name, confines.excluded_subtrees)
    if any(is_within(name, each) for each in excluded) or (
        permitted and not any(is_within(name, each) for each in permitted)
    ):
        wanted = ", ".join(str(each.value) for each in confines.permitted_subtrees or ()) or "other names"
        raise CannotIssue(
            f"it is confined to {wanted}, and '{name}' is not within that; choose another name, or make a CA for it"
        )


def _of_kind(name: Name, subtrees: Sequence[x509.GeneralName] | None) -> list[Domain]:
    """Those subtrees that say something about names of this kind."""
    kind = x509.DNSName if isinstance(name, str) else x509.IPAddress
    values = [each.value for each in subtrees or () if isinstance(each, kind)]
    return [value for value in values if not isinstance(value, ipaddress.IPv4Address | ipaddress.IPv6Address)]
