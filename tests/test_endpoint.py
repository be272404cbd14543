"""`Endpoint`: who is admitted, and what is refused before anything is opened."""

from __future__ import annotations

import logging
import sys
from typing import Any, NoReturn

import pytest
import trio
import trio.testing

import pyipc
from pyipc import ANYONE, Endpoint, Peer, identity
from pyipc.endpoint import as_endpoint
from pyipc.options import Options
from pyipc.protocol.conversation import Role
from pyipc.transports import memory_link_pair
from tests.conftest import CANNOT_RUN

ME, OTHER, OVERFLOW = 1000, 1001, 65534


def is_admitted(endpoint: Endpoint, uid: int | None, *, overflow_uid: int | None = OVERFLOW) -> bool:
    try:
        endpoint.admit(Peer(address="unix:/x", uid=uid), own_uid=ME, overflow_uid=overflow_uid)
    except pyipc.PeerNotAllowed as error:
        assert isinstance(error.peer, Peer)
        assert error.peer.uid == uid
        return False
    return True


@pytest.mark.parametrize("address", ["world", "unix:/tmp/x.sock", "node-ipc:world"])
@pytest.mark.parametrize(
    ("allow", "uid", "admitted"),
    [
        (None, ME, True),
        (None, OTHER, False),
        (None, 0, False),
        (None, None, False),
        (None, OVERFLOW, False),
        ({OTHER}, OTHER, True),
        ({OTHER}, ME, False),
        ([ME, OTHER], ME, True),
        (range(1000, 2000), 1500, True),
        (set(), ME, False),
        ({OVERFLOW}, OVERFLOW, False),
        ({OTHER}, None, False),
        (ANYONE, OTHER, True),
        (ANYONE, None, True),
        (ANYONE, OVERFLOW, True),
        (lambda peer: peer.uid == OTHER, OTHER, True),
        (lambda peer: peer.uid == OTHER, ME, False),
        (lambda peer: True, None, True),
    ],
)
def test_who_is_admitted_on_a_local_socket(address: str, allow: Any, uid: int | None, admitted: bool) -> None:
    assert is_admitted(Endpoint(address, allow=allow), uid) is admitted


def test_root_is_not_everybody() -> None:
    """Even a server that runs as root admits root alone."""
    with pytest.raises(pyipc.PeerNotAllowed):
        Endpoint("world").admit(Peer(address="x", uid=1), own_uid=0, overflow_uid=OVERFLOW)
    Endpoint("world").admit(Peer(address="x", uid=0), own_uid=0, overflow_uid=OVERFLOW)


def test_this_user_is_not_admitted_where_it_is_the_overflow_user() -> None:
    with pytest.raises(pyipc.PeerNotAllowed, match="another namespace"):
        Endpoint("world").admit(Peer(address="x", uid=OVERFLOW), own_uid=OVERFLOW, overflow_uid=OVERFLOW)


MY_SID, OTHER_SID, SYSTEM = "S-1-5-21-1-2-3-1001", "S-1-5-21-1-2-3-1002", "S-1-5-18"


@pytest.mark.parametrize(
    ("allow", "sid", "admitted"),
    [
        (None, MY_SID, True),
        (None, OTHER_SID, False),  # of a server: whoever made the pipe first
        (None, None, False),
        ({OTHER_SID, SYSTEM}, SYSTEM, True),
        ({OTHER_SID}, MY_SID, False),
        ({OTHER_SID}, None, False),
        ({OTHER_SID}, "S-1-5-21-1-2-3-10021", False),
        (set(), MY_SID, False),
        (ANYONE, OTHER_SID, True),
        (ANYONE, None, True),
        (lambda peer: peer.sid == SYSTEM, SYSTEM, True),
        (lambda peer: peer.sid == SYSTEM, MY_SID, False),
    ],
)
def test_who_is_admitted_on_a_pipe(
    allow: Any, sid: str | None, admitted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "own_sid", lambda: MY_SID)
    try:
        Endpoint("pipe:world", allow=allow).admit(Peer(address="pipe:world", sid=sid))
    except pyipc.PeerNotAllowed as error:
        assert not admitted
        assert sid is None or sid in str(error)
    else:
        assert admitted


@pytest.mark.parametrize(
    ("allow", "options"),
    [
        (None, {}),
        ({OTHER_SID}, {"allow": {OTHER_SID}}),
        (ANYONE, {"allow": {"S-1-1-0"}}),  # Everyone
        (lambda peer: True, {}),  # chooses among those whom Windows lets in anyway
    ],
)
def test_whom_windows_is_to_let_into_a_pipe(allow: Any, options: dict[str, object]) -> None:
    assert Endpoint("pipe:world", allow=allow).listen_options == options
    assert Endpoint("pipe:world", allow=allow).connect_options == {}


