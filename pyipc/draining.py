"""Closing a server without losing anything: clients are asked to go elsewhere, and waited for."""

from __future__ import annotations

import contextlib
import logging
import math
from typing import TYPE_CHECKING

import trio

from pyipc.delivering import Delivery
from pyipc.errors import ConnectionLost, Undelivered
from pyipc.finishing import finish, under_way, wait_quiet
from pyipc.owner import Owner
from pyipc.statistics import DrainReport

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from pyipc.connection import Connection
    from pyipc.holdings import Holdings
    from pyipc.options import Options
    from pyipc.protocol.messages import Introduced
    from pyipc.seats import Strangers

__all__ = ["Draining", "ServerOwner"]

logger: logging.Logger = logging.getLogger("pyipc.server")


class Draining:
    """The last part of the life of a server that is drained.

    Args:
        options: Times.
        connections: Gives the connections that there are.

    Attributes:
        begun: Whether it has begun.
        waiting: Whether the addresses are released, and not all clients gone.
        left: Connections that have ended by themselves since.
        cut_off: Connections that were there when the time was over.
        undelivered: Messages that could not be sent to those.
    """

    def __init__(self, options: Options, connections: Callable[[], Collection[Connection]]) -> None:
        self._options = options
        self._connections = connections
        self._message = ""
        self._patience = trio.CancelScope()
        self._nursery: trio.Nursery | None = None
        self._changed = trio.Event()
        # Those of which only a handler that waits for the drain itself is still at work.
        self._excused: set[Connection] = set()
        self._callers: dict[Connection, bool] = {}
        self._is_over = False
        self.begun: bool = False
        self.waiting: bool = False
        self.left: int = 0
        self.cut_off: int = 0
        self.undelivered: int = 0

    def begin(self, message: str) -> None:
        """From now on connections are asked to go elsewhere; those that there are, and those that come."""
        self.begun = True
        self._message = message

    def shorten(self, timeout: float | None) -> None:
        """Wait no longer than so many seconds from now."""
        deadline = trio.current_time() + (math.inf if timeout is None else timeout)
        self._patience.deadline = min(self._patience.deadline, deadline)

    def end(self) -> None:
        """Wait no longer."""
        self._patience.cancel()

    async def wait(self) -> None:
        """Wait until every connection has ended, but not beyond the deadline.

        Cancellation: ends the waiting.
        """
        self.waiting = True
        with self._patience:
            async with trio.open_nursery() as self._nursery:
                for connection in self._connections():
                    self.join(connection)
                for connection, answers in self._callers.items():
                    self._nursery.start_soon(self._excuse, connection, answers)
                while set(self._connections()) - self._excused:
                    await self._changed.wait()
                self._nursery.cancel_scope.cancel()
        self._nursery = None
        self._is_over = True
        self.waiting = False
        self.cut_off = len(set(self._connections()) - self._excused)
        self.left += len(self._excused.intersection(self._connections()))

    @property
    def report(self) -> DrainReport:
        """How it went."""
        return DrainReport(self.left, self.cut_off, self.undelivered)

    # --- connections ---

    def join(self, connection: Connection) -> None:
        """A connection is there: ask it to go elsewhere, or see it off if there are no words for that."""
        if self._nursery is None:
            return
        if connection._conversation.protocol != "plain":
            self.tell(connection)
        if connection._conversation.protocol == "plain" or not connection._link.reliable:
            self._nursery.start_soon(self._see_off, connection)

    def tell(self, connection: Connection) -> None:
        """Ask a peer that speaks pyipc's protocol to take new work elsewhere."""
        if connection.is_open:
            with contextlib.suppress(ConnectionLost):  # its end is noticed elsewhere
                # However full its outbox is: it is said once, and whoever does not hear it is cut off at the end.
                connection._outbox.push(connection._conversation.goaway(self._message))
                connection._outbox.flush_nowait()

    def leave(self) -> None:
        """A connection has ended."""
        if self.begun and not self._is_over:
            self.left += 1
            self._change()

    def excuse(self, connection: Connection, *, answers: bool) -> None:
        """A handler of a connection waits for the drain, which must therefore not wait for that handler.

        Args:
            connection: Whose.
            answers: Whether the peer waits for what the handler returns, and so cannot leave before.
        """
        if self._nursery is None:
            self._callers[connection] = answers
        else:
            self._nursery.start_soon(self._excuse, connection, answers)

    async def _excuse(self, connection: Connection, answers: bool) -> None:
        if answers:
            await wait_quiet(connection, besides=1)
        else:
            await _wait_for_lane(connection)
        self._excused.add(connection)
        self._change()

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def _see_off(self, connection: Connection) -> None:
        """End a connection whose peer does not leave by itself, when nothing that it has sent is unhandled."""
        if not connection._link.reliable:
            # There is no half of it to close, and nothing on its way is sure to arrive.
            await wait_quiet(connection)
            await self._close(connection)
            return
        await self._hear(connection)
        if connection._conversation.protocol == "plain" and not await finish(connection):
            logger.info("%s cannot be told to leave, and is closed when the time is over", connection.peer.address)

    async def _hear(self, connection: Connection) -> None:
        """Let the introduction of a peer that has said nothing yet arrive; it is the first thing that one says."""
        timeout = self._options.handshake_timeout
        if connection._bytes_received > connection._conversation.partial_size or timeout is None:
            return
        if connection._introduced is None:
            connection._introduced = trio.Event()
        with trio.move_on_at(connection._vigil.began + timeout):
            await connection._introduced.wait()

    async def _close(self, connection: Connection) -> None:
        try:
            await connection.aclose()
        except Undelivered as error:
            logger.warning("%s", error)


class ServerOwner(Owner):
    """What the connections of a server tell it.

    Args:
        draining: Asks those to go elsewhere that introduce themselves late.
        holdings: Bounds what is held for those that have one origin.

    Attributes:
        holdings: As given.
        strangers: Those that have not introduced themselves, where they must; set by the server.
    """

    strangers: Strangers | None = None

    def __init__(self, draining: Draining, holdings: Holdings) -> None:
        self._draining = draining
        self.holdings: Holdings = holdings

    @property
    def is_draining(self) -> bool:
        """Whether its peers are asked to leave, and are not hurried."""
        return self._draining.begun

    def introduced(self, connection: Connection, introduction: Introduced) -> None:
        """The peer has introduced itself."""
        super().introduced(connection, introduction)
        if self.strangers is not None:
            self.strangers.leave(connection._link)
        if self._draining.begun:
            self._draining.tell(connection)

    def weigh(self, connection: Connection) -> None:
        """More is held for the connection than usual."""
        self.holdings.weigh(connection)

    def ended(self, connection: Connection) -> None:
        """The connection has ended; may be told more than once."""
        super().ended(connection)
        self.holdings.forget(connection)


async def _wait_for_lane(connection: Connection) -> None:
    """Wait until a peer has left, or cannot leave before a handler of its events is done, which waits itself."""
    while connection._reason is None and connection._hears and not _is_stuck(connection):
        if connection._quiet is None:
            connection._quiet = trio.lowlevel.ParkingLot()
        await connection._quiet.park()


def _is_stuck(connection: Connection) -> bool:
    """Whether all that is under way is a handler of an event and what is behind it, and the peer waits for that."""
    events, receipts = connection._inbox.events, connection._receipts
    is_awaited = (receipts is not None and receipts.is_busy) or any(type(event) is Delivery for event, _ in events)
    return is_awaited and under_way(connection) <= 1 + len(events)
