"""Watching one connection for silence, dribble, a missing introduction, and for a peer that takes nothing.

Any byte is a sign of life. Each side says in its hello how often it wants to hear one, and each
sends a ping when it has been silent that long; a side that has stopped reading, or whose event loop
was blocked, judges nobody. One timer serves all of it, and an idle plain connection needs none.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import trio

from pyipc.errors import ConnectionLost
from pyipc.timers import GRACE, LAG

if TYPE_CHECKING:
    from pyipc.connection import Connection
    from pyipc.dispatch import Dispatcher
    from pyipc.options import Options
    from pyipc.outbox import Outbox
    from pyipc.protocol.conversation import Conversation
    from pyipc.reader import Reader
    from pyipc.timers import Timer, Timers

__all__ = ["Vigil"]

# From how much of a frame that is not complete others are looked at as well.
_LARGE = 64 * 1024
# How much later than due a sign of life may come, at most.
_TOLERANCE = 1.0


class Vigil:
    """Sends pings, and ends the connection when the peer is silent, dribbles, takes nothing or does not say hello.

    Args:
        connection: What to end.
        options: The times.
        conversation: Says how much of a frame has arrived.
        outbox: Says when bytes last left, and takes pings.
        dispatcher: Says whether reading has paused.
        reader: Says when bytes last came.
        timers: The clock.
        require_hello: Whether the peer must introduce itself.

    Attributes:
        began: When the connection began to live, in trio's time.
    """

    __slots__ = (
        "_connection",
        "_conversation",
        "_dispatcher",
        "_expected_interval",
        "_mark",
        "_options",
        "_outbox",
        "_promised_interval",
        "_reader",
        "_require_hello",
        "_timer",
        "_timers",
        "_writing_since",
        "began",
    )

    def __init__(
        self,
        connection: Connection,
        *,
        options: Options,
        conversation: Conversation,
        outbox: Outbox,
        dispatcher: Dispatcher,
        reader: Reader,
        timers: Timers,
        require_hello: bool,
    ) -> None:
        self._connection = connection
        self._options = options
        self._conversation = conversation
        self._outbox = outbox
        self._dispatcher = dispatcher
        self._reader = reader
        self._timers = timers
        self._require_hello = require_hello
        self._promised_interval: float | None = None
        self._expected_interval: float | None = None
        self.began: float = 0.0
        # When the incomplete frame last made progress, how much of it there was, and which one it is.
        self._mark: tuple[float, int, int] | None = None
        self._timer: Timer | None = None
        self._writing_since: float = 0.0

    @property
    def awaits_hello(self) -> bool:
        """Whether nothing that the peer says is heeded until it introduces itself."""
        return self._require_hello and self._conversation.protocol == "plain"

    def begin(self) -> None:
        """The connection lives from now on."""
        self.began = self._reader.time = self._outbox.last_sent = trio.current_time()
        if self._require_hello and self._options.handshake_timeout is not None:
            self._wake_at(self.began + self._options.handshake_timeout)

    def end(self) -> None:
        """The connection is over."""
        if self._timer is not None:
            self._timer.cancel()

    def meet(self, heartbeat: float | None) -> None:
        """The peer has introduced itself, and wants to hear from us every ``heartbeat`` seconds."""
        self._promised_interval = heartbeat
        self._expected_interval = self._options.heartbeat_interval
        self._wake_at(self._look(0.0))

    def watch_frame(self) -> None:
        """Bytes arrived, and the last of them are of a frame that is not complete."""
        if self._conversation.partial_size >= _LARGE:
            self._connection._owner.weigh(self._connection)
        if self._mark is None or self._mark[2] != self._conversation.frames_completed:
            self._set_mark(self._reader.time)
            if self._options.frame_timeout is not None:
                self._wake_at(self._reader.time + self._options.frame_timeout)

    def watch_writing(self) -> None:
        """Bytes wait that the link did not take."""
        timeout = self._options.write_timeout
        if timeout is not None:
            self._writing_since = trio.current_time()
            self._wake_at(self._writing_since + timeout)

    def _set_mark(self, now: float) -> None:
        self._mark = (now, self._conversation.partial_size, self._conversation.frames_completed)

    def _wake_at(self, when: float) -> None:
        if when == math.inf or (self._timer is not None and self._timer.when <= when):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._timers.call_at(when, self._on_timer)

    def _on_timer(self, late: float) -> None:
        self._timer = None
        self._wake_at(self._look(late))

    def _look(self, late: float) -> float:
        """Do what is due; say when to look again."""
        now = trio.current_time()
        return min(
            self._look_for_hello(now, late),
            self._keep_promise(now),
            self._look_for_life(now, late),
            self._look_at_frame(now, late),
            self._look_at_writing(now, late),
        )

    def _look_for_hello(self, now: float, late: float) -> float:
        timeout = self._options.handshake_timeout
        if timeout is None or not self.awaits_hello:
            return math.inf
        if now >= self.began + timeout:
            if late > LAG:
                return now + GRACE  # it was us: look again once what has arrived is read
            self._connection.abort(
                "handshake", f"the peer did not introduce itself within {timeout:g} s (handshake_timeout)"
            )
            return math.inf
        return self.began + timeout

    def _keep_promise(self, now: float) -> float:
        interval = self._promised_interval
        if interval is None:
            return math.inf
        due = self._outbox.last_sent + interval
        if now < due:
            return due
        if not self._outbox.frames:  # what waits to be sent is as good as a ping, and goes first
            try:
                self._outbox.push(self._conversation.ping())
            except ConnectionLost:
                return math.inf
        return now + interval

    def _look_for_life(self, now: float, late: float) -> float:
        interval = self._expected_interval
        if interval is None:
            return math.inf
        if self._dispatcher.paused or not self._connection._hears:
            self._reader.time = now
        limit = interval * self._options.heartbeat_misses + min(_TOLERANCE, interval)
        heard = max(self._reader.time, self._dispatcher.resumed_at)
        if now < heard + limit:
            return heard + limit
        if late > min(LAG, interval):
            return now + min(GRACE, interval)
        self._connection.abort("silent", f"the peer gave no sign of life for {now - heard:.1f} s", linger=False)
        return math.inf

    def _look_at_frame(self, now: float, late: float) -> float:
        timeout = self._options.frame_timeout
        if self._mark is None or timeout is None:
            return math.inf
        since, size, completed = self._mark
        if not self._conversation.partial_size or completed != self._conversation.frames_completed:
            self._mark = None  # that frame is complete; another one will have its own mark
            return math.inf
        since = max(since, self._dispatcher.resumed_at)
        grown = self._conversation.partial_size - size
        if self._dispatcher.paused or grown >= self._options.frame_progress_size:
            self._set_mark(now)
            return now + timeout
        if now >= since + timeout:
            if late > LAG:
                return now + GRACE
            self._connection.abort(
                "slow", f"the peer sent only {grown:,} bytes of a frame in {now - since:.0f} s (frame_timeout)"
            )
            return math.inf
        return since + timeout

    def _look_at_writing(self, now: float, late: float) -> float:
        timeout = self._options.write_timeout
        if timeout is None or not self._outbox.is_waiting or not self._connection._link.reliable:
            return math.inf
        since = max(self._writing_since, self._outbox.last_sent)
        if now < since + timeout:
            return since + timeout
        if late > min(LAG, timeout):
            return now + min(GRACE, timeout)  # it was us: see what the link takes now
        self._connection.abort(
            "slow",
            f"the peer took too little of {self._outbox.size:,} bytes in {now - since:.0f} s (write_timeout)",
            linger=False,
        )
        return math.inf
