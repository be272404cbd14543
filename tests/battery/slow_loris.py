"""A server that is attacked, who attacks it, and who wants something of it meanwhile.

``python -m tests.battery.slow_loris serve|attack|ask ...``
"""

from __future__ import annotations

import collections
import contextlib
import logging
import random
import sys
import time

import trio

import pyipc
from tests.battery.program import tell, told
from tests.battery.sizes import FACTOR
from tests.conformance.sides import until
from tests.wire import frame, hello

_DEFAULTS = pyipc.Options()
#: Seconds that the server gives everybody: less than by default where not much time is there for all of it.
HANDSHAKE, FRAME, CLOSE = (
    (_DEFAULTS.handshake_timeout or 0, _DEFAULTS.frame_timeout or 0, _DEFAULTS.close_timeout)
    if FACTOR >= 10
    else (3.0, 4.0, 0.5)
)


def more_descriptors() -> None:
    """Let this process open as many files as it may."""
    import resource  # which only Unix has

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class Victim:
    """The server.

    Args:
        address: Where it listens, beside an address of TLS.
        certificate: The file of its certificate there.
        limits: How many connections there may be, of all kinds; those of the options where it is ``None``.
    """

    def __init__(self, address: str, certificate: str, limits: int | None = None) -> None:
        secure = pyipc.Endpoint("tls://127.0.0.1:0", tls=pyipc.TLS(cert=certificate))
        self.server = pyipc.Server(
            address,
            secure,
            plain_peers=False,
            handshake_timeout=HANDSHAKE,
            frame_timeout=FRAME,
            close_timeout=CLOSE,
            max_connections=limits or _DEFAULTS.max_connections,
            max_connections_per_peer=limits or _DEFAULTS.max_connections_per_peer,
            max_handshakes=limits or _DEFAULTS.max_handshakes,
        )
        self.ends: collections.Counter[str] = collections.Counter()
        self.server.on("double", lambda message: 2 * message.data)
        self.server.on_disconnect(self.ended)

    def ended(self, reason: pyipc.Disconnected) -> None:
        self.ends[reason.code] += 1

    @property
    def thrown_out(self) -> int:
        """How many did not leave by themselves, or were not let in."""
        known = self.server.statistics()
        return sum(self.ends.values()) - self.ends["goodbye"] + known.handshake_errors + known.refused

    async def run(self) -> None:
        async with self.server:
            tell([str(address) for address in self.server.addresses])
            async for count in told():
                await until(lambda: self.thrown_out >= count)  # noqa: B023 - it is over when this is
                known = self.server.statistics()
                errors = {"handshake_errors": known.handshake_errors, "refused": known.refused}
                tell({"at": time.monotonic(), "ends": self.ends, **errors})


class Attack:
    """Many connections that keep the server waiting, and do not close even when they are told to go.

    Args:
        address: Where everybody is welcome that introduces itself.
        secure: Where that takes TLS.
        source: Where it comes from, where that is a host.
        silent: How many say nothing.
        dribbling: How many say a byte a second: half of them of their hello, and half of an event.
        stuck: How many begin a TLS handshake: half of them with a few bytes, and half with none.
    """

    def __init__(self, address: str, secure: str, source: str, silent: int, dribbling: int, stuck: int) -> None:
        self.source = source
        half, rest = dribbling // 2, dribbling - dribbling // 2
        self.plans: list[tuple[str, bytes, bytes]] = [
            *[(address, b"", b"")] * silent,
            *[(address, b"", hello())] * half,
            *[(address, hello(), frame("double", 7))] * rest,
            *[(secure, b"", b"")] * (stuck // 2),
            *[(secure, b"\x16\x03\x01\x02\x00\x01", b"")] * (stuck - stuck // 2),
        ]
        random.Random(7).shuffle(self.plans)

    async def run(self) -> None:
        """Connect all of them whenever there is a word, and let go of them at the next."""
        words = told()
        async for _ in words:
            async with trio.open_nursery() as nursery:
                for plan in self.plans:
                    await nursery.start(self.one, *plan)
                tell({"connected": len(self.plans), "at": time.monotonic()})
                await anext(words, None)
                nursery.cancel_scope.cancel()
            tell("let go")

    async def one(self, address: str, at_once: bytes, slowly: bytes, *, task_status: trio.TaskStatus[None]) -> None:
        async with await connect(address, self.source) as stream:
            task_status.started()
            with contextlib.suppress(trio.BrokenResourceError):
                await stream.send_all(at_once)
                for place in range(len(slowly)):
                    await stream.send_all(slowly[place : place + 1])
                    await trio.sleep(1)
            await trio.sleep_forever()


async def connect(address: str, source: str) -> trio.SocketStream:
    where = pyipc.parse_address(address)
    if where.scheme == "unix":
        return await trio.open_unix_socket(where.name)
    return await trio.open_tcp_stream(where.host, where.port, local_address=source)


class Askers:
    """Clients that want answers, and measure how long they wait for them.

    Args:
        address: Where.
        secure: Where that takes TLS.
        authority: The file of who signed the server's certificate.
        count: How many there are.
    """

    def __init__(self, address: str, secure: str, authority: str, count: int) -> None:
        self.address = address
        self.secure = pyipc.Endpoint(secure, tls=pyipc.TLS(ca=authority))
        self.count = count
        self.times: list[float] = []
        self.answered = 0

    async def run(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(pyipc.connect(self.address)) for _ in range(self.count)]
            tell("ready")
            async for each in told():
                self.times, self.answered = [], 0
                async with trio.open_nursery() as nursery:
                    for client in clients:
                        nursery.start_soon(self.ask, client, each)
                    nursery.start_soon(self.come_and_go, each)
                times = sorted(self.times)
                tell(
                    {"answered": self.answered, "median": times[len(times) // 2], "p99": times[len(times) * 99 // 100]}
                )

    async def ask(self, client: pyipc.Client, count: int) -> None:
        for number in range(count):
            began = time.monotonic()
            answer = await client.request("double", number)
            self.answered += answer == 2 * number
            self.times.append(time.monotonic() - began)
            await trio.sleep(0.01)

    async def come_and_go(self, count: int) -> None:
        """One client after the other, with a question each, in the clear and over TLS."""
        for number in range(count):
            async with pyipc.connect(self.secure if number % 2 else self.address) as client:
                answer = await client.request("double", number)
                self.answered += answer == 2 * number


if __name__ == "__main__":
    more_descriptors()
    logging.getLogger("pyipc").setLevel(logging.ERROR)  # each that is thrown out is worth a warning
    role, *words = sys.argv[1:]
    if role == "serve":
        at, certificate, *limits = words
        trio.run(Victim(at, certificate, *map(int, limits)).run)
    elif role == "attack":
        at, secure, source, *numbers = words
        trio.run(Attack(at, secure, source, *map(int, numbers)).run)
    else:
        at, secure, authority, count = words
        trio.run(Askers(at, secure, authority, int(count)).run)
