"""Handlers that go on when their connection ends.

A handler of an event that is to be confirmed is not to be cut off by a lost connection: its sender will come back and
ask how it ended. So it is shielded from cancellation, until the server itself is cancelled, or has waited long enough.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

from pyipc.lineage import descends_from

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyipc.connection import Connection

__all__ = ["Shelter"]


class Shelter:
    """Shields such handlers, of which each connection has one at a time.

    The shields end with the nursery in which the connections live, however that ends: it has a task that waits for it.
    """

    def __init__(self) -> None:
        self._sheltered: dict[Connection, tuple[trio.CancelScope, trio.lowlevel.Task]] = {}
        self._is_guarded = False
        self._left = trio.lowlevel.ParkingLot()

    @contextmanager
    def around(self, connection: Connection) -> Iterator[None]:
        """A context for the present handler of a connection."""
        if not self._is_guarded:
            self._is_guarded = True
            connection._crew.nursery.start_soon(self._guard)
        with trio.CancelScope(shield=True) as scope:
            self._sheltered[connection] = scope, trio.lowlevel.current_task()
            try:
                yield
            finally:
                self._sheltered.pop(connection, None)
                self._left.unpark_all()

    async def _guard(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self._is_guarded = False
            for connection in list(self._sheltered):
                self.expose(connection)

    async def close(self, connection: Connection, patience: float) -> None:
        """Let the handler of a connection come to its end, but not for more than some seconds.

        Does not wait if there is none, or if it is the handler that closes the connection. Should a handler take
        longer, it is to be exposed.

        Cancellation: changes nothing.
        """
        if connection not in self._sheltered:
            return
        if descends_from(self._sheltered[connection][1]):
            self._expose_and_forget(connection)
        else:
            with trio.move_on_after(patience):
                while connection in self._sheltered:
                    await self._left.park()

    def expose(self, connection: Connection) -> None:
        """Let the handler of a connection be cancelled with it from now on, if it has one."""
        if connection in self._sheltered:
            self._sheltered[connection][0].shield = False

    def expose_caller(self) -> None:
        """Let the handler that calls this be cancelled: it is about to wait for the end of its own connection.

        From then on the scopes of that connection are around it, as they are around any other handler.
        """
        for connection, (_, task) in list(self._sheltered.items()):
            if descends_from(task):
                self._expose_and_forget(connection)

    def _expose_and_forget(self, connection: Connection) -> None:
        self.expose(connection)
        del self._sheltered[connection]
        self._left.unpark_all()
