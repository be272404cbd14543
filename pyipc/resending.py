"""A client's events that are to be confirmed: what a lost connection left open is sent again over the next one.

Whether it may be is for the server to say. A server that remembers the client's session handles nothing twice. One that
was started since cannot know, and tells its handlers so. One that remembers no more must not be asked again.
"""

from __future__ import annotations

import collections
import math
import secrets
from typing import TYPE_CHECKING

import trio

from pyipc.attaching import frozen
from pyipc.confirming import Unsettled, Window, check_can_wait, size_of
from pyipc.errors import (
    ConnectionClosed,
    ConnectionLost,
    LocalProtocolError,
    PeerLacksFeature,
    UnsupportedByTransport,
)
from pyipc.protocol.features import CONFIRM, Deliver
from pyipc.protocol.parcels import delivered_number, is_control

if TYPE_CHECKING:
    from pyipc.connection import Connection
    from pyipc.options import Options, Unset
    from pyipc.outbox import Outbox
    from pyipc.protocol.messages import Introduced
    from pyipc.protocol.parcels import Buffer, Frame
    from pyipc.reconnecting import Reconnecting
    from pyipc.timers import Timer, Timers

__all__ = ["Resending"]

# Of the life of a session at the server, how much a client waits for a connection. The rest is for clocks that differ.
_PATIENCE = 0.75
# Where something was sent to whoever had not introduced itself: nobody who has is that.
_NOWHERE = ("", "")


