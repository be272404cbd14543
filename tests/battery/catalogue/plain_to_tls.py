"""Plain text, and broken TLS, at a server that speaks TLS."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING

import trio

import pyipc
from tests.battery.catalogue.cases import HELLO, PLAIN, Case, Chapter, closed, frame, record
from tests.battery.catalogue.handshake import CLIENT_HELLO
from tests.battery.catalogue.runner import differences, try_each
from tests.conformance.sides import until

if TYPE_CHECKING:
    from tests.conformance.subjects import Subject

__all__ = ["CHAPTER", "complaints"]


def refused(name: str, sends: bytes, *, finishes: bool = False) -> Case:
    """It never becomes a connection."""
    case = closed(name, "handshake_errors", sends, first=PLAIN)
    return dataclasses.replace(case, finishes=finishes)


PLAIN_TEXT = (
    refused("a hello of pyipc", HELLO),
    refused("an event", frame("e", 1)),
    refused("a record", record(b"x")),
    refused("a delimiter", b"\f" * 9),
    refused("HTTP", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    refused("an SSH banner", b"SSH-2.0-OpenSSH_9.6\r\n"),
    refused("64 KiB of zeros", bytes(65_536)),
    refused("nothing but the end of the stream", b"", finishes=True),
    refused("one byte, and the end of the stream", b"{", finishes=True),
)
BROKEN = (
    refused("a hello that is cut off", CLIENT_HELLO[:20], finishes=True),
    refused("a hello without ciphers that anybody has", CLIENT_HELLO.replace(b"\x13\x01", b"\x00\x00")),
    refused("a hello of SSL 2", b"\x80\x2e\x01\x00\x02" + bytes(43)),
    refused("a record of a version that never was", b"\x16\x09\x09\x00\x05hello"),
    refused("a record of 65,535 bytes, more than any may have", b"\x16\x03\x01\xff\xff" + bytes(100)),
    refused("a record that says it is data", b"\x17\x03\x03\x00\x05hello"),
    refused("an alert", b"\x15\x03\x03\x00\x02\x02\x28"),
    refused("a hello twice, and garbage", CLIENT_HELLO * 2 + b"\x16\x03\x03\x00\x01\xff"),
)

CHAPTER = Chapter(
    "To a server that speaks TLS",
    "Who does not finish the handshake never becomes a connection: there is no `on_disconnect`, and nothing of it is "
    "read as a frame. It is counted in the server's `handshake_errors`.",
    {"Plain text": PLAIN_TEXT, "Broken TLS": BROKEN},
)


class _Stand:
    def __init__(self, server: pyipc.Server, neighbor: pyipc.Client) -> None:
        self._server = server
        self._neighbor = neighbor

    async def check(self, case: Case) -> list[str]:
        """Try one case; return what did not come out as it says."""
        before = self._server.statistics()
        address = self._server.addresses[0]
        stream = await trio.open_tcp_stream(address.host, address.port)
        async with stream:
            await stream.send_all(b"".join(case.sends))
            if case.finishes:
                await stream.send_eof()
            with contextlib.suppress(trio.BrokenResourceError):  # closed with our bytes unread
                while await stream.receive_some():
                    pass
        await until(lambda: self._server.statistics().handshake_errors > before.handshake_errors)
        after = self._server.statistics()
        return differences(
            ("handshakes that failed:", after.handshake_errors - before.handshake_errors, 1),
            ("connections that came to be:", after.accepted - before.accepted, 0),
            ("another client is answered", await self._neighbor.request("echo", "still there"), "still there"),
        )


async def complaints(subject: Subject) -> list[str]:
    """Try the cases of this chapter, and say what came out otherwise than it should."""
    server = pyipc.Server(subject.server_endpoint())
    server.on("echo", lambda message: message.data)
    async with server, pyipc.connect(subject.client_endpoint(server.addresses[0])) as neighbor:
        await neighbor.request("echo")
        return await try_each(_Stand(server, neighbor).check, CHAPTER.cases)
