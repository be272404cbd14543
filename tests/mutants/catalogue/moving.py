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
        self.offline.put_back(self.window.take_back(connection._outbox))
        reason = connection.reason
""",
        new="        reason = connection.reason\n",
        caught_by="tests/test_client.py::test_unsent_events_go_over_the_next_connection_once",
    ),
    Mutant(
        name="half-sent-and-sent-again",
        mistake="an event of which a part was sent goes over the next connection as well, and may be handled twice",
        file="pyipc/outbox.py",
        old="        return max(self._in_flight, 1 if self._head_sent else 0)\n",
        new="        return 0\n",
        caught_by="tests/test_outbox.py::test_what_was_not_begun_can_be_taken_back",
    ),
    Mutant(
        name="failed-write-sent-again",
        mistake="a write that failed leaves its frames in the outbox, though nobody knows how much of them arrived",
        file="pyipc/outbox.py",
        old="                    self._drop(self._in_flight)\n",
        new="",
        caught_by="tests/test_outbox.py::test_frames_that_were_in_a_failed_write_are_not_taken_back",
    ),
    Mutant(
        name="queue-backwards",
        mistake="what a broken connection left unsent is put behind what was queued after it",
        file="pyipc/offline.py",
        old="        self._frames.extendleft((None, frame, after) for frame, after in reversed(left))\n",
        new="        self._frames.extend((None, frame, after) for frame, after in left)\n",
        caught_by="tests/test_client.py::test_what_is_emitted_while_a_connection_ends_comes_after_what_that_has_left",
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
        caught_by="tests/test_outbox.py::test_what_goes_at_once_keeps_its_place_and_is_not_begun_anew",
    ),
    Mutant(
        name="partial-write-repeated",
        mistake="after a partial write the frame is sent again from its start",
        file="pyipc/outbox.py",
        old="            self._head_sent = sent\n            self.size += len(frame) - sent\n",
        new="            self.size += len(frame) - sent\n",
        caught_by="tests/test_outbox.py::test_what_goes_at_once_keeps_its_place_and_is_not_begun_anew",
    ),
    Mutant(
        name="partial-batch-repeated",
        mistake="after a partial write of a batch the frame at the cut is sent again from its start",
        file="pyipc/outbox.py",
        old="            self._head_sent = head\n",
        new="",
        caught_by="tests/test_outbox.py::test_what_was_not_begun_can_be_taken_back",
    ),
    Mutant(
        name="cancelled-and-sent",
        mistake="an emit in a cancelled scope sends its event all the same",
        file="pyipc/connection.py",
        old="        await trio.lowlevel.checkpoint_if_cancelled()\n        if attachments is not NO_ATTACHMENTS and (buffers",
        new="        if attachments is not NO_ATTACHMENTS and (buffers",
        caught_by="tests/conformance/test_pressure.py::test_a_call_cancelled_at_any_await_tears_nothing[client-memory]",
    ),
    Mutant(
        name="flush-waits-for-nothing",
        mistake="flush returns before everything is with the operating system",
        file="pyipc/outbox.py",
        old="        while self._error is None and self.frames and self._link.verified:\n",
        new="        while False:\n",
        caught_by="tests/test_outbox.py::test_flush_waits_for_the_last_byte",
    ),
    Mutant(
        name="no-jitter",
        mistake="all clients of a server that comes back wait for just as long, and come together",
        file="pyipc/backoff.py",
        old="        return interval * self._draw() if options.reconnect_jitter else interval\n",
        new="        return interval\n",
        caught_by="tests/test_client.py::test_jitter_is_full",
    ),
    Mutant(
        name="no-backoff",
        mistake="the pause between attempts never grows",
        file="pyipc/backoff.py",
        old="        self._interval = min(self._interval * options.reconnect_factor, options.reconnect_max_interval)\n",
        new="",
        caught_by="tests/test_client.py::test_back_off_doubles_up_to_a_limit",
    ),
    Mutant(
        name="success-at-once",
        mistake="a server that accepts and closes at once counts as a success, and is called again without a pause",
        file="pyipc/reconnecting.py",
        old="                            if heard or lasted:\n                                backoff.reset()\n",
        new="                            backoff.reset()\n",
        caught_by="tests/test_client.py::test_a_server_that_accepts_and_closes_is_no_success",
    ),
    Mutant(
        name="subscriptions-after-the-queue",
        mistake="subscriptions are restored after what was queued is published, so that a client misses its own",
        file="pyipc/reconnecting.py",
        old="""\
        if self.subscriptions:
            self.subscriptions.restore(connection)
        send_all_kept(connection, self.offline, self.window, self._drop)
""",
        new="""\
        send_all_kept(connection, self.offline, self.window, self._drop)
        if self.subscriptions:
            self.subscriptions.restore(connection)
""",
        caught_by="tests/test_subscribing.py::test_it_is_restored_before_what_was_queued_is_published",
    ),
    Mutant(
        name="subscriptions-not-restored",
        mistake="a subscription ends with the connection that it was made over, and says nothing of it",
        file="pyipc/reconnecting.py",
        old="        if self.subscriptions:\n            self.subscriptions.restore(connection)\n",
        new="",
        caught_by="tests/test_subscribing.py::test_it_is_restored_before_what_was_queued_is_published",
    ),
    Mutant(
        name="subscription-not-ended",
        mistake="a server goes on sending to a connection what it has unsubscribed from",
        file="pyipc/hub.py",
        old="        self._matches.remove(pattern, connection)\n",
        new="",
        caught_by="tests/test_hub.py::test_a_plain_peer_subscribes_and_publishes_with_events",
    ),
    Mutant(
        name="handed-in-comes-back",
        mistake="what was published at another server is told to the host again, and goes round for ever",
        file="pyipc/publishing.py",
        old="is_own=not by_peer, is_new=False\n",
        new="is_own=not by_peer\n",
        caught_by="tests/test_hosting.py::test_what_is_published_is_passed_on_whoever_does_it",
    ),
    Mutant(
        name="gone-subscriber-kept",
        mistake="the subscriptions of a connection that has ended are kept",
        file="pyipc/hub.py",
        old="        for call in list(subscriber.patterns) if subscriber is not None else ():\n",
        new="        for call in ():\n",
        caught_by="tests/test_hub.py::test_everything_of_a_connection_is_forgotten_with_it",
    ),
    Mutant(
        name="events-not-counted",
        mistake="the statistics count requests and leave out events",
        file="pyipc/connection.py",
        old="            events_received=self._dispatcher.received + self._responder.received,\n",
        new="            events_received=self._responder.received,\n",
        caught_by="tests/test_dispatch.py::test_events_without_a_handler_are_counted",
    ),
)
