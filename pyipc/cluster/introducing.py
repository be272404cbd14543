"""How workers come to talk to each other: their primary makes a pair of sockets, and gives one end to each.

After that it has no part in what they say. Who is at the other end each of them knows from the primary alone.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
from typing import TYPE_CHECKING, Any

import trio

import pyipc
from pyipc.cluster.channels import socket_link
from pyipc.cluster.control import UNKNOWN_WORKER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyipc.cluster.exchange import Exchange
    from pyipc.cluster.handle import WorkerHandle
    from pyipc.cluster.process import WorkerProcess

__all__ = ["Introductions"]


class Introductions:
    """Brings workers together.

    Args:
        workers: Those that there are, by id.
        exchange: Takes connections that are for what servers say to everybody.
    """

    def __init__(self, workers: Mapping[str, WorkerHandle], exchange: Exchange) -> None:
        self._exchange = exchange
        self._workers = workers
        self._changed = trio.Event()
        # How many were brought to each process, so that those with as much to do take turns.
        self._turns: dict[WorkerProcess, int] = {}
        self._tokens = itertools.count(1)
        self._given: dict[int, tuple[WorkerProcess, socket.socket]] = {}

    def process_changed(self, process: WorkerProcess) -> None:
        """A process of a worker has changed its state."""
        if process.gone.is_set():
            self._turns.pop(process, None)
            for token, (owner, _) in list(self._given.items()):
                if owner is process:
                    self.taken(process, token)
        self._changed.set()
        self._changed = trio.Event()

    async def introduce(self, asking: WorkerProcess, data: Any) -> str:
        """Connect a process with another worker, once that is ready.

        Args:
            asking: The process that wants it.
            data: What it said: ``number``, by which it recognizes its end, and ``id`` or ``role``; or neither, for
                a connection with the primary's `Exchange`.

        Returns:
            The id of the other worker.

        Raises:
            Refused: There is no such worker, nor is one about to start.

        Cancellation: the process may get its end all the same.
        """
        id, role, number = data.get("id"), data.get("role"), int(data["number"])
        if id is None and role is None:
            return await self._introduce_primary(asking, number)
        while (found := self._find(asking, id, role)) is None:
            await self._changed.wait()
        self._turns[found] = self._turns.get(found, 0) + 1
        one, other = socket.socketpair()
        try:
            await self._give(found, _header("link", asking, number), one)
            await self._give(asking, _header("linked", found, number), other)
        except BaseException as error:
            other.close()  # which may not have been given yet
            if isinstance(error, trio.BrokenResourceError | trio.ClosedResourceError):
                raise pyipc.Refused("lost", f"worker {found.handle.id!r} has ended just now") from None
            raise
        return found.handle.id

    async def _introduce_primary(self, asking: WorkerProcess, number: int) -> str:
        """Let a process have a connection for what its servers say to everybody."""
        one, other = socket.socketpair()
        self._exchange.adopt(socket_link(one, f"worker {asking.handle.id}", asking.pid))
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._give(asking, {"linked": "primary", "pid": os.getpid(), "number": number}, other)
        return "primary"

    async def _give(self, process: WorkerProcess, header: dict[str, Any], end: socket.socket) -> None:
        """Hand one end to a process. It is kept here until that has it: on Windows it would be gone before."""
        token = next(self._tokens)
        self._given[token] = process, end
        try:
            await process.courier.send(header | {"token": token}, end)
        except BaseException:
            self.taken(process, token)
            raise

    def taken(self, process: WorkerProcess, token: object) -> None:
        """A process has what it was handed."""
        if isinstance(token, int) and token in self._given and self._given[token][0] is process:
            self._given.pop(token)[1].close()

    def _find(self, asking: WorkerProcess, id: str | None, role: str | None) -> WorkerProcess | None:
        """The process to connect with; ``None`` if there is none yet."""
        if id is not None:
            handles = [self._workers[id]] if id in self._workers else []
        else:
            handles = [each for each in self._workers.values() if each.role == role and each is not asking.handle]
        handles = [each for each in handles if not (each.is_leaving or each.has_failed)]
        if not handles:
            missing = f"worker {id!r}" if id is not None else f"other worker of the role {role!r}"
            there = ", ".join(self._workers)
            raise pyipc.Refused(UNKNOWN_WORKER, f"there is no {missing}; the workers are {there}", id or role)
        handles = [each for each in handles if each.settings.node is None]
        if not handles:
            why = "Node programs have a connection with the primary alone; ask that, and let it ask them"
            raise pyipc.Refused(UNKNOWN_WORKER, f"{id or role!r} cannot be reached by other workers: {why}", id or role)
        ready = [each.current for each in handles if each.current is not None and each.current.is_ready]
        return min(ready, key=self._load, default=None)

    def _load(self, process: WorkerProcess) -> tuple[int, int]:
        open_connections = 0 if process.candidate is None else process.candidate.open_connections
        return process.in_flight + open_connections, self._turns.get(process, 0)


def _header(what: str, process: WorkerProcess, number: int) -> dict[str, Any]:
    """What the process at one end is told of the one at the other."""
    return {what: process.handle.id, "pid": process.pid, "number": number}
