"""What ``pyipc cert`` makes, judged by OpenSSL: real handshakes over a pair of sockets, with host names and all."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import ipaddress
import socket
import ssl
from typing import TYPE_CHECKING

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from pyipc.cli.certificates.describing import State, describe
from pyipc.cli.certificates.issuing import CannotIssue, Credential, Use, issue, make_authority
from pyipc.cli.certificates.names import client_name, domain, server_name
from pyipc.cli.examining import encryption
from pyipc.cli.examining.findings import Level

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

    from pyipc.cli.certificates.names import Name

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)
YEAR = 365 * DAY


@pytest.fixture(scope="module")
def authority() -> Credential:
    return make_authority("a CA", lifetime=10 * YEAR, now=NOW)


def server_of(authority: Credential, *names: str, now: datetime.datetime = NOW) -> Credential:
    return issue(authority, Use.SERVER, [server_name(name) for name in names], lifetime=90 * DAY, now=now)


def client_of(authority: Credential, name: str = "ada") -> Credential:
    return issue(authority, Use.CLIENT, [client_name(name)], lifetime=90 * DAY, now=NOW)


# --- handshakes ---


class Handshake:
    """Two sides that trust authorities and may have certificates."""

    def __init__(self, directory: Path, server: Credential, *, trusted: Credential) -> None:
        self.directory = directory
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.client.verify_flags |= ssl.VERIFY_X509_STRICT
        self.client.load_verify_locations(cadata=trusted.certificate_pem().decode())
        self.load(self.server, server)

    def load(self, context: ssl.SSLContext, credential: Credential) -> None:
        paths = self.directory / "certificate.pem", self.directory / "key.pem"
        paths[0].write_bytes(credential.certificate_pem())
        paths[1].write_bytes(credential.key_pem())
        context.load_cert_chain(*paths)

    def ask_clients_of(self, authority: Credential) -> None:
        self.server.verify_mode = ssl.CERT_REQUIRED
        self.server.verify_flags |= ssl.VERIFY_X509_STRICT
        self.server.load_verify_locations(cadata=authority.certificate_pem().decode())

    async def shake(self, host: str) -> tuple[trio.SSLStream[trio.SocketStream], trio.SSLStream[trio.SocketStream]]:
        """Connect and say something each way; both streams, server first."""
        streams = [trio.SocketStream(trio.socket.from_stdlib_socket(each)) for each in socket.socketpair()]
        there = trio.SSLStream(streams[0], self.server, server_side=True)
        here = trio.SSLStream(streams[1], self.client, server_hostname=host)
        problems: list[BaseException] = []

        async def talk(stream: trio.SSLStream[trio.SocketStream]) -> None:
            try:
                await stream.send_all(b"x")
                assert await stream.receive_some(1) == b"x"
            except trio.BrokenResourceError as error:
                # The side that refuses knows why; the other one is told little.
                problems.append(error.__cause__ or error)
                await trio.aclose_forcefully(stream)

        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(talk, there)
                nursery.start_soon(talk, here)
        for stream in (there, here):
            await trio.aclose_forcefully(stream)
        for problem in problems:
            if isinstance(problem, ssl.SSLCertVerificationError):
                raise problem
        assert not problems
        return there, here


@pytest.mark.parametrize("host", ["localhost", "db.example.internal", "127.0.0.1", "::1"])
async def test_a_server_is_verified_by_each_of_its_names(host: str, authority: Credential, tmp_path: Path) -> None:
    server = server_of(authority, "localhost", "DB.example.internal", "127.0.0.1", "[::1]")
    await Handshake(tmp_path, server, trusted=authority).shake(host)


@pytest.mark.parametrize("host", ["other", "localhost.example.internal", "127.0.0.2", "::2"])
async def test_a_server_is_refused_by_any_other_name(host: str, authority: Credential, tmp_path: Path) -> None:
    handshake = Handshake(tmp_path, server_of(authority, "localhost", "127.0.0.1", "::1"), trusted=authority)
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        await handshake.shake(host)


def test_an_address_is_not_written_as_a_host_name(authority: Credential) -> None:
    certificate = server_of(authority, "127.0.0.1").certificate
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert (list(names.value), names.critical) == ([x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))], True)
    assert list(certificate.subject) == []
    assert describe(certificate).title == "127.0.0.1"


async def test_mutual(authority: Credential, tmp_path: Path) -> None:
    handshake = Handshake(tmp_path, server_of(authority, "localhost"), trusted=authority)
    handshake.ask_clients_of(authority)
    client = client_of(authority)
    handshake.load(handshake.client, client)
    there, _ = await handshake.shake("localhost")
    shown = there.getpeercert()
    assert (("commonName", "ada"),) in shown["subject"]
    digest = hashlib.sha256(there.getpeercert(binary_form=True)).hexdigest()
    assert describe(client.certificate).fingerprint == f"sha256:{digest}"


async def test_a_client_of_another_authority_is_refused(authority: Credential, tmp_path: Path) -> None:
    handshake = Handshake(tmp_path, server_of(authority, "localhost"), trusted=authority)
    handshake.ask_clients_of(authority)
    # Of the same name even: what counts is the key.
    handshake.load(handshake.client, client_of(make_authority("a CA", lifetime=YEAR, now=NOW)))
    with pytest.raises(ssl.SSLCertVerificationError):
        await handshake.shake("localhost")


async def test_a_server_of_another_authority_is_refused(authority: Credential, tmp_path: Path) -> None:
    server = server_of(make_authority("a CA", lifetime=YEAR, now=NOW), "localhost")
    with pytest.raises(ssl.SSLCertVerificationError):
        await Handshake(tmp_path, server, trusted=authority).shake("localhost")


async def test_a_client_cannot_pass_for_a_server(authority: Credential, tmp_path: Path) -> None:
    client = client_of(authority, "localhost")
    with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
        await Handshake(tmp_path, client, trusted=authority).shake("localhost")


async def test_a_server_cannot_pass_for_a_client(authority: Credential, tmp_path: Path) -> None:
    handshake = Handshake(tmp_path, server_of(authority, "localhost"), trusted=authority)
    handshake.ask_clients_of(authority)
    handshake.load(handshake.client, server_of(authority, "ada"))
    with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
        await handshake.shake("localhost")


async def test_nobody_who_is_vouched_for_can_vouch_for_others(authority: Credential, tmp_path: Path) -> None:
    middle = server_of(authority, "localhost")
    with pytest.raises(CannotIssue, match="not that of a CA"):
        server_of(middle, "localhost")
    # Whoever does it all the same is refused: the chain is sent in full, and ends in whom the other side trusts.
    forged = dataclasses.replace(server_of(dataclasses.replace(authority, key=middle.key), "localhost"))
    handshake = Handshake(tmp_path, forged, trusted=authority)
    with pytest.raises(ssl.SSLCertVerificationError):
        await handshake.shake("localhost")


async def test_a_server_that_has_expired_is_refused(tmp_path: Path) -> None:
    then = NOW - 2 * YEAR
    authority = make_authority("a CA", lifetime=10 * YEAR, now=then)
    server = server_of(authority, "localhost", now=then)
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        await Handshake(tmp_path, server, trusted=authority).shake("localhost")


async def test_a_long_name_has_no_subject_and_is_verified(authority: Credential, tmp_path: Path) -> None:
    name = ".".join(["x" * 40] * 4)
    server = server_of(authority, name)
    assert list(server.certificate.subject) == []
    await Handshake(tmp_path, server, trusted=authority).shake(name)


# --- authorities that are confined ---


@pytest.mark.parametrize(
    ("only", "name", "is_within"),
    [
        (["example.internal"], "example.internal", True),
        ([".example.internal"], "db.example.internal", True),
        (["example.internal"], "badexample.internal", False),
        (["example.internal"], "localhost", False),
        (["example.internal"], "127.0.0.1", False),
        (["example.internal"], "::1", False),
        (["127.0.0.0/8"], "127.0.0.1", True),
        (["127.0.0.0/8"], "10.0.0.1", False),
        (["127.0.0.0/8"], "localhost", False),
        (["127.0.0.0/8"], "::1", False),
        (["example.internal", "::1/128"], "::1", True),
        (["example.internal", "127.0.0.0/8"], "127.0.0.1", True),
    ],
)
async def test_a_confined_authority(only: list[str], name: str, is_within: bool, tmp_path: Path) -> None:
    """We refuse to make what OpenSSL refuses to take."""
    authority = make_authority("a CA", lifetime=YEAR, now=NOW, only=[domain(each) for each in only])
    free = make_authority("a CA", lifetime=YEAR, now=NOW)
    if is_within:
        await Handshake(tmp_path, server_of(authority, name), trusted=authority).shake(name)
        return
    with pytest.raises(CannotIssue, match="confined to"):
        server_of(authority, name)
    stolen = server_of(dataclasses.replace(free, key=authority.key), name)
    certificate = _reissued(stolen.certificate, authority)
    with pytest.raises(ssl.SSLCertVerificationError, match="subtree"):
        await Handshake(tmp_path, Credential(certificate, stolen.key), trusted=authority).shake(name)


def _reissued(certificate: x509.Certificate, authority: Credential) -> x509.Certificate:
    """What somebody with the key of an authority could make, whatever we refuse."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(certificate.subject)
        .issuer_name(authority.certificate.subject)
        .public_key(certificate.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(certificate.not_valid_before_utc)
        .not_valid_after(certificate.not_valid_after_utc)
    )
    for each in certificate.extensions:
        if not isinstance(each.value, x509.AuthorityKeyIdentifier):
            builder = builder.add_extension(each.value, each.critical)
    identifier = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
    )
    return builder.sign(authority.key, hashes.SHA256())


