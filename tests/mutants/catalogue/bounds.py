"""Mistakes with limits: what a peer that is slow, hostile or both can make this side keep or do."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant

__all__ = ["MUTANTS"]

MUTANTS: Final = (
    Mutant(
        name="limit-after-allocation",
        mistake="a frame is found too large only once all of it is here",
        file="pyipc/protocol/frames.py",
        old="        if self.partial_size > self._max_frame_size:\n",
        new="        if self._pieces is None and self.partial_size > self._max_frame_size:\n",
        caught_by="tests/protocol/test_frames.py::test_a_partial_frame_at_the_limit_and_over_it",
    ),
    Mutant(
        name="announced-length-believed",
        mistake="an attachment may be announced as large as its sender likes",
        file="pyipc/protocol/records.py",
        old="        if self._announced > options.max_attachments_size:\n",
        new="        if len(self.attachments) > options.max_attachments_size:\n",
        caught_by="tests/protocol/test_records.py::test_vectors[Role.CLIENT-more than 4,194,304 bytes announced]",
    ),
    Mutant(
        name="no-depth-check",
        mistake="JSON may be nested as deep as the peer likes",
        file="pyipc/protocol/codec.py",
        old="    return bool(brackets)\n",
        new="    return False\n",
        caught_by="tests/protocol/test_codec.py::test_too_deep_counts_as_a_parser_does",
    ),
    Mutant(
        name="no-depth-check-in-a-batch",
        mistake="the depth of frames is checked only where they come one by one",
        file="pyipc/protocol/codec.py",
        old='    if b"[" * (max_depth + 1) in openers:\n        return None\n',
        new="",
        caught_by="tests/protocol/test_codec.py::test_inbound[depth 65-Role.CLIENT]",
    ),
    Mutant(
        name="back-pressure-off",
        mistake="reading goes on while handlers are slow",
        file="pyipc/dispatch.py",
        old="""\
            if self._inbox.size >= self._high_water_size:
                await self._wait_for_room()
""",
        new="",
        caught_by="tests/test_dispatch.py::test_reading_pauses_when_handlers_are_slow_and_resumes",
    ),
    Mutant(
        name="emit-waits-for-nobody",
        mistake="an emit does not wait for a peer that reads slowly",
        file="pyipc/outbox.py",
        old="        while self._error is None and self.size >= self.high_water_size:\n",
        new="        while False:\n",
        caught_by="tests/test_outbox.py::test_high_water_holds_senders_back",
    ),
    Mutant(
        name="inbox-without-end",
        mistake="where reading must go on, any amount is kept",
        file="pyipc/inbox.py",
        old="        if self.size - self._exempt > self._max_size and self._connection._link.reliable:\n",
        new="        if self.size < 0:\n",
        caught_by="tests/test_dispatch.py::test_with_a_wait_pending_the_hard_cap_closes_with_the_reason",
    ),
    Mutant(
        name="tiny-events-weigh-nothing",
        mistake="events that wait are counted by their bytes alone, so that any number of empty ones may",
        file="pyipc/inbox.py",
        old="        self.size += _ITEM_SIZE\n",
        new="",
        caught_by="tests/test_dispatch.py::test_a_flood_of_tiny_events_weighs_something",
    ),
    Mutant(
        name="slow-subscriber-grows",
        mistake="what is broadcast waits without a bound for a peer that does not read",
        file="pyipc/connection.py",
        old="        elif outbox.size + len(frame) <= outbox.max_size or outbox.takes_whole(frame):\n",
        new="        elif outbox.frames:\n",
        caught_by="tests/test_server.py::test_a_slow_peer_is_closed_and_nobody_else_is_hurt",
    ),
    Mutant(
        name="slow-consumer-grows",
        mistake="a subscription keeps any number of messages that its program does not take",
        file="pyipc/subscription.py",
        old="        return not messages or (len(messages) < self._max_buffered and self._size + size <= self._max_size)\n",
        new="        return not messages or len(messages) < 1_000_000\n",
        caught_by="tests/test_subscribing.py::test_more_than_it_holds",
    ),
    Mutant(
        name="answers-without-end",
        mistake="a peer that asks and never reads has all of its answers kept",
        file="pyipc/outbox.py",
        old="        if self.frames and self.size + len(frame) > self.max_size and not self.takes_whole(frame):\n",
        new="        if not frame:\n",
        caught_by="tests/test_outbox.py::test_the_cap_bounds_what_piles_up_and_not_a_single_frame",
    ),
    Mutant(
        name="connections-not-counted-down",
        mistake="connections that have ended count for the limit",
        file="pyipc/seats.py",
        old='        """Count a peer out."""\n        self.taken -= 1\n',
        new='        """Count a peer out."""\n',
        caught_by="tests/test_server.py::test_room_is_found_again",
    ),
    Mutant(
        name="one-peer-takes-all",
        mistake="one user or host may have all of the connections",
        file="pyipc/seats.py",
        old="        if origin is not None and self._by_origin[origin] >= self._limit_of_origin:\n",
        new="        if origin is not None and self._by_origin[origin] >= self._limit:\n",
        caught_by="tests/test_server.py::test_one_user_cannot_take_all_places",
    ),
    Mutant(
        name="accept-spins",
        mistake="accepting is tried again at once when there are no descriptors left",
        file="pyipc/accepting.py",
        old="                await trio.sleep(_ACCEPT_PAUSE)\n",
        new="                await trio.lowlevel.checkpoint()\n",
        caught_by="tests/test_statistics.py::test_whoever_cannot_accept_tries_again_but_not_at_once",
    ),
    Mutant(
        name="accept-gives-up",
        mistake="a server that has once run out of descriptors accepts nobody any more",
        file="pyipc/accepting.py",
        old="                await trio.sleep(_ACCEPT_PAUSE)\n",
        new="                return\n",
        caught_by="tests/test_statistics.py::test_whoever_cannot_accept_tries_again_but_not_at_once",
    ),
    Mutant(
        name="handshake-without-end",
        mistake="a peer may take as long for its handshake as it likes",
        file="pyipc/accepting.py",
        old="            with trio.move_on_after(math.inf if timeout is None else timeout):\n",
        new="            with trio.move_on_after(math.inf):\n",
        caught_by="tests/test_accepting.py::test_silence_in_the_handshake_ends_in_time",
    ),
    Mutant(
        name="datagram-queue-without-end",
        mistake="datagrams of one peer wait without a bound",
        file="pyipc/transports/udp_listener.py",
        old="        if self._queue_size + weight > _MAX_QUEUE_SIZE:\n",
        new="        if weight < 0:\n",
        caught_by="tests/test_udp_transport.py::test_what_a_link_does_not_read_is_dropped_beyond_a_bound",
    ),
    Mutant(
        name="amplification",
        mistake="who has not shown that it is where it says may be sent more than it has sent",
        file="pyipc/transports/udp_listener.py",
        old="        return self.verified or (size <= self._bytes_allowed and self._datagrams_allowed > 0)\n",
        new="        return True\n",
        caught_by="tests/test_udp_transport.py::test_a_stranger_is_sent_no_more_than_it_sent[127.0.0.1]",
    ),
    Mutant(
        name="strangers-without-end",
        mistake="a server remembers any number of sources of datagrams",
        file="pyipc/transports/udp_listener.py",
        old="        elif len(self._strangers) >= self._max_strangers:\n",
        new="        elif not self._strangers and self._closed:\n",
        caught_by="tests/test_udp_transport.py::test_the_stranger_that_was_silent_for_longest_makes_room",
    ),
)
