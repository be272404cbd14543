"""A link that misbehaves as it is told to.

Owns the waiting and the order in which things happen; what happens to a chunk is decided in
`faults`. Knows nothing of the wrapped link but the port.
"""

from __future__ import annotations

import collections
import math
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, final

import trio

from pyipc.errors import ConnectionClosed, ConnectionLost
from pyipc.testing.faults import Fate, Faults, FaultStatistics, Lane
from pyipc.transports import Link

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pyipc.transports import Peer

__all__ = ["FaultyLink"]


@final
class FaultyLink(Link):
    """Wraps a link and gets in its way.

    Time is trio's, so that a test clock makes delays take none.

    Args:
        link: What really moves the bytes. It belongs to the wrapper from now on.
        faults: What happens to what is sent.
        inbound: What happens to what is received; nothing if left out.

    Raises:
        ValueError: The faults are not for this kind of link.
    """

    def __init__(self, link: Link, faults: Faults, *, inbound: Faults | None = None) -> None:
        self._link = link
        self._outbound = Lane("outbound", faults, stream=link.reliable)
        self._inbound = Lane("inbound", inbound or Faults(), stream=link.reliable)
        # A wrapper is what it wraps.
        self.reliable: bool = link.reliable
        self.max_chunk_size: int | None = link.max_chunk_size
        self.keeps_sent: bool = link.keeps_sent
        self.needs_handshake: bool = link.needs_handshake
        self.verified: bool = link.verified
        self.expires: bool = link.expires
        self._blackholed = False
        self._mute = False  # what is sent vanishes, since the peer was told that nothing more comes
        self._finished = False  # nothing more will be received
        self._eof_said = False
        self._broken: str | None = None
        self._cause: Exception | None = None
        self._closed = False
        self._sending = False
        self._receiving = False
        # Only one task at a time writes to the wrapped link: a sender, or who sends what was held back.
        self._wire = trio.Lock()
        self._release_planned = False
        self._arrived: collections.deque[tuple[float, bytes]] = collections.deque()
        self._release_inbound_at = math.inf
        self._waits: set[trio.CancelScope] = set()

    @property
    def peer(self) -> Peer:
        """Who is on the other side of the wrapped link."""
        return self._link.peer

    @property
    def dropped(self) -> int:
        """How many chunks the wrapped link has lost; what faults have cost is in `statistics`."""
        return self._link.dropped

    @property
    def closed(self) -> bool:
        """Whether `aclose` was called."""
        return self._closed

    def __repr__(self) -> str:
        inbound = "" if self._inbound.faults == Faults() else f" inbound={self._inbound.faults!r}"
        return f"<FaultyLink {self._state()} {self._outbound.faults!r}{inbound} on {self._link!r}>"

    async def handshake(self) -> None:
        """Do that of the wrapped link, in which nothing gets in the way.

        Raises:
            HandshakeFailed: The peer cannot be talked to.

        Cancellation: the link can then only be closed.
        """
        await self._link.handshake()
        self.needs_handshake = self._link.needs_handshake

    def verify(self) -> None:
        """The peer is known to be where it says, on the wrapped link as well."""
        self._link.verify()
        self.verified = self._link.verified

    def tell_forgotten(self, tell: Callable[[str], None]) -> None:
        """Have a function called if the transport of the wrapped link forgets the peer."""
        self._link.tell_forgotten(tell)

    def _state(self) -> str:
        if self._closed:
            return "closed"
        if self._broken is not None:
            return "broken"
        if self._blackholed:
            return "blackholed"
        return "half-closed" if self._mute or self._finished or self._eof_said else "open"

    def statistics(self) -> FaultStatistics:
        """What was passed on, lost and changed so far."""
        return FaultStatistics(sent=self._outbound.traffic(), received=self._inbound.traffic())

    # --- at run time ---

    def change(self, faults: Faults, *, inbound: Faults | None = None) -> None:
        """Misbehave in another way from now on, in both directions.

        Numbers of bytes, as in ``reset_after``, count from here. A black hole stays one.

        Args:
            faults: What happens to what is sent.
            inbound: What happens to what is received; nothing if left out.

        Raises:
            ValueError: The faults are not for this kind of link.
        """
        self._outbound.begin(faults)
        self._inbound.begin(inbound or Faults())
        self._wake()

    def blackhole(self) -> None:
        """From now on what is sent vanishes and nothing is received, and nobody is told.

        A `send` that is already waiting for the wrapped link goes on waiting.
        """
        self._blackholed = True
        self._wake()

    def heal(self) -> None:
        """Behave from now on. What has vanished stays lost; a reset or half-closed link stays so."""
        self._blackholed = False
        self.change(Faults(seed=self._outbound.faults.seed), inbound=Faults(seed=self._inbound.faults.seed))

    async def half_close(self) -> None:
        """End what this side sends, without its knowing: the peer finds the end, the rest vanishes.

        A wrapped link that cannot do that is reset.

        Cancellation: it is done all the same.
        """
        self._mute = True
        if not self._link.send_eof():
            await self.reset()

    async def reset(self) -> None:
        """Break the link: this side gets `ConnectionLost`, the peer what its transport shows then.

        Cancellation: it is broken all the same.
        """
        self._break(f"the link was reset on purpose, by {self._outbound.faults!r}")
        await self._link.aclose()

    def _break(self, why: str, cause: Exception | None = None) -> None:
        if self._broken is None:
            self._broken, self._cause = why, cause
        self._wake()

    async def _suffer(self, fate: Fate, lane: Lane) -> None:
        if fate is Fate.RESET:
            await self.reset()
        elif fate is Fate.BLACKHOLE:
            self.blackhole()
        elif lane is self._outbound:
            await self.half_close()
        else:
            self._finished = True

    # --- sending ---

    def send_nowait(self, data: bytes | bytearray | memoryview) -> int:
        """Hand over what the wrapped link takes; nothing while faults want a say, for which `send` waits.

        Returns:
            How many bytes were taken, from the front.

        Raises:
            ConnectionLost: The link is broken or closed.
            trio.BusyResourceError: Another task is in `send`, and the link is reliable.
        """
        if self._sending and not self.reliable:
            return 0
        self._refuse_second(self._sending, "sending on")
        self._check_sendable()
        with memoryview(data) as view:
            size = view.nbytes
        if self._swallows(size):
            return size
        if self._wire.locked() or not self._outbound.is_harmless(size):
            return 0
        taken = self._link.send_nowait(data)
        if taken:
            self._outbound.passed_by(taken)
        return taken

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Hand over all of ``data``, or what the faults leave of it. Always a schedule point.

        Raises:
            ConnectionLost: The link is broken or closed, or was broken by a fault meanwhile.
            trio.BusyResourceError: Another task is in `send`.

        Cancellation: an unknown part of ``data`` may have been sent, so the link can then only be
        closed.
        """
        self._refuse_second(self._sending, "sending on")
        self._sending = True
        try:
            await self._wait(trio.current_time() + self._outbound.delay())
            self._check_sendable()
            chunk = bytes(data)
            if not chunk or self._swallows(len(chunk)):
                return
            self._outbound.put(chunk)
            if self._outbound.ready:
                await self._flush()
                self._check()
            elif self._outbound.holding:
                self._plan_release(self._outbound.faults.hold_interval)
        finally:
            self._sending = False

    def _swallows(self, size: int) -> bool:
        if self._blackholed or self._mute:
            self._outbound.vanish(size)
            return True
        return False

    async def _flush(self) -> None:
        """Send everything that is not held back any more, and what follows from it."""
        lane = self._outbound
        async with self._wire:
            for chunk in lane.take():
                for piece in lane.pieces(chunk):
                    if not self._swallows(len(piece)):
                        await self._send_piece(piece)
            if lane.fate is not None:
                fate, lane.fate = lane.fate, None
                await self._suffer(fate, lane)
            if self._eof_said and not lane.holding and not self._blackholed:
                self._link.send_eof()

    async def _send_piece(self, piece: bytes) -> None:
        try:
            await self._link.send(piece)
        except ConnectionLost:
            self._check()
            # A half-close cuts short what is being sent, which the sender is not to know.
            if not self._mute:
                raise
            self._outbound.vanish(len(piece))
        else:
            self._outbound.arrived(len(piece))

    def _plan_release(self, delay: float) -> None:
        """Send what is held back after so many seconds at the latest, whatever the sender does."""
        if not self._release_planned:
            self._release_planned = True
            # Nobody can be expected to open a nursery around a link.
            trio.lowlevel.spawn_system_task(self._release, trio.current_time() + delay)

    async def _release(self, when: float) -> None:
        await self._wait(when)
        self._release_planned = False
        self._outbound.release()
        try:
            if not self._closed and self._broken is None:
                await self._flush()
        except Exception as error:  # in a system task it would end the program; the sender is told instead
            self._break(f"what had been held back could not be sent: {error}", error)

    def send_eof(self) -> bool:
        """Tell the peer that nothing more will be sent, after what is held back.

        Returns:
            Whether the wrapped link can do that; ``True`` where that is not known yet.
        """
        self._eof_said = True
        if self._blackholed:
            return True
        if self._outbound.holding or self._wire.locked():
            self._plan_release(0)
            self._wake()
            return True
        return self._link.send_eof()

    # --- receiving ---

    async def receive(self) -> bytes:
        """Wait for the next chunk, or what the faults leave of it. Always a schedule point.

        Returns:
            At least one byte, or ``b""`` when the peer has finished sending or faults say so.

        Raises:
            ConnectionLost: The link is broken or closed, or was broken by a fault meanwhile.
            trio.BusyResourceError: Another task is in `receive`.

        Cancellation: loses nothing.
        """
        self._refuse_second(self._receiving, "receiving from")
        self._receiving = True
        try:
            await trio.lowlevel.checkpoint()
            while True:
                self._check()
                if self._blackholed:
                    await self._wait(math.inf)
                elif self._arrived:
                    due, piece = self._arrived[0]
                    if due <= trio.current_time():
                        self._arrived.popleft()
                        self._inbound.arrived(len(piece))
                        if not self._arrived and self._inbound.fate is Fate.BLACKHOLE:
                            self.blackhole()  # at once, since it concerns the other direction too
                        return piece
                    await self._wait(due)
                elif self._inbound.fate is not None:
                    fate, self._inbound.fate = self._inbound.fate, None
                    await self._suffer(fate, self._inbound)
                elif self._finished:
                    return b""
                else:
                    await self._take_in()
        finally:
            self._receiving = False

    async def _take_in(self) -> None:
        """Put one chunk of the wrapped link in the inbound lane, or take out what has been held back enough."""
        lane = self._inbound
        chunk: bytes | None = None
        lost: ConnectionLost | None = None
        with self._interruptible(self._release_inbound_at):
            try:
                chunk = await self._link.receive()
            except ConnectionLost as error:
                if not lane.holding:
                    raise
                lost = error
        if chunk:
            lane.put(chunk)
        elif chunk == b"":
            self._finished = True
        if self._finished or lost is not None or trio.current_time() >= self._release_inbound_at:
            lane.release()
        elif not lane.ready:
            if lane.holding and self._release_inbound_at == math.inf:
                self._release_inbound_at = trio.current_time() + lane.faults.hold_interval
            return
        self._release_inbound_at = math.inf
        for each in lane.take():
            due = trio.current_time() + lane.delay()
            self._arrived.extend((due, piece) for piece in lane.pieces(each))

    # --- closing ---

    async def aclose(self) -> None:
        """Close the link, at once and more than once. Wakes whoever is in `send` or `receive`.

        What was held back is handed over as far as that needs no waiting.

        Cancellation: the link is closed all the same.
        """
        if not self._closed:
            self._closed = True
            self._wake()
            if not self._wire.locked():
                with suppress(ConnectionClosed):
                    self._hand_over()
        await self._link.aclose()

    def _hand_over(self) -> None:
        self._outbound.release()
        for chunk in self._outbound.take():
            if not self._swallows(len(chunk)):
                taken = self._link.send_nowait(chunk)
                self._outbound.arrived(taken)
                if taken < len(chunk):
                    break

    # --- waiting ---

    def _check(self) -> None:
        if self._closed:
            raise ConnectionLost("this side has closed the link; open another one")
        if self._broken is not None:
            raise ConnectionLost(self._broken) from self._cause

    def _check_sendable(self) -> None:
        self._check()
        if self._eof_said:
            raise ConnectionLost("send_eof() has said that nothing more will be sent; open another link")

    def _refuse_second(self, busy: bool, doing: str) -> None:
        if busy:
            raise trio.BusyResourceError(f"another task is {doing} this link")

    @contextmanager
    def _interruptible(self, deadline: float) -> Iterator[None]:
        with trio.CancelScope(deadline=deadline) as scope:
            self._waits.add(scope)
            try:
                yield
            finally:
                self._waits.discard(scope)

    async def _wait(self, until: float) -> None:
        """Wait until then, or until something has changed. Always a schedule point."""
        with self._interruptible(math.inf):
            await trio.sleep_until(until)

    def _wake(self) -> None:
        for scope in self._waits:
            scope.cancel()
