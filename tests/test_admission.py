"""Who may be on the other side, for every way of knowing who it is."""

from __future__ import annotations

import sys
from typing import Any

import pytest

import pyipc
from pyipc import ANYONE, TLS, Certificate, Endpoint, Peer, PeerNotAllowed
from tests.conftest import CANNOT_RUN

ME, OTHER, OVERFLOW = 1000, 1001, 65534
MINE = f"sha256:{'a1' * 32}"
ANOTHER = f"sha256:{'b2' * 32}"

unix_only = pytest.mark.skipif(sys.platform == "win32", reason=f"{CANNOT_RUN} these addresses are pipes on Windows")


def is_admitted(endpoint: Endpoint, **known: Any) -> bool:
    peer = Peer(address="somewhere", **known)
    try:
        endpoint.admit(peer, own_uid=ME, overflow_uid=OVERFLOW)
    except PeerNotAllowed as error:
        assert error.peer is peer
        return False
    return True


def certificate(subject: str = "", *names: str, fingerprint: str = MINE) -> Certificate:
    return Certificate(subject=subject, names=names, fingerprint=fingerprint)


# --- certificates -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("allow", "shown", "admitted"),
    [
        (None, None, True),  # the authorities decide
        (None, certificate("ada"), True),
        (ANYONE, None, True),
        ({"ada"}, certificate("", "ada"), True),
        (["ada"], certificate("bob", "ada", "127.0.0.1"), True),
        ({"127.0.0.1"}, certificate("", "ada", "127.0.0.1"), True),
        ({MINE}, certificate("ada"), True),
        ({ANOTHER, "bob", MINE}, certificate("", "ada"), True),
        ({"ada"}, certificate("", "bob.example"), False),
        ({"ada"}, certificate("ada", "bob.example"), False),  # a common name is not confined, so it proves nothing
        ({"ada"}, certificate("ada"), False),
        ({"ada"}, certificate("", "Ada"), False),
        ({"ad", "adam"}, certificate("", "ada"), False),
        ({ANOTHER}, certificate("", "ada"), False),
        ({"ada"}, None, False),
        (set(), certificate("", "ada"), False),
        (lambda peer: peer.certificate.subject == "ada", certificate("ada"), True),
        (lambda peer: peer.certificate.subject == "ada", certificate("bob"), False),
        (lambda peer: peer.certificate.subject == "ada", None, False),  # the function fails, which denies
    ],
)
@pytest.mark.parametrize("address", ["tls://example.com:1", "fd:3", "systemd:"])
def test_by_certificate(address: str, allow: Any, shown: Certificate | None, admitted: bool) -> None:
    tls = None if address.startswith("tls") else TLS()
    assert is_admitted(Endpoint(address, allow=allow, tls=tls), certificate=shown) is admitted


def test_a_certificate_without_a_name_has_not_the_empty_one() -> None:
    assert not is_admitted(Endpoint("tls://h:1", allow={""}), certificate=certificate("", ""))


def test_no_name_passes_for_a_fingerprint() -> None:
    """Who signs certificates may vouch for any name, but not for the certificate of somebody else."""
    endpoint = Endpoint("tls://example.com:1", allow={ANOTHER})
    assert not is_admitted(endpoint, certificate=certificate("", ANOTHER))
    assert is_admitted(endpoint, certificate=certificate("", fingerprint=ANOTHER))


def test_the_user_of_a_socket_does_not_matter_where_certificates_are_asked_for() -> None:
    endpoint = Endpoint("fd:3", tls=TLS(), allow={"ada"})
    assert is_admitted(endpoint, uid=OTHER, certificate=certificate("", "ada"))
    assert not is_admitted(endpoint, uid=ME)


@pytest.mark.parametrize(
    "fingerprint",
    [MINE.upper().replace("SHA256", "sha256"), MINE[:-1], MINE + "0", "sha256:" + ":".join(["a1"] * 32), "sha256:"],
)
def test_a_fingerprint_that_is_none_is_refused(fingerprint: str) -> None:
    with pytest.raises(pyipc.AddressError, match="64 small hexadecimal digits"):
        Endpoint("tls://example.com:1", allow={fingerprint})