# --- authorities from elsewhere ---


def foreign(
    key: CertificateIssuerPrivateKeyTypes,
    *extensions: tuple[x509.ExtensionType, bool],
    lifetime: datetime.timedelta = YEAR,
) -> Credential:
    """An authority that another program might have made."""
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Somebody")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + lifetime)
    )
    for value, critical in extensions:
        builder = builder.add_extension(value, critical)
    return Credential(builder.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()), key)


IS_CA = (x509.BasicConstraints(ca=True, path_length=None), True)


@pytest.mark.parametrize(
    "make",
    [
        lambda: rsa.generate_private_key(65_537, 2_048),
        lambda: ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate,
    ],
    ids=["rsa", "p384", "ed25519"],
)
async def test_an_authority_with_another_kind_of_key(make: object, tmp_path: Path) -> None:
    authority = foreign(make(), IS_CA)  # type: ignore[operator]
    handshake = Handshake(tmp_path, server_of(authority, "localhost"), trusted=authority)
    handshake.client.verify_flags &= ~ssl.VERIFY_X509_STRICT  # which wants more of an authority than this one has
    await handshake.shake("localhost")
    described = describe(authority.certificate)
    assert described.subject == described.issuer == "O=Somebody"
    assert described.key in ("RSA 2048", "EC secp384r1", "Ed25519")
    assert (described.purposes, described.key_usage, described.names) == ((), (), ())


