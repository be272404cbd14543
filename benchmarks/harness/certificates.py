"""Certificates for the run of one contender: an authority, and whom it vouches for."""

from __future__ import annotations

import datetime
import ipaddress
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["make_certificates"]

HOST = "127.0.0.1"
DAY = datetime.timedelta(days=1)
PEM = serialization.Encoding.PEM


def make_certificates(directory: Path) -> None:
    """Write the files that ``peers/common.py`` names: ``ca.pem``, and a certificate and a key of either side."""
    authority = ec.generate_private_key(ec.SECP256R1())
    name = _named("authority of a benchmark")
    itself = (
        _valid(name, name, authority, authority)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_may_sign(), critical=True)
    )
    _write(directory / "ca.pem", itself, authority)
    places = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))])
    for side in ("server", "client"):
        key = ec.generate_private_key(ec.SECP256R1())
        issued = _valid(_named(side), name, key, authority).add_extension(places, critical=False)
        _write(directory / f"{side}.pem", issued, authority)
        secret = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        file = directory / f"{side}-key.pem"
        file.touch(0o600)
        file.write_bytes(secret)


def _write(file: Path, certificate: x509.CertificateBuilder, authority: ec.EllipticCurvePrivateKey) -> None:
    file.write_bytes(certificate.sign(authority, hashes.SHA256()).public_bytes(PEM))


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


def _valid(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, authority: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    """What every certificate has; the identifiers are what strict verification asks for."""
    now = datetime.datetime.now(datetime.UTC)
    whose = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    by_whom = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + DAY)
        .add_extension(whose, critical=False)
        .add_extension(by_whom, critical=False)
    )


def _may_sign() -> x509.KeyUsage:
    uses = dict.fromkeys(
        (
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    return x509.KeyUsage(key_cert_sign=True, **uses)
