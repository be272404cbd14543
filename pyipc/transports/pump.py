"""Reading sockets for many who wait, by one of them.

A task of its own for reading would have to live somewhere, and would cost a turn of the scheduler for every datagram
of a socket with one peer. Instead one of the tasks that wait reads for all: it brings to each what is for it, until
there is something for itself. Then the next one reads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyipc.transports.datagrams import DatagramSocket

__all__ = ["Pump"]

#: How many datagrams of a socket are read before others have their turn.
_DATAGRAMS_A_TURN: Final = 64


class Pump:
    """Decides which task reads.

    Args:
        sockets: What is read.
        deliver: Called with each socket, datagram and source address. It says with `wake` for whom there is something.
    """

    __slots__ = ("_deliver", "_interrupt", "_parked", "_reader", "_sockets", "_successor")

    def __init__(
        self, sockets: Sequence[DatagramSocket], deliver: Callable[[DatagramSocket, bytes, Any], None]
    ) -> None:
        self._sockets = sockets
        self._deliver = deliver
        # Who reads, and what ends its waiting; and who was woken in order to read and has not come to it.
        self._reader: object = None
        self._interrupt = trio.CancelScope()
        self._successor: object = None
        self._parked: dict[object, trio.lowlevel.Task] = {}

    async def wait(self, who: object) -> None:
        """Wait until there may be something for this one, reading meanwhile if nobody else does.

        May return for nothing, so the caller looks, and waits again. When it waits no more, for whatever reason, it
        calls `pass_on`. Always a schedule point.

        Args:
            who: What `wake` is called with. One task at a time waits for each.

        Cancellation: nothing that was read is lost.
        """
        if self._reader is not None:
            await self._park(who)
            return
        self._reader, self._successor = who, None
        try:
            with trio.CancelScope() as self._interrupt:
                await self._wait_readable()
        finally:
            self._reader = None
        for sock in self._sockets:
            for _ in range(_DATAGRAMS_A_TURN):
                received = sock.receive()
                if received is None:
                    break
                self._deliver(sock, *received)

    async def _park(self, who: object) -> None:
        if who in self._parked or who is self._reader:
            raise trio.BusyResourceError("another task is receiving from this link")

        def abort(_: object) -> trio.lowlevel.Abort:
            del self._parked[who]
            return trio.lowlevel.Abort.SUCCEEDED

        self._parked[who] = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(abort)

    def wake(self, who: object) -> None:
        """There may be something for this one."""
        task = self._parked.pop(who, None)
        if task is not None:
            trio.lowlevel.reschedule(task)
        elif who is self._reader:
            self._interrupt.cancel()

    def pass_on(self, who: object) -> None:
        """This one waits no more: let another read, if nobody does."""
        if self._successor is who:
            self._successor = None
        if self._reader is None and self._successor is None and self._parked:
            self._successor = next(iter(self._parked))
            self.wake(self._successor)

    async def _wait_readable(self) -> None:
        """Wait until one of the sockets can be read, or is closed."""
        if len(self._sockets) == 1:
            await self._sockets[0].wait_readable()
            return

        async def wait_for(sock: DatagramSocket) -> None:
            await sock.wait_readable()
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for sock in self._sockets:
                nursery.start_soon(wait_for, sock)