@pytest.mark.parametrize(
    "extensions",
    [
        [],
        [(x509.BasicConstraints(ca=False, path_length=None), True)],
        [IS_CA, (x509.KeyUsage(True, False, False, False, False, False, False, False, False), True)],
    ],
)
def test_what_is_no_authority_vouches_for_nobody(extensions: list[tuple[x509.ExtensionType, bool]]) -> None:
    stranger = foreign(ec.generate_private_key(ec.SECP256R1()), *extensions)
    with pytest.raises(CannotIssue, match="not that of a CA"):
        server_of(stranger, "localhost")


def test_an_authority_that_excludes_names() -> None:
    constraints = x509.NameConstraints(None, [x509.DNSName("example.com"), x509.RFC822Name("example.com")])
    authority = foreign(ec.generate_private_key(ec.SECP256R1()), IS_CA, (constraints, True))
    server_of(authority, "localhost", "127.0.0.1")
    with pytest.raises(CannotIssue, match=r"'www\.example\.com' is not within that"):
        server_of(authority, "localhost", "www.example.com")


def test_an_authority_that_has_expired() -> None:
    authority = make_authority("a CA", lifetime=DAY, now=NOW - 2 * DAY)
    with pytest.raises(CannotIssue, match=f"expired on {NOW - DAY:%Y-%m-%d}; make a new one"):
        server_of(authority, "localhost")


