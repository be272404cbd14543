"""The object that a node-ipc program is written with."""

from __future__ import annotations

import inspect
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio

from pyipc.node_ipc.arguments import read_arguments
from pyipc.node_ipc.client import Client
from pyipc.node_ipc.clients import Clients
from pyipc.node_ipc.config import Config
from pyipc.node_ipc.emitter import most_arguments, wait_for
from pyipc.node_ipc.places import default_path, local_endpoint, network_endpoint, udp_host
from pyipc.node_ipc.server import Server
from pyipc.node_ipc.showing import shown
from pyipc.node_ipc.tasks import Tasks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pyipc
    from pyipc.node_ipc.arguments import Argument, Callback

__all__ = ["IPC"]


class IPC:
    """One server, any number of clients, and their options.

    Its methods are plain functions, and may be called before it runs: what they begin then begins with it. It runs
    with ``trio.run(ipc.run)``, or inside a trio program with ``async with ipc:``.

    Attributes:
        config: The options.
        of: The clients by id.
    """

    def __init__(self) -> None:
        self.config: Config = Config()
        self.of: Clients = Clients()
        self._server: Server | None = None
        self._tasks = Tasks()
        self._context: AsyncExitStack | None = None

    def __repr__(self) -> str:
        return f"<IPC {self.config.id!r}, {self._server or 'no server'}, {len(self.of)} clients>"

    @property
    def server(self) -> Server:
        """The server.

        Raises:
            RuntimeError: There is none yet.
        """
        if self._server is None:
            raise RuntimeError("there is no server; serve() or serve_net() makes one")
        return self._server

    # --- a server ---

    def serve(self, *arguments: Argument) -> None:
        """Make the server, for a local socket: ``serve([path][, callback])``. It listens when it is started.

        Args:
            *arguments: The path, by default that of ``config.id``; a function to call when it listens. A path may be
                ``"fd:3"``, for a listening socket that this process was given.

        Raises:
            RuntimeError: There is a server that listens.
            TypeError: The arguments are not these.
        """
        where = read_arguments("serve", "path", arguments)
        self._make_server(where.text or default_path(self.config, self.config.id), None, None, where.callback)

    def serve_net(self, *arguments: Argument) -> None:
        """Make the server, for a network: ``serve_net([host][, port][, "udp4" | "udp6"][, callback])``.

        It is TCP, TLS if there is ``config.tls``, or UDP. Port 0 is any free one.

        Args:
            *arguments: Host and port, by default those of the options; ``"udp4"`` or ``"udp6"``; a function to call
                when it listens.

        Raises:
            RuntimeError: There is a server that listens.
            TypeError: The arguments are not these.
        """
        where = read_arguments("serve_net", "host", arguments, "port", "udp")
        host = where.text or self.config.network_host
        if where.udp is not None:
            host = udp_host(where.udp, host)
        port = self.config.network_port if where.port is None else where.port
        self._make_server(host, port, where.udp, where.callback)

    def _make_server(self, path: str, port: int | None, udp: str | None, callback: Callback | None) -> None:
        if self._server is not None and self._server.is_started:
            raise RuntimeError("there is a server already; stop() it first, or make another IPC")
        self._server = Server(self.config, path, port, udp, self._tasks)
        if callback is not None:
            self._server.on("start", callback)

    # --- clients ---

    def connect_to(self, id: str, *arguments: Argument) -> None:
        """Make a client of a local server: ``connect_to(id[, path][, callback])``.

        The callback is called at once, with this object, before there is a connection; it registers the handlers of
        ``ipc.of[id]``. Where there is such a client already, that is all that happens.

        Args:
            id: The name of the client in ``ipc.of``.
            *arguments: The path, by default that of ``id``; the callback.

        Raises:
            TypeError: The arguments are not these.
            AddressError, ValueError: An option or the path cannot be used.
        """
        where = read_arguments("connect_to", "path", arguments)
        path = where.text or default_path(self.config, id)
        if self._needs_client(id):
            endpoint = local_endpoint(self.config, path, listens=False)
            self._make_client(id, endpoint, path, None)
        self._call_back(where.callback)

    def connect_to_net(self, id: str, *arguments: Argument) -> None:
        """Make a client of a server on a network: ``connect_to_net(id[, host][, port][, callback])``.

        It is TCP, or TLS if there is ``config.tls``.

        Args:
            id: The name of the client in ``ipc.of``.
            *arguments: Host and port, by default those of the options; the callback, as for `connect_to`.

        Raises:
            TypeError: The arguments are not these. There are no clients over UDP, in node-ipc neither: make a server
                on each side, and emit to ``{"address": ..., "port": ...}``.
            AddressError, ValueError: An option, host or port cannot be used.
        """
        where = read_arguments("connect_to_net", "host", arguments, "port")
        host = where.text or self.config.network_host
        port = self.config.network_port if where.port is None else where.port
        if self._needs_client(id):
            endpoint = network_endpoint(self.config, host, port, listens=False)
            self._make_client(id, endpoint, host, port)
        self._call_back(where.callback)

    def disconnect(self, id: str) -> None:
        """Send what is queued, close, and do not come back. Where there is no such client, nothing happens.

        The client is gone from ``ipc.of`` at once; its ``disconnect`` and ``destroy`` happen when it is over.
        """
        if id in self.of:
            client = self.of[id]
            del self.of[id]
            client.disconnect()

    def _needs_client(self, id: str) -> bool:
        if not id or not isinstance(id, str):
            raise TypeError(f"a client needs an id, which is a text, not {id!r}")
        return id not in self.of or self.of[id].is_over

    def _make_client(self, id: str, endpoint: pyipc.Endpoint, path: str, port: int | None) -> None:
        client = Client(id, self.config, endpoint, path, port, self._tasks.start)
        self.of[id] = client
        self._tasks.start_service(client.run)

    def _call_back(self, callback: Callback | None) -> None:
        if callback is not None:
            result = callback(*(self,)[: most_arguments(callback)])
            if inspect.isawaitable(result):
                self._tasks.start(wait_for, result, "connect_to")

    # --- telling ---

    def log(self, *things: object) -> None:
        """Hand one line to ``config.logger``, unless ``config.silent``; objects are shown as Python shows them."""
        config = self.config
        if not config.silent:
            in_color = config.log_in_color and sys.stdout.isatty()
            config.logger(" ".join(shown(thing, config.log_depth, in_color) for thing in things))

    # --- running ---

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until there is nothing left to do, as Node does: no server, no client, no handler at work.

        Cancellation: closes everything at once.
        """
        async with self._tasks.running():
            task_status.started()
            await self._tasks.wait_for_all()

    async def __aenter__(self) -> IPC:
        context = AsyncExitStack()
        await context.enter_async_context(self._session())
        self._context = context
        return self

    async def __aexit__(self, *error: Any) -> None:
        assert self._context is not None
        context, self._context = self._context, None
        await context.__aexit__(*error)

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[None]:
        async with self._tasks.running():
            yield
            for id in list(self.of):
                self.disconnect(id)
            if self._server is not None:
                self._server.stop()
            await self._tasks.wait_for_services()
