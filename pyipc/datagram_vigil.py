"""Watching one connection over datagrams, where silence means little.

A client says its hello again every heartbeat interval, and sooner at first: it may have been lost, the server may have
been restarted, and a server forgets a peer that it does not hear from. Whether the server answers changes nothing for
the client, which cannot know whether what it answered to that has arrived.
"""

from __future__ import annotations

import math

from pyipc.timers import GRACE, LAG
from pyipc.vigil import Vigil

__all__ = ["DatagramVigil"]

# Seconds until a hello is said again for the first time; then twice as long each time.
_FIRST_PAUSE = 0.5


class DatagramVigil(Vigil):
    """Repeats the hello of a client; forgets peers of a server that send nothing any more. Arguments as for `Vigil`."""

    __slots__ = ("_hello_due", "_pause")

    def begin(self) -> None:
        """The connection lives from now on."""
        super().begin()
        self._pause = _FIRST_PAUSE
        self._hello_due = math.inf
        if self._options.heartbeat_interval is not None and self._conversation.awaits_welcome:
            self._say_hello_later(self.began)
        self._wake_at(self._look(0.0))

    def meet(self, heartbeat: float | None) -> None:
        """The peer has introduced itself. It is not judged by how often it is heard from.

        Nor is hello said less often: should the echo be lost, only another welcome brings another one.
        """

    def _say_hello_later(self, now: float) -> None:
        interval = self._options.heartbeat_interval
        assert interval is not None
        pause = min(self._pause, interval)
        self._pause = min(2 * pause, interval)
        self._hello_due = now + pause

    def _keep_promise(self, now: float) -> float:
        if now >= self._hello_due:
            self._outbox.push_ahead(self._conversation.ping())
            self._say_hello_later(now)
        return self._hello_due

    def _look_for_life(self, now: float, late: float) -> float:
        timeout = self._options.peer_idle_timeout
        if timeout is None or not self._connection._link.expires:
            return math.inf
        # Who waits for an answer need not say anything, nor who is waited for.
        if self._dispatcher.paused or self._dispatcher.is_at_work or self._connection.is_waiting:
            self._reader.time = now
        limit = max(self._reader.time, self._dispatcher.resumed_at) + timeout
        if now < limit:
            return limit
        if late > LAG:
            return now + GRACE
        self._connection.abort("idle", f"the peer sent nothing for {timeout:g} s (peer_idle_timeout)")
        return math.inf
