"""`pyipc.TLS`: what its files must be, and that they are read again when they change."""

from __future__ import annotations

import logging
import os
import ssl
import subprocess
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
import trio
import trio.testing
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, load_pem_private_key

import pyipc
from pyipc import TLS, CertificateFileError
from pyipc.transports import tls_settings
from pyipc.transports.tls_settings import ALPN, client_context, server_context
from tests.certificates import authority, authority_file, leaf, leaf_file

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def cert(tmp_path: Path) -> Path:
    """A certificate with its key."""
    return leaf_file(tmp_path / "server.pem", leaf("127.0.0.1"))


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    return authority_file(tmp_path)


# --- what is refused at once ------------------------------------------------------------------------------------


def refusal(**files: Any) -> CertificateFileError:
    with pytest.raises(CertificateFileError) as caught:
        TLS(**files)
    assert isinstance(caught.value, ValueError)
    return caught.value


@pytest.mark.parametrize("name", ["cert", "key", "ca", "client_ca"])
def test_a_file_that_is_not_there(cert: Path, name: str) -> None:
    missing = str(cert.parent / "missing.pem")
    error = refusal(**{"cert": cert, name: missing})
    assert error.path == missing
    assert "No such file" in str(error)
    assert "give the path" in str(error)


@pytest.mark.parametrize("name", ["cert", "ca", "client_ca"])
def test_a_file_that_is_something_else(cert: Path, name: str) -> None:
    other = cert.parent / "other.pem"
    other.write_text("not a certificate")
    error = refusal(**{"cert": cert, name: other})
    assert error.path == str(other)
    assert "does not hold" in str(error)
    assert "certificate" in str(error)


@pytest.mark.parametrize("name", ["cert", "ca", "client_ca"])
def test_a_file_that_is_damaged(cert: Path, name: str) -> None:
    damaged = cert.parent / "damaged.pem"
    damaged.write_text(cert.read_text().replace("MII", "!!!"))
    error = refusal(**{"cert": cert, name: damaged})
    assert error.path == str(damaged)
    assert "damaged" in str(error)


def test_a_directory_is_no_file(cert: Path) -> None:
    error = refusal(ca=cert.parent)
    assert error.path == str(cert.parent)
    assert "cannot be read: " + ("Permission denied" if sys.platform == "win32" else "Is a directory") in str(error)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="cannot run here: root may read everything")
def test_a_file_that_may_not_be_read(cert: Path) -> None:
    cert.chmod(0)
    assert "Permission denied" in str(refusal(cert=cert))


def test_a_certificate_without_its_key(tmp_path: Path) -> None:
    path = tmp_path / "cert.pem"
    path.write_bytes(leaf("127.0.0.1").cert_chain_pems[0].bytes())
    error = refusal(cert=path)
    assert "private key" in str(error)
    assert "give key=" in str(error)
    assert "does not hold the private key" in str(refusal(cert=path, key=path))


