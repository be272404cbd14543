"""Ported programs, and what happens to them."""

from __future__ import annotations

import dataclasses
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from pyipc.node_ipc import IPC, Emitter

__all__ = ["Events", "Meeting"]

PATIENCE = 20.0


class Events:
    """All that happens to a server or a client, in order, as it tells handlers of ``*``."""

    def __init__(self, emitter: Emitter) -> None:
        self.all: list[tuple[Any, ...]] = []
        self._news = trio.Event()
        emitter.on("*", self._note)

    def _note(self, *event: Any) -> None:
        self.all.append(event)
        self._news.set()
        self._news = trio.Event()

    @property
    def names(self) -> list[str]:
        return [event[0] for event in self.all]

    def data(self, name: str) -> list[Any]:
        """The first argument of every event of a name."""
        return [event[1] for event in self.all if event[0] == name]

    async def wait(self, condition: Callable[[], object]) -> None:
        """Wait until something happened after which ``condition()`` is true."""
        with trio.move_on_after(PATIENCE):
            while not condition():
                await self._news.wait()
        assert condition(), self.all

    async def wait_for(self, name: str, count: int = 1) -> None:
        """Wait until an event of this name has happened so many times."""
        await self.wait(lambda: self.names.count(name) >= count)


@dataclasses.dataclass
class Meeting:
    """A program with a server and one with a client, and where they meet."""

    here: IPC
    there: IPC
    path: str | None

    def serve(self) -> Events:
        """Start the server."""
        if self.path is not None:
            self.here.serve(self.path)
        else:
            self.here.serve_net("127.0.0.1", 0)
        events = Events(self.here.server)
        self.here.server.start()
        return events

    async def connect(self, served: Events) -> Events:
        """Make the client ``world``, once it is known where the server is."""
        await served.wait_for("start")
        if self.path is not None:
            self.there.connect_to("world", self.path)
        else:
            self.there.connect_to_net("world", "127.0.0.1", served.all[0][1]["port"])
        return Events(self.there.of.world)

    @asynccontextmanager
    async def joined(self) -> AsyncIterator[tuple[Events, Events]]:
        """Run both programs, and wait until they are connected."""
        served = self.serve()
        async with self.here, self.there:
            heard = await self.connect(served)
            await heard.wait_for("connect")
            await served.wait_for("connect")
            yield served, heard