@pytest.mark.skipif(sys.platform == "win32", reason=f"{CANNOT_RUN} Windows has security identifiers")
def test_elsewhere_nobody_has_a_security_identifier() -> None:
    assert identity.own_sid() is None
    with pytest.raises(pyipc.AddressError, match="give user ids"):
        Endpoint("world", allow={SYSTEM})


@pytest.mark.parametrize("answer", [False, None, 1, "yes", object()])
def test_only_true_admits(answer: object) -> None:
    assert not is_admitted(Endpoint("world", allow=lambda peer: answer), ME)  # type: ignore[arg-type, return-value]


def test_a_function_that_fails_denies() -> None:
    def fails(peer: Peer) -> NoReturn:
        raise KeyError(peer.uid)

    with pytest.raises(pyipc.PeerNotAllowed, match="failed") as caught:
        Endpoint("world", allow=fails).admit(Peer(address="x", uid=ME), own_uid=ME)
    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize("address", ["memory:x", "tcp://127.0.0.1:0"])
def test_where_the_kernel_tells_no_user_the_default_admits(address: str) -> None:
    assert is_admitted(Endpoint(address), None)


@pytest.mark.parametrize(
    "address", ["tcp://0.0.0.0:1", "tcp://192.0.2.1:1", "udp://192.0.2.1:1", "tcp://example.com:1"]
)
def test_plain_traffic_does_not_leave_this_host_unasked(address: str) -> None:
    with pytest.raises(pyipc.InsecureAddress, match="ANYONE"):
        Endpoint(address)
    with pytest.raises(pyipc.InsecureAddress):
        Endpoint(address, allow={ME})  # there are no user ids out there
    Endpoint(address, allow=ANYONE)
    Endpoint(address, allow=lambda peer: peer.host == "192.0.2.1")


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "tcp://[::1]:1", "tcp://localhost:1", "udp://127.0.0.1:1"])
def test_loopback_stays_on_this_host(address: str) -> None:
    assert Endpoint(address).parsed.leaves_host is False


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"allow": "1000"}, TypeError),
        ({"allow": b"1000"}, TypeError),
        ({"allow": 1000}, TypeError),
        ({"framing": "json"}, TypeError),
        ({"framing": pyipc.Json}, TypeError),
        ({"mode": 0o1777}, ValueError),
        ({"mode": 0o400}, ValueError),
        ({"mode": -1}, ValueError),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        Endpoint("world", **options)


@pytest.mark.parametrize("address", [7, None, b"world", ["world"]])
def test_what_is_no_address_is_refused(address: Any) -> None:
    with pytest.raises(pyipc.AddressError):
        as_endpoint(address)


def test_an_endpoint_stays_itself() -> None:
    endpoint = Endpoint("memory:x")
    assert as_endpoint(endpoint) is endpoint
    assert as_endpoint(endpoint.parsed) == endpoint
    assert as_endpoint("memory:x") == endpoint


def test_who_says_hello() -> None:
    def first_bytes(endpoint: Endpoint) -> bytes:
        return endpoint.converse(Role.CLIENT, Options(), agent="test").open()

    assert b"pyipc.hello" in first_bytes(Endpoint("memory:x"))
    assert first_bytes(Endpoint("memory:x", hello=False)) == b""
    assert first_bytes(Endpoint("node-ipc:world")) == b""
    assert first_bytes(Endpoint("memory:x", framing=pyipc.Raw())) == b""
    assert Endpoint("memory:x").converse(Role.SERVER, Options(), agent="test").open() == b""


async def test_a_server_turns_a_stranger_away(caplog: pytest.LogCaptureFixture) -> None:
    with trio.fail_after(5):
        async with pyipc.Server("memory:door") as server:
            closed = Endpoint("memory:door", allow=lambda peer: peer.uid == 1)
            _, theirs = memory_link_pair(right=Peer(address="x", uid=2))
            with pytest.raises(pyipc.PeerNotAllowed):
                server.adopt(theirs, closed)
            assert not server.connections
            friend, theirs = memory_link_pair(right=Peer(address="x", uid=1))
            server.adopt(theirs, closed)
            await trio.testing.wait_all_tasks_blocked()
            assert len(server.connections) == 1
            await friend.aclose()


async def test_a_listener_turns_a_stranger_away(caplog: pytest.LogCaptureFixture) -> None:
    def nobody(peer: Peer) -> bool:
        raise RuntimeError("the user database is down")

    with trio.fail_after(5):
        async with (
            pyipc.Server(Endpoint("memory:door", allow=nobody)) as server,
            pyipc.connect("memory:door", wait=False, reconnect=False) as client,
        ):
            await trio.testing.wait_all_tasks_blocked()
            assert server.statistics().denied == 1
            assert not server.connections
            assert client.statistics().connects == 1
    assert any(record.levelno >= logging.WARNING and "turned away" in record.message for record in caplog.records)