@pytest.mark.parametrize("allow", [{ME}, [ME, "ada"], range(3)])
def test_users_are_not_told_by_tls(allow: Any) -> None:
    with pytest.raises(pyipc.AddressError, match="names or fingerprints"):
        Endpoint("tls://example.com:1", allow=allow)


def test_the_sentence_says_how_to_admit_it() -> None:
    with pytest.raises(PeerNotAllowed, match="for 'ada', which is not allowed") as caught:
        Endpoint("tls://h:1", allow={"bob"}).admit(Peer(address="x", certificate=certificate("bob", "ada")))
    assert f"allow={{{MINE!r}}}" in str(caught.value)
    with pytest.raises(PeerNotAllowed, match="a common name does not count"):
        Endpoint("tls://h:1", allow={"bob"}).admit(Peer(address="x", certificate=certificate("bob")))
    with pytest.raises(PeerNotAllowed, match="client_ca="):
        Endpoint("tls://h:1", allow={"bob"}).admit(Peer(address="x"))
    with pytest.raises(PeerNotAllowed, match="certificate sha256:a1a1"):
        Endpoint("tls://h:1", allow=lambda peer: False).admit(Peer(address="x", certificate=certificate()))


# --- users ------------------------------------------------------------------------------------------------------


@unix_only
@pytest.mark.parametrize("address", ["world", "unix:/run/app.sock", "unix:@world", "node-ipc:world"])
@pytest.mark.parametrize(
    ("allow", "uid", "admitted"),
    [
        (None, ME, True),
        (None, OTHER, False),
        (None, None, False),
        ({OTHER}, OTHER, True),
        ({OTHER}, ME, False),
        (ANYONE, None, True),
        (lambda peer: peer.uid == OTHER, OTHER, True),
    ],
)
def test_by_user_id(address: str, allow: Any, uid: int | None, admitted: bool) -> None:
    assert is_admitted(Endpoint(address, allow=allow), uid=uid) is admitted


@unix_only
def test_names_of_users_admit_nobody() -> None:
    with pytest.raises(pyipc.AddressError, match="give user ids"):
        Endpoint("world", allow={"ada"})


@pytest.mark.parametrize(
    ("allow", "sid", "admitted"),
    [({"S-1-5-18"}, "S-1-5-18", True), ({"S-1-5-18"}, "S-1-5-19", False), (ANYONE, "S-1-5-19", True)],
)
def test_by_the_sid_of_a_pipe(allow: Any, sid: str, admitted: bool) -> None:
    assert is_admitted(Endpoint("pipe:world", allow=allow), sid=sid) is admitted


def test_a_certificate_is_no_user() -> None:
    assert not is_admitted(Endpoint("unix:/run/app.sock", allow={OTHER}), certificate=certificate("", "ada"))


# --- sockets that were inherited --------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["fd:3", "systemd:"])
@pytest.mark.parametrize(
    ("allow", "known", "admitted"),
    [
        (None, {"uid": ME}, True),  # a Unix socket
        (None, {"uid": OTHER}, False),
        ({OTHER}, {"uid": OTHER}, True),
        (None, {"host": "127.0.0.1"}, True),  # TCP
        (None, {"host": "::1"}, True),
        (None, {"host": "192.0.2.1"}, False),
        ({ME}, {"host": "127.0.0.1"}, False),
        (ANYONE, {"host": "192.0.2.1"}, True),
        (lambda peer: peer.host == "192.0.2.1", {"host": "192.0.2.1"}, True),
    ],
)
def test_by_what_an_inherited_socket_is(address: str, allow: Any, known: dict[str, Any], admitted: bool) -> None:
    assert is_admitted(Endpoint(address, allow=allow), **known) is admitted


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "udp://127.0.0.1:1"])
def test_where_nobody_can_tell_who_it_is(address: str) -> None:
    for allow in ({ME}, {"ada"}):
        with pytest.raises(pyipc.AddressError, match="nobody can tell who a peer is"):
            Endpoint(address, allow=allow)
    assert is_admitted(Endpoint(address), host="127.0.0.1")
