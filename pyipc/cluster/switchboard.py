"""The primary's side of all connections with its workers: two servers, and whose connection is whose."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pyipc
from pyipc.cluster.control import channel_options

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from pyipc.cluster.process import WorkerProcess
    from pyipc.transports import Link

__all__ = ["Switchboard"]

# Both servers have a connection for each worker process, and nobody else can make one.
_MANY = 1_000_000


class Switchboard:
    """Adopts the links of worker processes, and knows from which one a message is.

    Args:
        router: The program's handlers for what workers send.
        max_frame_size: The largest message, in bytes.
        has_handlers: Whether the program has any handler for what a process sends.

    Attributes:
        router: Handlers for what workers say of themselves.
        control: The server of the connections by which they are ruled.
        messages: The server of those for what programs say; its topics are the cluster's.
    """

    def __init__(
        self, router: pyipc.Router, max_frame_size: int, has_handlers: Callable[[WorkerProcess], bool]
    ) -> None:
        options = channel_options(max_frame_size)
        options |= {"max_connections": _MANY, "max_connections_per_peer": _MANY}
        # A process introduces itself when its interpreter is up, however long that takes: `ready_timeout` ends it.
        options |= {"handshake_timeout": None, "max_handshakes": _MANY}
        self.router: pyipc.Router = pyipc.Router()
        self.control: pyipc.Server = pyipc.Server(
            router=self.router, plain_peers=False, **options, max_concurrent_requests=_MANY
        )
        # A worker that is too slow for what is published misses some of it, but keeps its connection. A plain peer is a
        # program of Node, to which no name means more than another, and which may send what cannot be read.
        self.messages: pyipc.Server = pyipc.Server(
            router=router, slow_peer="drop", unsafe_names=True, malformed="skip", **options
        )
        self._has_handlers = has_handlers
        self._processes: dict[object, WorkerProcess] = {}
        for server in (self.control, self.messages):
            server.on_disconnect(self._on_disconnect)
        self.messages.on_connect(self._wait_listened_to)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run both servers, for the length of a block."""
        async with AsyncExitStack() as servers:
            # In a worker of another cluster they are no servers of that worker, which would be drained with it.
            with pyipc.hosted_by(None):
                await servers.enter_async_context(self.control)
                await servers.enter_async_context(self.messages)
            yield

    def connect(self, server: pyipc.Server, link: Link, process: WorkerProcess) -> pyipc.Connection:
        """Adopt a link of a process.

        Args:
            server: One of the two.
            link: The link.
            process: The process at its other end.

        Returns:
            The connection.
        """
        before = server.connections
        server.adopt(link)
        [connection] = server.connections - before
        self._processes[connection] = process
        return connection

    def process_of(self, message: pyipc.Message[Any]) -> WorkerProcess:
        """The process that a message came from."""
        return self._processes[message.connection]

    def worker_process(self, connection: object) -> WorkerProcess | None:
        """The process at the other end of a connection; ``None`` if it is gone."""
        return self._processes.get(connection)

    async def _wait_listened_to(self, connection: pyipc.Connection) -> None:
        """Let what a process says wait until the program can be expected to have its handlers."""
        process = self._processes[connection]
        if not self._has_handlers(process):
            await process.is_listened_to.wait()

    def _on_disconnect(self, ended: pyipc.Disconnected) -> None:
        process = self._processes.pop(ended.connection, None)
        if process is not None:
            process.on_disconnect(ended)