# --- what is in them ---


def test_an_authority_says_all_that_it_should() -> None:
    certificate = make_authority("a CA", lifetime=10 * YEAR, now=NOW).certificate
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.value, constraints.critical) == (x509.BasicConstraints(ca=True, path_length=0), True)
    assert certificate.extensions.get_extension_for_class(x509.KeyUsage).critical
    assert describe(certificate).key_usage == ("keyCertSign", "cRLSign")
    assert describe(certificate).key == "EC secp256r1"
    assert describe(certificate).authority


@pytest.mark.parametrize(("use", "purpose"), [(Use.SERVER, "server"), (Use.CLIENT, "client")])
def test_what_it_vouches_for_says_all_that_it_should(use: Use, purpose: str, authority: Credential) -> None:
    names: list[Name] = ["localhost", ipaddress.IPv4Address("127.0.0.1")]
    certificate = issue(authority, use, names, lifetime=90 * DAY, now=NOW).certificate
    described = describe(certificate)
    assert (described.subject, described.names, described.issuer) == ("localhost", ("localhost", "127.0.0.1"), "a CA")
    assert (described.purposes, described.key_usage, described.authority) == ((purpose,), ("digitalSignature",), False)
    assert described.not_before <= NOW - datetime.timedelta(minutes=59)
    assert described.not_after == NOW.replace(microsecond=0) + 90 * DAY
    own = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert (
        certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier == own.digest
    )
    assert certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest != own.digest


def test_serial_numbers_and_keys_are_random(authority: Credential) -> None:
    made = [server_of(authority, "localhost") for _ in range(10)]
    assert len({each.certificate.serial_number for each in made}) == len({each.key_pem() for each in made}) == 10
    assert min(each.certificate.serial_number.bit_length() for each in made) > 100


def test_nobody_outlives_the_authority() -> None:
    authority = make_authority("a CA", lifetime=30 * DAY, now=NOW)
    certificate = server_of(authority, "localhost").certificate
    assert certificate.not_valid_after_utc == authority.certificate.not_valid_after_utc
    # Nor is it older, though the clock may have been set back meanwhile.
    certificate = server_of(authority, "localhost", now=NOW - 2 * DAY).certificate
    assert certificate.not_valid_before_utc == authority.certificate.not_valid_before_utc


def test_a_key_is_not_shown_by_accident(authority: Credential) -> None:
    assert "key" not in repr(authority).lower().replace("certificate", "")


@pytest.mark.parametrize(
    ("days", "state", "sentence"),
    [
        (-1, State.NOT_YET_VALID, "is not valid before"),
        (0, State.VALID, "89 days left"),
        (59, State.VALID, "30 days left"),
        (60.5, State.EXPIRING, "29 days left; renew it soon"),
        (88.5, State.EXPIRING, "1 day left; renew it soon"),
        (91, State.EXPIRED, "renew it"),
    ],
)
def test_what_the_calendar_says(days: float, state: State, sentence: str, authority: Credential) -> None:
    described = describe(server_of(authority, "localhost").certificate)
    now = NOW + days * DAY
    assert described.state(now) is state
    assert sentence in described.validity(now)
    assert described.facts(now)["state"] == state.value


