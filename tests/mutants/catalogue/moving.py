"""Mistakes with what is sent and with connections that come and go: nothing lost, nothing twice, all in order."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant

__all__ = ["MUTANTS"]

MUTANTS: Final = (
    Mutant(
        name="dropped-on-reconnect",
        mistake="events that a broken connection has not sent are gone, instead of going over the next",
        file="pyipc/reconnecting.py",
        old="""\
        self.offline.put_back(connection._outbox.reclaim_events())
        reason = connection.reason
""",
        new="        reason = connection.reason\n",
        caught_by="HINT:tests/test_client.py",
    ),
    Mutant(
        name="half-sent-and-sent-again",
        mistake="an event of which a part was sent goes over the next connection as well, and may be handled twice",
        file="pyipc/outbox.py",
        old="        begun = max(self._in_flight, 1 if self._head_sent else 0)\n",
        new="        begun = 0\n",
        caught_by="HINT:tests/test_outbox.py tests/test_client.py",
    ),
    Mutant(
        name="failed-write-sent-again",
        mistake="a write that failed leaves its frames in the outbox, though nobody knows how much of them arrived",
        file="pyipc/outbox.py",
        old="                    self._drop(self._in_flight)\n",
        new="",
        caught_by="HINT:tests/test_outbox.py tests/test_client.py",
    ),
    Mutant(
        name="queue-backwards",
        mistake="what a broken connection left unsent is put behind what was queued after it",
        file="pyipc/offline.py",
        old="        self._frames.extendleft((None, frame, after) for frame in reversed(frames))\n",
        new="        self._frames.extend((None, frame, after) for frame in frames)\n",
        caught_by="HINT:tests/test_client.py",
    ),
    Mutant(
        name="two-writers",
        mistake="a request goes to the link at once while another task waits there with the rest of a frame",
        file="pyipc/outbox.py",
        old="""\
        if self.frames:
            self.frames.append(frame)
            self.size += len(frame)
            self.flush_nowait()
            return
""",
        new="""\
        if self.frames and not self._writing:
            self.frames.append(frame)
            self.size += len(frame)
            self.flush_nowait()
            return
""",
        caught_by="HINT:tests/test_outbox.py",
    ),
    Mutant(
        name="partial-write-repeated",
        mistake="after a partial write the frame is sent again from its start",
        file="pyipc/outbox.py",
        old="            self._head_sent = sent\n            self.size += len(frame) - sent\n",
        new="            self.size += len(frame) - sent\n",
        caught_by="HINT:tests/test_outbox.py",
    ),
    Mutant(
        name="partial-batch-repeated",
        mistake="after a partial write of a batch the frame at the cut is sent again from its start",
        file="pyipc/outbox.py",
        old="            self._head_sent = head\n",
        new="",
        caught_by="HINT:tests/test_outbox.py",
    ),
    Mutant(
        name="cancelled-and-sent",
        mistake="an emit in a cancelled scope sends its event all the same",
        file="pyipc/connection.py",
        old="        await trio.lowlevel.checkpoint_if_cancelled()\n        if attachments is not NO_ATTACHMENTS and (buffers",
        new="        if attachments is not NO_ATTACHMENTS and (buffers",
        caught_by="HINT:tests/test_containment.py tests/test_client.py tests/conformance/test_pressure.py tests/test_server.py",
    ),
    Mutant(
        name="flush-waits-for-nothing",
        mistake="flush returns before everything is with the operating system",
        file="pyipc/outbox.py",
        old="        while self._error is None and self.frames and self._link.verified:\n",
        new="        while False:\n",
        caught_by="HINT:tests/test_outbox.py",
    ),
    Mutant(
        name="no-jitter",
        mistake="all clients of a server that comes back wait for just as long, and come together",
        file="pyipc/backoff.py",
        old="        return interval * self._draw() if options.reconnect_jitter else interval\n",
        new="        return interval\n",
        caught_by="HINT:tests/test_client.py",
    ),
    Mutant(
        name="no-backoff",
        mistake="the pause between attempts never grows",
        file="pyipc/backoff.py",
        old="        self._interval = min(self._interval * options.reconnect_factor, options.reconnect_max_interval)\n",
        new="",
        caught_by="HINT:tests/test_client.py",
    ),
    Mutant(
        name="success-at-once",
        mistake="a server that accepts and closes at once counts as a success, and is called again without a pause",
        file="pyipc/reconnecting.py",
        old="                            if heard or lasted:\n                                backoff.reset()\n",
        new="                            backoff.reset()\n",
        caught_by="HINT:tests/test_client.py",
    ),
    Mutant(
        name="subscriptions-after-the-queue",
        mistake="subscriptions are restored after what was queued is published, so that a client misses its own",
        file="pyipc/reconnecting.py",
        old="""\
        if self.subscriptions:
            self.subscriptions.restore(connection)
        self.window.resend(connection)
        send_all_kept(connection, self.offline, self.window, self._drop)
""",
        new="""\
        self.window.resend(connection)
        send_all_kept(connection, self.offline, self.window, self._drop)
        if self.subscriptions:
            self.subscriptions.restore(connection)
""",
        caught_by="HINT:tests/test_subscribing.py tests/conformance/test_topics.py",
    ),
    Mutant(
        name="subscriptions-not-restored",
        mistake="a subscription ends with the connection that it was made over, and says nothing of it",
        file="pyipc/reconnecting.py",
        old="        if self.subscriptions:\n            self.subscriptions.restore(connection)\n",
        new="",
        caught_by="HINT:tests/test_subscribing.py",
    ),
    Mutant(
        name="subscription-not-ended",
        mistake="a server goes on sending to a connection what it has unsubscribed from",
        file="pyipc/hub.py",
        old="        self._matches.remove(pattern, connection)\n",
        new="",
        caught_by="HINT:tests/test_hub.py",
    ),
    Mutant(
        name="gone-subscriber-kept",
        mistake="the subscriptions of a connection that has ended are kept",
        file="pyipc/hub.py",
        old="        for call in list(subscriber.patterns) if subscriber is not None else ():\n",
        new="        for call in ():\n",
        caught_by="HINT:tests/test_hub.py",
    ),
    Mutant(
        name="events-not-counted",
        mistake="the statistics count requests and leave out events",
        file="pyipc/connection.py",
        old="            events_received=self._dispatcher.received + self._responder.received,\n",
        new="            events_received=self._responder.received,\n",
        caught_by="HINT:tests/test_statistics.py tests/test_dispatch.py tests/test_server.py",
    ),
)