def test_a_key_that_is_not_of_the_certificate(cert: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.key"
    other.touch(0o600)
    leaf("other.example").private_key_pem.write_to_path(other)
    error = refusal(cert=cert, key=other)
    assert error.path == str(other)
    assert "is not that of the certificate" in str(error)


def test_a_key_with_a_password_is_refused_rather_than_asked_for(cert: Path, tmp_path: Path) -> None:
    key = load_pem_private_key(leaf("127.0.0.1").private_key_pem.bytes(), None)
    locked = tmp_path / "locked.key"
    locked.touch(0o600)
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, BestAvailableEncryption(b"password")
        )
    )
    error = refusal(cert=cert, key=locked)
    assert error.path == str(locked)
    assert "encrypted" in str(error)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"key": "key.pem"}, "give cert="),
        ({"client_ca": "ca.pem"}, "give cert="),
        ({"ca": "ca.pem", "insecure": True}, "leave out one"),
    ],
)
def test_what_contradicts_itself(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TLS(**arguments)


@pytest.mark.parametrize("value", [7, True, ["ca.pem"]])
def test_what_is_no_path(value: object) -> None:
    with pytest.raises(TypeError, match="path of a PEM file"):
        TLS(ca=value)  # type: ignore[arg-type]


@pytest.mark.parametrize("tls", ["ca.pem", True, {"ca": "ca.pem"}, TLS])
def test_what_is_no_tls(tls: Any) -> None:
    with pytest.raises(TypeError, match=r"pyipc\.TLS"):
        pyipc.Endpoint("tls://127.0.0.1:1", tls=tls)


def test_tls_is_for_addresses_that_have_it() -> None:
    with pytest.raises(pyipc.AddressError, match="tls://"):
        pyipc.Endpoint("tcp://127.0.0.1:1", tls=TLS())
    pyipc.Endpoint("fd:3", tls=TLS())


# --- what is warned of ------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name != "posix", reason="cannot run here: there are no modes")
@pytest.mark.parametrize(("mode", "is_warned_of"), [(0o600, False), (0o640, False), (0o644, True), (0o602, True)])
def test_a_key_that_everybody_can_read(
    cert: Path, mode: int, is_warned_of: bool, caplog: pytest.LogCaptureFixture
) -> None:
    cert.chmod(mode)
    TLS(cert=cert)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert any(str(cert) in text and "chmod 600" in text for text in warnings) is is_warned_of


def test_trusting_anybody_is_never_silent_and_never_the_default(caplog: pytest.LogCaptureFixture) -> None:
    assert TLS().insecure is False
    assert not caplog.records
    TLS(insecure=True)
    assert "not verified" in caplog.text


# --- what holds for every connection ----------------------------------------------------------------------------


async def test_nothing_is_weaker_than_it_should_be(cert: Path, ca: Path) -> None:
    tls = TLS(cert=cert, ca=ca, client_ca=ca)
    client, server = client_context(tls), server_context(tls)
    for context in (client, server):
        assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.options & ssl.OP_NO_COMPRESSION
        assert context.options & ssl.OP_NO_RENEGOTIATION
    assert client.check_hostname
    assert not client.hostname_checks_common_name
    assert len(client.get_ca_certs()) == len(server.get_ca_certs()) == 1
    assert (server_context(TLS(cert=cert)).verify_mode, server.num_tickets) == (ssl.CERT_NONE, 0)


async def test_without_a_word_the_authorities_of_the_system_are_trusted() -> None:
    context = client_context(TLS())
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    stats = ssl.create_default_context().cert_store_stats()
    assert context.cert_store_stats() == stats


async def test_a_server_needs_a_certificate(ca: Path) -> None:
    with pytest.raises(ValueError, match="cert="):
        server_context(TLS(ca=ca))


def test_it_is_a_value(cert: Path) -> None:
    assert TLS(cert=cert) == TLS(cert=str(cert))
    assert hash(TLS(cert=cert)) == hash(TLS(cert=str(cert)))
    assert TLS(cert=cert) != TLS(cert=cert, client_ca=cert)
    assert repr(str(cert)) in repr(TLS(cert=cert))
    with pytest.raises(AttributeError):
        TLS(cert=cert).cert = "other"  # type: ignore[misc]


def test_a_relative_path_stays_where_it_was(cert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(cert.parent)
    tls = TLS(cert=cert.name)
    monkeypatch.chdir("/")
    tls.reload()
    assert tls.cert == str(cert)


def test_it_is_there_without_ssl() -> None:
    """Apart from trio, which imports it anyway, nothing loads it before a context is made."""
    program = (
        "import sys, pyipc.transports.tls_settings as settings\n"
        "assert not hasattr(settings, 'ssl'), 'imported at the top'\n"
        "assert 'pyipc.transports.tls' not in sys.modules\n"
        "assert 'cryptography' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)


# --- files that change ------------------------------------------------------------------------------------------


def shown(context: ssl.SSLContext) -> bytes:
    """The certificate that a context shows to clients."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours, theirs = client.wrap_bio(to_client, to_server), context.wrap_bio(to_server, to_client, server_side=True)
    for side in (ours, theirs, ours):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    found = ours.getpeercert(binary_form=True)
    assert found is not None
    return found


def der(name: str) -> bytes:
    return ssl.PEM_cert_to_DER_cert(leaf(name).cert_chain_pems[0].bytes().decode())


async def test_changed_files_are_used_a_second_later(cert: Path, autojump_clock: trio.testing.MockClock) -> None:
    tls = TLS(cert=cert)
    first = server_context(tls)
    assert shown(first) == der("127.0.0.1")
    leaf_file(cert, leaf("new.example"))
    assert server_context(tls) is first  # the files are looked at once a second
    await trio.sleep(1)
    second = server_context(tls)
    assert shown(second) == der("new.example")
    await trio.sleep(1)
    assert server_context(tls) is second


async def test_reload_uses_them_at_once(cert: Path) -> None:
    tls = TLS(cert=cert)
    server_context(tls)
    leaf_file(cert, leaf("new.example"))
    tls.reload()
    assert shown(server_context(tls)) == der("new.example")


async def test_a_broken_file_changes_nothing_and_is_told_once(
    cert: Path, caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    tls = TLS(cert=cert)
    before = server_context(tls)
    whole = cert.read_bytes()
    cert.write_text("half a certif")
    for _ in range(5):
        await trio.sleep(1)
        assert server_context(tls) is before
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert repr(str(cert)) in errors[0].getMessage()
    with pytest.raises(CertificateFileError):
        tls.reload()
    assert server_context(tls) is before
    cert.unlink()
    await trio.sleep(1)
    assert server_context(tls) is before
    cert.write_bytes(whole)
    await trio.sleep(1)
    assert shown(server_context(tls)) == der("127.0.0.1")
    assert server_context(tls) is not before


async def test_files_that_could_not_be_read_are_tried_again_though_nothing_is_seen_of_it(
    cert: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """Such as for want of descriptors, or of a permission that is given a moment later."""
    tls = TLS(cert=cert)
    before = server_context(tls)
    leaf_file(cert, leaf("new.example"))

    def fail(*_: object) -> NoReturn:
        raise CertificateFileError(str(cert), "no descriptor is free")

    with monkeypatch.context() as patched:
        patched.setattr(tls_settings, "_load_own", fail)
        await trio.sleep(1)
        assert server_context(tls) is before
    await trio.sleep(1)
    assert shown(server_context(tls)) == der("new.example")


async def test_whom_to_trust_is_read_again_too(cert: Path, ca: Path, autojump_clock: trio.testing.MockClock) -> None:
    tls = TLS(cert=cert, ca=ca, client_ca=ca)
    both = (client_context(tls), server_context(tls))
    before = [context.get_ca_certs() for context in both]
    authority("theirs").cert_pem.write_to_path(ca)
    await trio.sleep(1)
    assert [context.get_ca_certs() for context in (client_context(tls), server_context(tls))] != before
    assert [context.get_ca_certs() for context in both] == before


def test_another_run_of_trio_has_another_clock(cert: Path) -> None:
    tls = TLS(cert=cert)

    async def look() -> bytes:
        return shown(server_context(tls))

    clocks = [trio.testing.MockClock() for _ in range(2)]
    clocks[0].jump(1_000)
    assert trio.run(look, clock=clocks[0]) == der("127.0.0.1")
    leaf_file(cert, leaf("new.example"))
    assert trio.run(look, clock=clocks[1]) == der("new.example")


async def test_a_context_made_elsewhere_is_used_as_it_is() -> None:
    client, server = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    assert client_context(client) is client
    assert server_context(server) is server
    with pytest.raises(ValueError, match="made for clients"):
        server_context(client)
    with pytest.raises(ValueError, match="made for servers"):
        client_context(server)


def test_the_name_of_the_protocol() -> None:
    assert ALPN == "pyipc/1"
