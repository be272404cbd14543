"""Who the other side is: what the kernel or the transport says, never what the peer says."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING

from tests.conformance.sides import Stage
from tests.conformance.subjects import Feature, needs

if TYPE_CHECKING:
    import pyipc
    from tests.conformance.subjects import Subject


@needs(Feature.USER)
async def test_the_kernel_says_which_user_and_process_it_is(stage: Stage) -> None:
    async with stage.open() as wire:
        peer = wire.ours.conn.peer
        assert peer.pid == os.getpid()
        if sys.platform == "win32":
            assert re.fullmatch(r"S-1(-[0-9]+)+", peer.sid or "")
        else:
            assert (peer.uid, peer.gid) == (os.getuid(), os.getgid())


@needs(Feature.HOST)
async def test_the_network_says_where_it_is(stage: Stage) -> None:
    async with stage.open() as wire:
        assert wire.ours.conn.peer.host in ("127.0.0.1", "::1")


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