class Resending(Window):
    """The window of a client, whatever its connections.

    Args:
        up: Has the present connection, if there is one.
        options: How many events there may be, and what becomes of them without a connection.
        timers: The client's clock.

    Attributes:
        session: The secret name under which servers remember this client.
    """

    resent: int
    unconfirmed: int

    def __init__(self, up: Reconnecting, options: Options, timers: Timers) -> None:
        super().__init__(options, timers)
        self._up = up
        self._introductions: dict[Connection, Introduced] = {}
        self._patience: Timer | None = None
        self._closed = False
        self.session: str = secrets.token_hex(16)

    # --- what tasks do ---

    async def emit_anyhow(
        self, event: str, data: object, timeout: float | Unset | None, buffers: list[Buffer], traceparent: str
    ) -> None:
        """Send an event over whatever connection there is or will be, and wait for its outcome; see `Client.emit`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        connection = self._up.connection
        if connection is not None:
            check_can_wait(connection)
        text, timeout, deadline = self._prepare(event, data, timeout, traceparent)
        records = frozen(buffers)
        size = size_of(text, records)
        while True:
            connection = self._up.connection
            if connection is None or not connection.is_open:
                self._check_can_keep(event, text)
                if await self._has_waited_for_room(event, timeout, deadline, size):
                    if self._up.is_connected:
                        self._pass_on()
                        continue
                    try:
                        self._check_can_keep(event, text)
                    except BaseException:
                        self._pass_on()
                        raise
                connection = None
                break
            try:
                if await self._is_ready(connection, event, timeout, deadline, size):
                    break
            except ConnectionLost:
                if self._options.offline != "queue":
                    raise
                await trio.lowlevel.checkpoint()  # it is over, and will not be the present one for long
        unsettled = self._begin(event, text, records, timeout, deadline, traceparent)
        if connection is not None:
            self._send_or_keep(connection, unsettled)
        await self._wait(unsettled, connection)

    def _check_can_keep(self, event: str, text: bytes | None) -> None:
        """Refuse what could not be sent over a connection to come.

        Raises:
            UnsupportedByTransport: It could never be.
            LocalProtocolError: The event is too large.
            ConnectionClosed: There will be no connection, or nothing is kept for it.
        """
        if self._closed:
            raise ConnectionClosed("the client is closed")
        if self._up.failure is not None:
            raise ConnectionLost(f"the client has given up: {self._up.failure}") from self._up.failure
        template = self._up.template
        try:
            template.check_feature(CONFIRM)
        except UnsupportedByTransport:
            raise
        except PeerLacksFeature:
            pass  # who will be there is not known yet
        template.say(Deliver(self.last + 1, event, text, lowest=self.last + 1, again=True))
        if self._options.offline != "queue":
            raise ConnectionLost(f"not connected ({self._up.why_not}), and offline={self._options.offline!r}")

    def _send_or_keep(self, connection: Connection, unsettled: Unsettled) -> None:
        try:
            self._send(connection, unsettled)
        except ConnectionLost as lost:
            if self._options.offline != "queue":
                self._forget(unsettled)
                raise ConnectionLost(str(lost)) from lost
        except BaseException:
            self._forget(unsettled)
            raise

    def _send(self, connection: Connection, unsettled: Unsettled) -> None:
        super()._send(connection, unsettled)
        introduction = self._introductions.get(connection)
        place = _NOWHERE if introduction is None else (introduction.instance, introduction.incarnation)
        if place not in unsettled.places:
            unsettled.places += (place,)
        unsettled.expires = math.inf

    # --- connections that come and go ---

    def meet(self, connection: Connection, introduction: Introduced) -> None:
        """A server has introduced itself."""
        self._introductions[connection] = introduction
        self.span: int = introduction.session_window

    def part(self, connection: Connection) -> None:
        """A connection has ended, and what it left open has been taken care of."""
        self._introductions.pop(connection, None)

    def lose(self, connection: Connection) -> None:
        """A connection has ended: what it left open waits for the next, if there will be one."""
        if self._closed or self._up.failure is not None:
            for unsettled in self.pending.values():
                if unsettled.connection is connection:
                    unsettled.connection = None
            self.close()
            return
        if self._options.offline != "queue" or not self._options.reconnect:
            super().lose(connection)
            return
        introduction = self._introductions.get(connection)
        life = 0.0 if introduction is None else introduction.session_timeout
        expires = connection._reader.time + life * _PATIENCE
        for unsettled in self.pending.values():
            if unsettled.connection is connection:
                unsettled.connection = None
                unsettled.expires = expires
        self._wait_patiently()

    def _wait_patiently(self) -> None:
        """See to it that nothing waits for longer than the server remembers."""
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        next_end = min((each.expires for each in self._without_connection()), default=math.inf)
        if next_end < math.inf:
            self._patience = self._timers.call_at(next_end, self._lose_patience)

    def _without_connection(self) -> list[Unsettled]:
        return [each for each in self.pending.values() if each.connection is None and each.sent]

    @property
    def is_owed(self) -> bool:
        """Whether a server has got events of which it has not told the outcome, over a connection that is no more."""
        return bool(self._without_connection())

    def _lose_patience(self, late: float) -> None:
        self._patience = None
        now = trio.current_time()
        for unsettled in self._without_connection():
            if unsettled.expires <= now:
                self._give_up(unsettled, "lost", f"there was no connection for too long ({self._up.why_not})")
        self._wait_patiently()

    def take_back(self, outbox: Outbox) -> list[tuple[Frame, int]]:
        """Take back the plain events that a connection has left unsent, in order.

        Returns:
            Of each the bytes, and the number of the last event before it that is to be confirmed.
        """
        after = max((each.number for each in self.pending.values() if each.sent), default=0)
        places = []
        for frame in reversed(outbox.frames):
            if not is_control(frame):
                places.append(after)
            elif (number := delivered_number(frame)) is not None:
                after = number - 1
        frames = outbox.reclaim_events()
        return list(zip(frames, reversed(places[: len(frames)]), strict=True))

    def owed(self) -> collections.deque[Unsettled]:
        """What was sent over connections that are no more, and has no outcome, in order."""
        return collections.deque(self._without_connection())

    def resend(self, connection: Connection, owed: collections.deque[Unsettled], last: float = math.inf) -> None:
        """Send again what earlier connections left open, up to a number, over one that nothing newer was sent over."""
        if not owed or owed[0].number > last:
            return
        introduction = self._introductions.get(connection)
        while owed and owed[0].number <= last and connection.is_open:
            unsettled = owed.popleft()
            if unsettled.connection is not None or unsettled.number not in self.pending:
                continue  # giving up another has made room for this one, or ended it
            if introduction is None or CONFIRM not in connection._conversation.features:
                self._give_up(unsettled, "unsupported", "the server that is there now cannot confirm events")
            elif _is_forgotten(unsettled, introduction):
                self._give_up(unsettled, "forgotten", "the server has forgotten this client's session")
            elif not self._must_hold(unsettled):
                place = introduction.instance, introduction.incarnation
                unsettled.again = unsettled.again or place not in unsettled.places
                if self._has_sent(connection, unsettled):
                    self._note_resent()
        self._wait_patiently()

    def kept(self) -> collections.deque[Unsettled]:
        """What was emitted while there was no connection, in order."""
        return collections.deque(each for each in self.pending.values() if not each.sent)

    def send_kept(self, connection: Connection, kept: collections.deque[Unsettled], last: float = math.inf) -> None:
        """Send what was emitted while there was no connection, up to a number."""
        while kept and kept[0].number <= last and connection.is_open:
            unsettled = kept.popleft()
            if not unsettled.sent and unsettled.number in self.pending and not self._must_hold(unsettled):
                self._has_sent(connection, unsettled)

    def _must_hold(self, unsettled: Unsettled) -> bool:
        """Whether an event is too far above the lowest for this server, which may allow less than the last one did."""
        is_held = unsettled.number - next(iter(self.pending)) >= self.span
        self._are_held = self._are_held or is_held
        return is_held

    def _go_on(self) -> None:
        connection = self._up.connection
        if connection is not None and connection in self._introductions:
            self._are_held = False
            self.resend(connection, self.owed())
            self.send_kept(connection, self.kept())

    def _has_sent(self, connection: Connection, unsettled: Unsettled) -> bool:
        """Send an event whose task waits already, and say whether that went well."""
        try:
            connection._conversation.check_feature(CONFIRM)
            self._send(connection, unsettled)
        except ConnectionLost:
            return False  # it goes over the next one
        except LocalProtocolError as error:
            if unsettled.sent:
                self._give_up(unsettled, "unsupported", f"it cannot be sent again: {error}")
            else:
                self._finish(unsettled, error)
            return False
        return True

    # --- the end ---

    def close(self) -> None:
        """There will be no outcome any more: wake everybody."""
        failure = self._up.failure
        self._closed = self._closed or failure is None
        for unsettled in list(self.pending.values()):
            if failure is not None and unsettled.connection in self._up.departing:
                continue  # its outcome may still come
            if failure is None:
                self._give_up(unsettled, "closed", "the client was closed")
            else:
                self._give_up(unsettled, "failed", f"the client has given up: {failure}")
        self._wait_patiently()
        self._wake_all()


def _is_forgotten(unsettled: Unsettled, introduction: Introduced) -> bool:
    """Whether the server that is there now was sent an event before, and does not remember that."""
    instance, incarnation = introduction.instance, introduction.incarnation
    return any(each == instance and (not incarnation or other != incarnation) for each, other in unsettled.places)