# --- certificates of strangers ---


def strange(change: Callable[[bytes], bytes]) -> x509.Certificate:
    """A certificate that no builder would make. Its signature is wrong, which nobody asks for here."""
    extensions = [(x509.UnrecognizedExtension(x509.ObjectIdentifier(f"1.2.3.{n}"), b""), False) for n in (4, 5)]
    odd = foreign(ec.generate_private_key(ec.SECP256R1()), *extensions).certificate
    encoded = odd.public_bytes(serialization.Encoding.DER)
    assert change(encoded) != encoded
    return x509.load_der_x509_certificate(change(encoded))


def an_extension_twice(encoded: bytes) -> bytes:
    return encoded.replace(b"\x06\x03\x2a\x03\x05", b"\x06\x03\x2a\x03\x04")


def test_an_extension_that_is_there_twice_is_an_error() -> None:
    odd = strange(an_extension_twice)
    with pytest.raises(ValueError, match=r"[Dd]uplicate"):
        describe(odd)
    with pytest.raises(CannotIssue, match="its certificate is malformed"):
        server_of(Credential(odd, ec.generate_private_key(ec.SECP256R1())), "localhost")


def test_a_key_of_an_unknown_curve() -> None:
    curve = b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07"  # 1.2.840.10045.3.1.7
    assert describe(strange(lambda encoded: encoded.replace(curve, curve[:-1] + b"\x63"))).key == "of another kind"


@pytest.mark.parametrize("broken", ["twice", "cut"])
def test_doctor_survives_a_broken_certificate(broken: str) -> None:
    whole = strange(an_extension_twice).public_bytes(serialization.Encoding.DER)

    class Stream:
        def getpeercert(self, *, binary_form: bool) -> bytes:
            assert binary_form
            return whole if broken == "twice" else whole[:100]

    [found] = encryption._certificate(Stream())  # type: ignore[arg-type]  # all that is asked of one
    assert (found.check, found.level) == ("certificate", Level.PROBLEM)
    assert found.sentence.startswith("its certificate is malformed: ")


# --- names ---


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("localhost", "localhost"),
        ("DB-1.Example.Internal", "db-1.example.internal"),
        ("_service.example", "_service.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("127.0.0.1", ipaddress.IPv4Address("127.0.0.1")),
        ("[0::1]", ipaddress.IPv6Address("::1")),
    ],
)
def test_names_of_servers(text: str, name: Name) -> None:
    assert server_name(text) == name


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("*.example.internal", "give each host a certificate with its own names"),
        ("tls://localhost:8000", "write the name alone"),
        ("localhost:8000", "write the name alone"),
        ("bücher.example", "'xn--' form"),
        ("1.2.3", "four numbers from 0 to 255"),
        ("256.0.0.1", "four numbers from 0 to 255"),
        ("fe80::1%eth0", "leave out '%eth0'"),
        ("", "letters, digits"),
        ("a..b", "letters, digits"),
        ("example.internal.", "letters, digits"),
        ("-x", "letters, digits"),
        ("a b", "letters, digits"),
        ("x" * 64, "parts of 1 to 63"),
        (".".join(["x" * 60] * 5), "letters, digits"),
        ("a\n", "letters, digits"),
    ],
)
def test_what_is_no_name_of_a_server(text: str, sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        server_name(text)
    assert sentence in str(caught.value)


def test_names_of_clients_keep_their_letters() -> None:
    assert client_name("Ada.Example") == "Ada.Example"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("x" * 65, "at most 64 characters and this has 65"), ("../ada", "is not"), ("10.0.0.1", "IP")],
)
def test_what_is_no_name_of_a_client(text: str, sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        client_name(text)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("text", "sentence"), [("10.0.0.1/8", "is not a network"), ("a/b", "is not a network"), ("a b", "is not a domain")]
)
def test_what_is_no_domain(text: str, sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        domain(text)
    assert sentence in str(caught.value)
