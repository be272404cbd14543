"""Connections that the primary hands to this worker: taken from the mailbox, given to whoever listens for them.

A connection is *taken* when a listener hands it out, not when it arrives, and the primary is told before a byte of it
is read. So what a worker has not come to yet still belongs to the primary, which gives it to another if this one ends,
closes its listener, or has no descriptor left.
"""

from __future__ import annotations

import collections
import logging
from typing import TYPE_CHECKING, Final

import trio

from pyipc.errors import AddressInUse, ConnectionClosed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyipc.cluster.courier import Carrier, Header, Mailbox

__all__ = ["Inlet", "Receiving"]

logger: logging.Logger = logging.getLogger("pyipc.cluster")

# How many connections are handed out before other tasks run: a turn of the scheduler costs more than handing out.
_HANDED_A_TURN: Final = 16
# How many connections a note can be about; well within what a header may take.
_MAX_NUMBERS: Final = 150


class Receiving:
    """What the primary hands to this worker.

    Args:
        mailbox: Where it comes in. Whoever made it closes it, after `run`.
        other: Called with messages that are about no listener, and what was carried; that one closes it.
    """

    def __init__(self, mailbox: Mailbox, *, other: Callable[[Header, Carrier | None], None] | None = None) -> None:
        self._mailbox = mailbox
        self._other = other
        self._inlets: dict[str, Inlet] = {}
        self._listening: dict[str, list[Carrier]] = {}
        self._has_listening = trio.Event()
        self._open = 0
        self._none_open = trio.Event()
        self._refused: list[int] = []
        self._closed: list[int] = []
        self._has_news = trio.Event()
        self._is_retired = False
        self._is_short = False
        self._when_retired: list[Callable[[], None]] = []
        self._is_over = False

    def __repr__(self) -> str:
        return f"<Receiving, listeners: {len(self._inlets)}, open connections: {self._open}>"

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take in what comes until the primary is gone; then every inlet is closed.

        Cancellation: the same.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._tell)
                task_status.started()
                try:
                    while True:
                        self._sort(*await self._mailbox.receive())
                except (trio.EndOfChannel, trio.ClosedResourceError):
                    nursery.cancel_scope.cancel()
        finally:
            self._is_over = True
            for inlet in list(self._inlets.values()):
                inlet.close()
            for carriers in self._listening.values():
                _close_all(carriers)
            self._listening.clear()
            self._has_listening.set()

    def _sort(self, header: Header, carrier: Carrier | None) -> None:
        match header:
            case {"claim": str(claim), "number": int(number)}:
                self._note_shortage(carrier is None)
                inlet = self._inlets.get(claim)
                if carrier is not None and inlet is not None and not self._is_retired:
                    inlet.put(number, carrier)
                    return
                if carrier is not None:
                    carrier.close()
                self.refuse(number)
            case {"listening": str(claim)}:
                self._note_shortage(carrier is None)
                if carrier is not None:
                    self._listening.setdefault(claim, []).append(carrier)
                    self._has_listening.set()
            case _ if self._other is not None:
                self._other(header, carrier)
            case _:
                logger.error("the primary has sent what nobody here knows: %s", sorted(header))
                if carrier is not None:
                    carrier.close()

    def _note_shortage(self, is_short: bool) -> None:
        """Tell that there are no descriptors left for what is handed over; once, until there are some again."""
        if is_short and not self._is_short:
            logger.error("cannot take connections for now: this process has no descriptors left; others get them")
        self._is_short = is_short

    # --- for listeners ---

    def open(self, claim: str) -> Inlet:
        """Begin to take the connections of an address. Tell the primary only afterwards.

        Args:
            claim: How the primary calls the address.

        Raises:
            AddressInUse: This worker takes them already.
            ConnectionClosed: The primary is gone.
        """
        if self._is_over:
            raise ConnectionClosed("the primary is gone; this worker can listen no more")
        if claim in self._inlets:
            raise AddressInUse(f"this worker listens on {claim} already; close that listener first")
        inlet = self._inlets[claim] = Inlet(self, claim)
        return inlet

    def forget(self, claim: str) -> None:
        """Take the connections of an address no more; it is for `Inlet` to say."""
        self._inlets.pop(claim, None)

    async def listening(self, claim: str, count: int) -> list[Carrier]:
        """The listening sockets of an address that workers accept on by themselves, once they have come.

        Args:
            claim: How the primary calls the address.
            count: How many there are.

        Raises:
            ConnectionClosed: The primary is gone.

        Cancellation: those that have come are kept for the next call.
        """
        await trio.lowlevel.checkpoint()
        while len(self._listening.get(claim, ())) < count:
            if self._is_over:
                raise ConnectionClosed("the primary is gone; this worker can listen no more")
            self._has_listening = trio.Event()
            await self._has_listening.wait()
        return self._listening.pop(claim)

    def retire(self) -> None:
        """Take no more connections of any address; those that wait or still come go to others.

        Listeners stay open and hand out nothing, so that what serves them need not be told.
        """
        self._is_retired = True
        for inlet in self._inlets.values():
            inlet.refuse()
        while self._when_retired:
            self._when_retired.pop()()

    @property
    def is_retired(self) -> bool:
        """Whether `retire` was called."""
        return self._is_retired

    def when_retired(self, stop: Callable[[], None]) -> None:
        """Have a function called by `retire`, or now if that was called: it stops what accepts by itself."""
        if self._is_retired:
            stop()
        else:
            self._when_retired.append(stop)

    # --- open connections ---

    @property
    def open_connections(self) -> int:
        """How many connections were handed out and are not closed."""
        return self._open

    async def wait_none_open(self) -> None:
        """Wait until all connections that were handed out are closed.

        Cancellation: nothing happens.
        """
        await trio.lowlevel.checkpoint()
        while self._open:
            await self._none_open.wait()

    def keep(self, number: int | None = None) -> Callable[[], None]:
        """Count a connection as open.

        Args:
            number: How the primary calls it; ``None`` if that does not know of it.

        Returns:
            What to call when it is closed; once, or more often.
        """
        if not self._open:
            self._none_open = trio.Event()
        self._open += 1
        is_open = True

        def closed() -> None:
            nonlocal is_open
            if is_open:
                is_open = False
                self._note_closed(number)

        return closed

    def _note_closed(self, number: int | None) -> None:
        self._open -= 1
        if not self._open:
            self._none_open.set()
        if number is not None:
            self._closed.append(number)
            self._has_news.set()

    # --- what the primary is told ---

    async def take(self, number: int) -> None:
        """Tell the primary that a connection is served here from now on.

        Raises:
            trio.BrokenResourceError, trio.ClosedResourceError: The primary is gone.

        Cancellation: it was not told.
        """
        await self._write({"taken": number})

    async def _write(self, note: Header) -> None:
        """Write a note: at once if there is room, as a turn of the scheduler would cost more."""
        try:
            self._mailbox.send_nowait(note)
        except trio.WouldBlock:
            await self._mailbox.send(note)

    def refuse(self, number: int) -> None:
        """Have the primary told that another is to serve a connection."""
        self._refused.append(number)
        self._has_news.set()

    async def _tell(self) -> None:
        """Write which connections are refused or closed, as many at once as have become so."""
        while True:
            await self._has_news.wait()
            self._has_news = trio.Event()
            await self.tell_now()

    async def tell_now(self) -> None:
        """Write which connections are refused or closed, of those that nobody is writing.

        Cancellation: some may be written.
        """
        for what, numbers in (("refused", self._refused), ("closed", self._closed)):
            while numbers:
                some = numbers[:_MAX_NUMBERS]
                del numbers[:_MAX_NUMBERS]
                try:
                    await self._write({what: some})
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    return  # the primary is gone, and `run` is about to find out


