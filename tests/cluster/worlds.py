"""A primary that hands over, and workers that take: in one process, or the workers in processes of their own."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from pyipc.cluster.candidate import Candidate
from pyipc.cluster.courier import SocketCourier, SocketMailbox
from pyipc.cluster.handing import Handing
from pyipc.cluster.policies import Policy, RoundRobin
from pyipc.cluster.receiving import Receiving
from pyipc.errors import ConnectionClosed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

CLAIM = "a"
PROGRAM = Path(__file__).with_name("handing_program.py")


class TcpSource:
    """A listening socket, with the errors that a test wants."""

    def __init__(self, backlog: int = 1024) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=backlog)
        self.socket.setblocking(False)
        self.errors: list[OSError] = []

    @property
    def where(self) -> tuple[str, int]:
        host, port = self.socket.getsockname()
        return host, port

    async def accept(self) -> socket.socket:
        while True:
            try:
                await trio.lowlevel.wait_readable(self.socket)
                if self.errors:
                    raise self.errors.pop()
                return self.socket.accept()[0]
            except BlockingIOError:
                continue
            except (trio.ClosedResourceError, ValueError) as error:
                raise ConnectionClosed("closed") from error

    def close(self) -> None:
        trio.lowlevel.notify_closing(self.socket)
        self.socket.close()


def shortage() -> OSError:
    return OSError(errno.EMFILE, "no descriptors left")


@contextlib.asynccontextmanager
async def primary(policy: Policy | None = None, **settings: Any) -> AsyncIterator[tuple[Handing, TcpSource]]:
    source = TcpSource()
    handing = Handing(CLAIM, source, policy or RoundRobin(), **settings)
    async with trio.open_nursery() as nursery:
        await nursery.start(handing.run)
        try:
            yield handing, source
        finally:
            nursery.cancel_scope.cancel()
            handing.close()
            source.close()


@dataclasses.dataclass
class Condition:
    """How a worker is doing, as a test wants it."""

    in_flight: int = 0
    lag: float = 0.0


class LocalWorker:
    """Both ends of one worker in this process."""

    def __init__(self, worker: str = "w") -> None:
        self.courier, theirs = SocketCourier.pair()
        self.mailbox = SocketMailbox(theirs)
        self.condition = Condition()
        self.candidate = Candidate(self.courier, self.condition, worker=worker, role="web")
        self.receiving = Receiving(self.mailbox)

    def die(self) -> None:
        """What the primary sees when the process is killed."""
        self.mailbox.close()


@contextlib.asynccontextmanager
async def local_workers(*names: str) -> AsyncIterator[list[LocalWorker]]:
    workers = [LocalWorker(name) for name in names]
    async with trio.open_nursery() as nursery:
        for worker in workers:
            nursery.start_soon(worker.candidate.run)
            await nursery.start(worker.receiving.run)
        try:
            yield workers
        finally:
            nursery.cancel_scope.cancel()
            for worker in workers:
                worker.candidate.close()
                worker.mailbox.close()


@contextlib.contextmanager
def clients(source: TcpSource, count: int) -> Iterator[list[socket.socket]]:
    """Connections that are made already."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(socket.create_connection(source.where)) for _ in range(count)]


async def settled() -> None:
    """Wait until nothing happens any more in this process, sockets included."""
    await trio.testing.wait_all_tasks_blocked(0.02)


class ProcessWorker:
    """A worker in a process of its own; see `handing_program`.

    Args:
        worker: Its id.
        mode: What it does.
    """

    def __init__(self, worker: str, mode: str) -> None:
        self.courier, theirs = SocketCourier.pair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, str(PROGRAM), worker, mode, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdout=subprocess.PIPE,
                cwd=PROGRAM.parents[2],
                env={**os.environ, "PYTHONPATH": str(PROGRAM.parents[2])},
            )
        self.candidate = Candidate(self.courier, Condition(), worker=worker)

    async def says(self) -> str:
        """The next line that it writes."""
        assert self.process.stdout is not None
        return (await trio.to_thread.run_sync(self.process.stdout.readline)).decode().strip()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.candidate.close()
