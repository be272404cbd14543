"""Who the other side is: what the kernel or the transport says, never what the peer says."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, Any

import pytest

import pyipc
from tests.conformance.sides import Stage, until
from tests.conformance.stranger import invite
from tests.conformance.subjects import LOOPBACK_HOSTS, Feature, needs

if TYPE_CHECKING:
    from tests.conformance.subjects import Subject


def assert_is(peer: pyipc.Peer, pid: int) -> None:
    assert peer.pid == pid != os.getpid()
    if sys.platform == "win32":
        assert re.fullmatch(r"S-1(-[0-9]+)+", peer.sid or "")
    else:
        assert (peer.uid, peer.gid) == (os.getuid(), os.getgid())


@needs(Feature.USER, Feature.MANY)
async def test_the_kernel_says_which_user_and_process_it_is(subject: Subject) -> None:
    """The other side is another process, once as a client and once as a server: else anything might be said of it."""
    callers: list[tuple[pyipc.Peer, list[Any]]] = []
    called: list[pyipc.Connection] = []
    server = pyipc.Server(subject.server_endpoint())
    server.on("stranger", lambda message: callers.append((message.connection.peer, message.data)))
    async with server, invite(subject, server):
        await until(lambda: bool(callers))
        [(caller, (pid, address))] = callers
        assert_is(caller, pid)
        async with pyipc.connect(subject.client_endpoint(pyipc.parse_address(address)), on_connect=called.append):
            assert_is(called[0].peer, pid)


@needs(Feature.HOST)
@pytest.mark.parametrize("host", LOOPBACK_HOSTS)
async def test_the_network_says_where_it_is(stage: Stage, host: str) -> None:
    stage.subject.host = host
    async with stage.open() as wire:
        assert wire.ours.conn.peer.host == host


def assert_verified(connection: pyipc.Connection) -> None:
    certificate = connection.peer.certificate
    assert certificate is not None
    assert re.fullmatch("sha256:[0-9a-f]{64}", certificate.fingerprint)


@needs(Feature.SERVER_CERTIFICATE)
async def test_a_client_knows_the_certificate_of_its_server(subject: Subject) -> None:
    async with Stage(subject, "client").open() as wire:
        assert_verified(wire.ours.conn)


@needs(Feature.CLIENT_CERTIFICATE)
async def test_a_server_knows_the_certificate_of_its_client(subject: Subject) -> None:
    async with Stage(subject, "server").open() as wire:
        assert_verified(wire.ours.conn)