class Inlet:
    """Where the connections of one address arrive in this worker. Any number of tasks may accept.

    Args:
        receiving: What they come through.
        claim: How the primary calls the address.
    """

    def __init__(self, receiving: Receiving, claim: str) -> None:
        self._receiving = receiving
        self.claim: str = claim
        self._waiting: collections.deque[tuple[int, Carrier]] = collections.deque()
        self._lot = trio.lowlevel.ParkingLot()
        self._handed_this_turn = 0
        self._is_closed = False

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else f"waiting: {len(self._waiting)}"
        return f"<Inlet of {self.claim}, {state}>"

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called, or the primary is gone."""
        return self._is_closed

    def put(self, number: int, carrier: Carrier) -> None:
        """A connection has come; it is for `Receiving` to say."""
        self._waiting.append((number, carrier))
        self._lot.unpark()

    async def accept(self) -> tuple[Carrier, Callable[[], None]]:
        """Take the next connection. A schedule point at least once for every sixteen.

        Returns:
            The connection, and what to call when it is closed.

        Raises:
            ConnectionClosed: `close` was called, or the primary is gone.

        Cancellation: loses no connection.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._handed_this_turn >= _HANDED_A_TURN:
            self._handed_this_turn = 0
            await trio.lowlevel.checkpoint()
        while True:
            while not self._waiting:
                if self._is_closed:
                    raise ConnectionClosed(f"the listener on {self.claim} is closed")
                self._handed_this_turn = 0
                await self._lot.park()
            number, carrier = self._waiting.popleft()
            if await self._take(number, carrier):
                self._handed_this_turn += 1
                return carrier, self._receiving.keep(number)

    async def _take(self, number: int, carrier: Carrier) -> bool:
        try:
            await self._receiving.take(number)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            # Without the primary's knowing it must not be served: the primary may be there, and give it to another.
            carrier.close()
            return False
        except BaseException:
            self._waiting.appendleft((number, carrier))
            self.refuse() if self._is_closed else self._lot.unpark()
            raise
        return True

    def refuse(self) -> None:
        """Let others have the connections that wait here."""
        while self._waiting:
            number, carrier = self._waiting.popleft()
            carrier.close()
            self._receiving.refuse(number)

    def close(self) -> None:
        """Take no more, and let others have those that wait; at once and more than once. Wakes whoever accepts."""
        if not self._is_closed:
            self._is_closed = True
            self._receiving.forget(self.claim)
            self.refuse()
            self._lot.unpark_all()


def _close_all(carriers: Sequence[Carrier]) -> None:
    for carrier in carriers:
        carrier.close()
