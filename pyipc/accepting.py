"""Letting peers in: listening, handshakes, who may be there, and how many."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

import trio

from pyipc.errors import ConnectionClosed, HandshakeFailed, PeerNotAllowed
from pyipc.seats import DatagramSeats, Seats, Strangers
from pyipc.transports.registry import transport_for

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from pyipc.connection import Connection
    from pyipc.endpoint import Endpoint
    from pyipc.hosting import Host
    from pyipc.options import Options
    from pyipc.transports.port import Link, Listener, Peer

__all__ = ["Acceptor"]

logger: logging.Logger = logging.getLogger("pyipc.server")

# After a failed accept, such as for want of descriptors, others get the chance to close theirs.
_ACCEPT_PAUSE = 0.1
# A peer that is turned away may still be told why, but only so many at a time.
_MAX_REFUSALS = 64
# Seconds between two lines in the log of what peers could bring about as often as they like.
_QUIET_TIME = 10.0


class Acceptor:
    """Takes links from listeners, or from elsewhere, and passes on those that may be here.

    Args:
        endpoints: Where to listen.
        options: Limits and times.
        serve: Called with each link that may be here and its endpoint. It must call `leave` when the connection that it
            returns has ended.
        refuse: Called with a link, its endpoint, and a code and the reason for people; it tells the peer.
        requires_hello: Whether peers have to introduce themselves. Until they have they count as `strangers`.

    Attributes:
        strangers: Those of whom it is not known yet who they are. Whoever serves a link says when it is.
        listeners: The listeners, once there are any; in the order of the endpoints.
        accepted: Links passed on.
        refused: Links turned away because of a limit.
        denied: Links turned away because of who it was.
        handshake_errors: Links whose handshake failed, or took too long.
        accept_errors: Times that accepting failed.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        options: Options,
        *,
        serve: Callable[[Link, Endpoint], Connection],
        refuse: Callable[[Link, Endpoint, str, str], Awaitable[None]],
        requires_hello: bool = False,
    ) -> None:
        self._endpoints = endpoints
        self._options = options
        self._serve = serve
        self._refuse = refuse
        self._requires_hello = requires_hello
        self._seats = Seats(options)
        self._datagram_seats = DatagramSeats(options)
        self._refusals = 0
        self._quiet_until = -math.inf
        self._scope = trio.CancelScope()
        self._accepting: list[trio.CancelScope] = []
        self._nursery: trio.Nursery | None = None
        self.strangers: Strangers = Strangers(options)
        self.listeners: list[Listener] = []
        self.accepted: int = 0
        self.refused: int = 0
        self.denied: int = 0
        self.handshake_errors: int = 0
        self.accept_errors: int = 0

    async def listen(self, host: Host | None = None) -> None:
        """Take all addresses.

        Args:
            host: Through whom, if not by ourselves.

        Raises:
            AddressInUse, ListenError, AddressError: As `Transport.listen`. What was taken is released by `stop`.
        """
        taken: dict[int, Listener] = {}
        # Whoever opened an inherited socket did so once: it is taken when nothing else can go wrong any more.
        for place in sorted(range(len(self._endpoints)), key=lambda place: self._endpoints[place].is_inherited):
            endpoint = self._endpoints[place]
            hosts = None if host is None or endpoint.transport is not None else host.transport(endpoint)
            transport = hosts or endpoint.transport or transport_for(endpoint.parsed.scheme)
            taken[place] = listener = await transport.listen(endpoint.parsed, endpoint.listen_options)
            self.listeners = [taken[place] for place in sorted(taken)]
            logger.info("listening on %s", listener.address)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Accept on all addresses until `stop` is called."""
        with self._scope:
            async with trio.open_nursery() as self._nursery:
                for listener, endpoint in zip(self.listeners, self._endpoints, strict=True):
                    self._nursery.start_soon(self._accept, listener, endpoint)
                task_status.started()
                await trio.sleep_forever()  # links may come without a listener

    async def stop(self) -> None:
        """Accept no more, and release the addresses.

        Cancellation: they are released all the same.
        """
        self._scope.cancel()
        for listener in self.listeners:
            # Even under cancellation a listener is closed before it gives way.
            with trio.CancelScope(shield=True):
                await listener.aclose()

    async def retire(self) -> None:
        """Accept no more, and release the addresses; let in those who have come before, and go on with handshakes.

        Cancellation: the addresses are released all the same.
        """
        for scope in self._accepting:
            scope.cancel()
        for listener, endpoint in zip(self.listeners, self._endpoints, strict=False):
            with trio.CancelScope(shield=True):
                try:
                    waiting = listener.retire()
                finally:
                    await listener.aclose()
                for link in waiting:
                    if self._scope.cancel_called:
                        await link.aclose()
                        continue
                    await self._let_in(link, endpoint)
                    # What it has sent is read before the next one comes: all at once they would be too many strangers.
                    await trio.lowlevel.checkpoint()

    async def _accept(self, listener: Listener, endpoint: Endpoint) -> None:
        with trio.CancelScope() as scope:
            self._accepting.append(scope)
            await self._accept_all(listener, endpoint)

    async def _accept_all(self, listener: Listener, endpoint: Endpoint) -> None:
        trouble = _Trouble(listener.address.redacted)
        while True:
            try:
                link = await listener.accept()
            except ConnectionClosed:
                return
            except OSError as error:
                self.accept_errors += 1
                trouble.note(error)
                await trio.sleep(_ACCEPT_PAUSE)
            else:
                trouble.note_end()
                await self._let_in(link, endpoint)

    async def _let_in(self, link: Link, endpoint: Endpoint) -> None:
        try:
            admitted = self.admit(link, endpoint)
        except PeerNotAllowed as error:
            self._log_denial(link, error)
            admitted = False
        if not admitted:
            await link.aclose()

    def admit(self, link: Link, endpoint: Endpoint) -> bool:
        """Pass a link on if it may be here, once its handshake is done if it needs one.

        Returns:
            Whether it is dealt with. If not, there is no room for it and no way to tell the peer; the caller closes it.

        Raises:
            PeerNotAllowed: Not this one; nothing was done with the link.
        """
        assert self._nursery is not None
        if not link.needs_handshake:
            self._check(link, endpoint)
        # Where a handshake is to tell who it is, it costs something from now on, and counts.
        refusal = self._seats.take(link.peer) if link.reliable else self._datagram_seats.take(link)
        if refusal is not None:
            self._log_refusal(link, refusal)
            if not link.reliable:
                return False  # whoever sent a datagram may be somebody else than its source says
            self._nursery.start_soon(self._explain, link, endpoint, "full", refusal)
        elif link.reliable and (refusal := self._estrange(link)) is not None:
            self._log_refusal(link, refusal)
            self._seats.leave(link.peer)
            return False  # to tell it would take the very handshake of which there are too many
        elif link.needs_handshake:
            self._nursery.start_soon(self._meet, link, endpoint)
        else:
            self._pass_on(link, endpoint)
        return True

    def _estrange(self, link: Link) -> str | None:
        """Count a link among those whose peers are not known, if so it is; where there is no room, say why."""
        if not (link.needs_handshake or self._requires_hello):
            return None
        refusal = self.strangers.enter(link)
        if refusal is not None and (overdue := self.strangers.overdue(link.peer)) is not None:
            assert self._nursery is not None
            self.strangers.leave(overdue)
            self._nursery.start_soon(overdue.aclose)
            refusal = self.strangers.enter(link)
        return refusal

    def _check(self, link: Link, endpoint: Endpoint) -> None:
        try:
            endpoint.admit(link.peer)
        except PeerNotAllowed:
            self.denied += 1
            raise

    def _log_refusal(self, link: Link, refusal: str) -> None:
        self.refused += 1
        logger.log(self._level(), "turned away %s: %s", link.peer.address, refusal)

    def _log_denial(self, link: Link, error: PeerNotAllowed) -> None:
        # Where the function given as allow= failed, whoever wrote it needs the traceback.
        level = logging.WARNING if link.reliable else self._level()
        logger.log(level, "turned away: %s", error, exc_info=error.__cause__)

    def _level(self) -> int:
        """How loudly to tell that somebody was turned away: for who comes again and again, it is always the same."""
        now = trio.current_time()
        if now < self._quiet_until:
            return logging.DEBUG
        self._quiet_until = now + _QUIET_TIME
        return logging.WARNING

    async def _meet(self, link: Link, endpoint: Endpoint) -> None:
        """Find out by a handshake who it is, and pass the link on if it may be here."""
        admitted = False
        counted_as = link.peer
        try:
            if await self._shake_hands(link):
                self._check(link, endpoint)
                refusal = self._seats.change(counted_as, link.peer) if link.reliable else None
                if refusal is None:
                    counted_as = link.peer
                    admitted = not self._scope.cancel_called
                    if not self._requires_hello:
                        self.strangers.leave(link)
                else:
                    self._log_refusal(link, refusal)
                    await self._explain(link, endpoint, "full", refusal)
        except PeerNotAllowed as error:
            self._log_denial(link, error)
            await self._explain(link, endpoint, "not-allowed", _denial(link.peer))
        finally:
            if not admitted:
                self.leave(link, counted_as)
                await link.aclose()
        if admitted:
            self._pass_on(link, endpoint)

    async def _shake_hands(self, link: Link) -> bool:
        """Do the handshake of a link that needs one, in time; say whether it went well."""
        timeout = self._options.handshake_timeout
        try:
            with trio.move_on_after(math.inf if timeout is None else timeout):
                if link.needs_handshake:
                    await link.handshake()
                return True
            raise HandshakeFailed("timeout", f"no handshake within {timeout:g} s (handshake_timeout)")
        except ConnectionClosed:
            logger.info("%s made room for another before it was known", link.peer.address)
        except HandshakeFailed as error:
            logger.warning("%s could not connect: %s", link.peer.address, error)
        except Exception as error:  # what a third party's link raises must not end more than its connection
            logger.error("the link to %s failed", link.peer.address, exc_info=error)
        self.handshake_errors += 1
        return False

    async def _explain(self, link: Link, endpoint: Endpoint, code: str, why: str) -> None:
        """Hear the peer's hello, so that it can be told why it is turned away, and close."""
        self._refusals += 1
        try:
            if link.reliable and endpoint.can_refuse and self._refusals <= _MAX_REFUSALS:
                with trio.move_on_after(self._options.close_timeout):
                    if await self._shake_hands(link):
                        await self._refuse(link, endpoint, code, why)
        finally:
            self._refusals -= 1
            await link.aclose()

    def leave(self, link: Link, counted_as: Peer | None = None) -> None:
        """The connection of a link that was passed on has ended.

        Args:
            link: Which.
            counted_as: Who it was when it was counted in, if that is not who it is known to be now.
        """
        if link.reliable:
            self.strangers.leave(link)
            self._seats.leave(counted_as or link.peer)
        else:
            self._datagram_seats.leave(link)

    def _pass_on(self, link: Link, endpoint: Endpoint) -> None:
        self.accepted += 1
        connection = self._serve(link, endpoint)
        if not link.reliable:
            self._datagram_seats.seat(link, connection)


class _Trouble:
    """Tells that accepting fails, and that it does so no more: once each, however often it is tried.

    Args:
        where: The address, for people.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._failures = 0
        self._is_told = False
        self._quiet_until = -math.inf

    def note(self, error: OSError) -> None:
        """Accepting has failed."""
        self._failures += 1
        now = trio.current_time()
        if not self._is_told and now >= self._quiet_until:
            self._is_told = True
            self._quiet_until = now + _QUIET_TIME
            logger.error("cannot accept on %s for now, and goes on trying: %s", self._where, error)

    def note_end(self) -> None:
        """Somebody was accepted."""
        if self._is_told:
            logger.warning("accepts on %s again, after %s failed attempts", self._where, f"{self._failures:,}")
            self._is_told = False
        self._failures = 0


def _denial(peer: Peer) -> str:
    """What a peer is told that was authenticated, but is not allowed."""
    whose = f"the certificate of {peer.certificate.holder!r}" if peer.certificate else "this client"
    return f"this server does not admit {whose}; who runs it can add it to allow="
