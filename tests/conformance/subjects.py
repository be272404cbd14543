"""What the conformance suite is run over: the transports, and what each of them promises.

To add a transport, write a class here and name it in `SUBJECTS`; that is all. The class says

* ``name``, which is in the ids of its tests and at the head of its column in the feature matrix,
* ``promises``, the features that it has: the tests that need others are not generated for it,
* ``platforms``, if it does not exist on all of them,
* `server_endpoint`, called once: a fresh address to listen on, with all that the server's side needs. Whatever has to
  be made first, such as a socket to hand over, is made in here,
* at ``self.anywhere``, if it promises `Feature.HOST`,
* `client_endpoint` and `server_endpoint_again`, if it takes more than the address at which the server says it is.

There is one object for each test, so it may keep what its two sides have in common. What belongs to all tests, such
as certificates, is made once with ``functools.cache``. ``folder`` is an empty directory of the test's own.

A test says which features it needs, ``@needs(Feature.ORDER, Feature.DELIVERY)``, or which must be missing,
``@lacks(...)``, where the promise is an error. A new promise is a member of `Feature` and at least one test that needs
it. Afterwards ``./run test tests/conformance`` says how to bring the page of the feature matrix up to date.

``PYIPC_CONFORMANCE=module:Class`` runs the suite over that class alone, which is how the transport of another
distribution is tested.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import importlib
import os
import secrets
import socket
import ssl
import sys
from typing import TYPE_CHECKING, ClassVar, Final

import pytest

from pyipc import TLS, Endpoint
from pyipc.transports.inherited import InheritedTransport
from tests.certificates import authority_file, leaf, leaf_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from pyipc import Address

__all__ = ["LOOPBACK_HOSTS", "STREAM", "SUBJECTS", "Feature", "Subject", "lacks", "needs", "subjects_for"]

EVERYWHERE: Final = frozenset({"linux", "darwin", "win32"})
POSIX: Final = frozenset({"linux", "darwin"})


def _loopback_hosts() -> list[str]:
    """The addresses of this machine at which its processes meet; a container may have no IPv6."""
    hosts = ["127.0.0.1"]
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as sock:
        sock.bind(("::1", 0))
        hosts.append("::1")
    return hosts


LOOPBACK_HOSTS: Final = _loopback_hosts()


class Feature(enum.Enum):
    """Something that a transport promises, in the words of the feature matrix."""

    MESSAGES = "events and requests arrive as they were sent"
    CANCEL = "requests are cancelled with their caller"
    TRACES = "events say which span of a trace they come from"
    ORDER = "order of events"
    DELIVERY = "nothing is lost or doubled while a connection lasts, nor when it is closed"
    LARGE = "messages of any size that the limits allow"
    CHUNKS = "frames may be cut anywhere on the way"
    PRESSURE = "back-pressure to the sender"
    STREAMS = "streams of answers, no faster than they are taken"
    ENDING = "the end of a connection is noticed at once"
    HALF_CLOSE = "a side that has finished sending can still receive"
    MANY = "many clients of one server"
    BROADCAST = "broadcast to all connected clients"
    ATTACHMENTS = "binary attachments arrive whole beside JSON"
    TOPICS = "topics: what is published reaches those who have subscribed to it"
    ABSENCE = "a server that is not there is noticed"
    RECONNECT = "a client comes back to a server that was started again"
    DRAIN = "a server that is drained loses nothing of what its clients have under way"
    CONFIRM = "confirmed events are handled once, also when the connection breaks"
    USER = "the user on the other side is known"
    HOST = "the address of the other side is known"
    SERVER_CERTIFICATE = "the server has shown a certificate"
    CLIENT_CERTIFICATE = "the client has shown a certificate"


#: Tests say what their transport must have, and what it must not.
needs = pytest.mark.needs
lacks = pytest.mark.lacks

#: What every transport promises that is a stream between one server and its clients.
STREAM: Final = frozenset(
    {
        *(Feature.MESSAGES, Feature.CANCEL, Feature.ORDER, Feature.DELIVERY, Feature.LARGE, Feature.CHUNKS),
        *(Feature.PRESSURE, Feature.ENDING, Feature.HALF_CLOSE, Feature.MANY, Feature.BROADCAST),
        *(Feature.ABSENCE, Feature.RECONNECT, Feature.DRAIN, Feature.CONFIRM, Feature.STREAMS),
        *(Feature.TOPICS, Feature.TRACES, Feature.ATTACHMENTS),
    }
)


class Subject:
    """A transport, at a place that one test has for itself.

    Args:
        folder: An empty directory.
    """

    name: ClassVar[str]
    promises: ClassVar[frozenset[Feature]]
    platforms: ClassVar[frozenset[str]] = EVERYWHERE
    #: Where to listen, if the transport knows hosts (`Feature.HOST`): one of `LOOPBACK_HOSTS`, as a test chooses.
    host: str = "127.0.0.1"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def anywhere(self) -> str:
        """That host and any free port, as addresses have it."""
        return f"[{self.host}]:0" if ":" in self.host else f"{self.host}:0"

    def server_endpoint(self) -> Endpoint:
        """Where the server is to listen. Called once."""
        raise NotImplementedError

    def raw_server_endpoint(self) -> Endpoint:
        """Where a test itself is to listen, which introduces itself to nobody, instead of a server."""
        return self.server_endpoint()

    def server_endpoint_again(self, address: Address) -> Endpoint:
        """The same for another server, which takes the place of one that was at ``address`` and is closed."""
        return dataclasses.replace(self.server_endpoint(), address=address)

    def client_endpoint(self, address: Address) -> Endpoint:
        """Where a client is to connect to reach the server that says it is at ``address``."""
        return Endpoint(address)

    def close(self) -> None:
        """Release what is left when the test is over."""


class Memory(Subject):
    name = "memory"
    promises = STREAM

    def server_endpoint(self) -> Endpoint:
        return Endpoint(f"memory:{self.folder.name}")


class Tcp(Subject):
    name = "tcp"
    promises = STREAM | {Feature.HOST}

    def server_endpoint(self) -> Endpoint:
        return Endpoint(f"tcp://{self.anywhere}")


class Tls(Subject):
    name = "tls"
    promises = STREAM | {Feature.HOST, Feature.SERVER_CERTIFICATE}

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.authority = authority_file(folder)
        self.server = leaf_file(folder / "server.pem", leaf("127.0.0.1", "::1"))
        self.client = leaf_file(folder / "client.pem", leaf("client.example"))

    def server_endpoint(self) -> Endpoint:
        return Endpoint(f"tls://{self.anywhere}", tls=TLS(cert=self.server))

    def raw_server_endpoint(self) -> Endpoint:
        plain = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # agrees on no protocol, and so promises no introduction
        leaf("127.0.0.1", "::1").configure_cert(plain)
        return Endpoint(f"tls://{self.anywhere}", tls=plain)

    def client_endpoint(self, address: Address) -> Endpoint:
        return Endpoint(address, tls=TLS(ca=self.authority))


class MutualTls(Tls):
    name = "mutual-tls"
    promises = Tls.promises | {Feature.CLIENT_CERTIFICATE}

    def server_endpoint(self) -> Endpoint:
        tls = TLS(cert=self.server, client_ca=self.authority)
        return Endpoint(f"tls://{self.anywhere}", tls=tls, allow={"client.example"})

    def client_endpoint(self, address: Address) -> Endpoint:
        tls = TLS(cert=self.client, ca=self.authority)
        return Endpoint(address, tls=tls, allow={"127.0.0.1"})


class Udp(Subject):
    name = "udp"
    promises = frozenset({Feature.MESSAGES, Feature.CANCEL, Feature.MANY, Feature.BROADCAST, Feature.HOST})

    def server_endpoint(self) -> Endpoint:
        return Endpoint(f"udp://{self.anywhere}")


class Unix(Subject):
    name = "unix"
    promises = STREAM | {Feature.USER}
    platforms = POSIX

    def server_endpoint(self) -> Endpoint:
        return Endpoint(f"unix:{self.folder}/socket")


def _for_one_test(descriptor: int) -> Endpoint:
    # Within this process numbers come again and again, which InheritedTransport does not let pass.
    return Endpoint(f"fd:{descriptor}", transport=InheritedTransport(taken=set()))


class Inherited(Subject):
    """A listening socket that was passed on; clients know it by its path."""

    name = "fd"
    promises = STREAM | {Feature.USER}
    platforms = POSIX

    def server_endpoint(self) -> Endpoint:
        path = self.folder / "socket"
        path.unlink(missing_ok=True)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.bind(str(path))
        sock.listen()
        return _for_one_test(sock.detach())

    def server_endpoint_again(self, address: Address) -> Endpoint:
        return self.server_endpoint()


class InheritedConnection(Subject):
    """Two processes, each of which was passed one end of a socket pair.

    The kernel knows who made the pair, which may be neither of them: nothing is promised of the user.
    """

    name = "fd-connected"
    promises = STREAM - {Feature.MANY, Feature.BROADCAST, Feature.ABSENCE, Feature.RECONNECT}
    platforms = POSIX

    def server_endpoint(self) -> Endpoint:
        servers, clients = socket.socketpair()
        self._clients = _for_one_test(clients.detach())
        return _for_one_test(servers.detach())

    def client_endpoint(self, address: Address) -> Endpoint:
        return self._clients


class Pipe(Subject):
    name = "pipe"
    promises = STREAM - {Feature.HALF_CLOSE} | {Feature.USER}
    platforms = frozenset({"win32"})

    def server_endpoint(self) -> Endpoint:
        return Endpoint(f"pipe:pyipc-{secrets.token_hex(16)}")  # the names of pipes belong to the whole machine


#: Every transport that must conform, in the order of the feature matrix.
SUBJECTS: Mapping[str, type[Subject]] = {
    subject.name: subject
    for subject in (
        Unix,
        Pipe,
        Tcp,
        Tls,
        MutualTls,
        Udp,
        Memory,
        Inherited,
        InheritedConnection,
    )
}


def _named(reference: str) -> dict[str, type[Subject]]:
    module, _, name = reference.partition(":")
    subject = getattr(importlib.import_module(module), name)
    assert isinstance(subject, type), f"{reference} is not a class"
    assert issubclass(subject, Subject), f"{reference} is not a class of tests.conformance.subjects.Subject"
    return {subject.name: subject}


if other := os.environ.get("PYIPC_CONFORMANCE"):
    SUBJECTS = _named(other)


def subjects_for(marks: Iterable[pytest.Mark], platform: str | None = sys.platform) -> list[str]:
    """The transports that a test is for.

    Args:
        marks: The test's marks.
        platform: Where it runs, as in ``sys.platform``; ``None`` for anywhere.
    """
    marks = list(marks)
    needed = {feature for mark in marks if mark.name == "needs" for feature in mark.args}
    missing = {feature for mark in marks if mark.name == "lacks" for feature in mark.args}
    return [
        name
        for name, subject in SUBJECTS.items()
        if needed <= subject.promises
        and not missing & subject.promises
        and (platform is None or platform in subject.platforms)
    ]
