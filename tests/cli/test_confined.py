"""Whoever has the key of a confined authority: it can sign anything, and is still nobody but whom it is confined to."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

import pyipc
from pyipc import TLS, Endpoint
from pyipc.cli.certificates.issuing import Credential, make_authority
from tests.certificates import authority_file, leaf, leaf_file

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


def forged(authority: Credential, common_name: str, *names: str) -> Credential:
    """What no authority of ours would make: a certificate for any names, also for those that are out of its reach."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
        .issuer_name(authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + DAY)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), False)
    return Credential(builder.sign(authority.key, hashes.SHA256()), key)


@pytest.fixture(scope="module")
def partner() -> Credential:
    return make_authority("a partner", lifetime=DAY, now=NOW, only=["partner.internal"])


@pytest.mark.parametrize(
    ("common_name", "names", "code"),
    [
        ("admin", ["x.partner.internal"], "not-allowed"),
        ("admin", [], "not-allowed"),
        ("x", ["admin"], "bad-certificate"),
        ("admin", ["good.partner.internal"], None),
    ],
)
async def test_its_holder_cannot_pass_for_another(
    common_name: str, names: list[str], code: str | None, partner: Credential, tmp_path: Path
) -> None:
    trusted = tmp_path / "clients.pem"
    trusted.write_bytes(authority_file(tmp_path).read_bytes() + partner.certificate_pem())
    own = forged(partner, common_name, *names)
    shown = tmp_path / "client.pem"
    shown.touch(0o600)
    shown.write_bytes(own.certificate_pem() + own.key_pem())
    server_tls = TLS(cert=leaf_file(tmp_path / "server.pem", leaf("127.0.0.1")), client_ca=trusted)
    client_tls = TLS(cert=shown, ca=authority_file(tmp_path))
    server = pyipc.Server(Endpoint("tls://127.0.0.1:0", tls=server_tls, allow={"admin", "good.partner.internal"}))
    server.on("ping", lambda message: "pong")
    async with server:
        try:
            async with pyipc.connect(Endpoint(server.addresses[0], tls=client_tls), reconnect=False) as client:
                assert await client.request("ping") == "pong"
            told = None
        except (pyipc.PeerRefused, pyipc.HandshakeFailed) as error:
            told = error.code
    assert told == code
