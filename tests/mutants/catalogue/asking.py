"""Mistakes with requests and streams: every answer to its question, and nothing that goes on when nobody waits."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant

__all__ = ["MUTANTS"]

MUTANTS: Final = (
    Mutant(
        name="answers-by-turn",
        mistake="an answer goes to whoever has waited for longest, and not to whoever asked",
        file="pyipc/calls.py",
        old="        call = self.pending.pop(answer.call, None)\n",
        new="        call = self.pending.pop(next(iter(self.pending), 0), None)\n",
        caught_by="tests/conformance/test_requests.py::test_calls_a_hundred_deep_finish_with_one_slot[client-memory]",
    ),
    Mutant(
        name="numbers-used-again",
        mistake="the number of a call is used again, so that a late answer is taken for that of another",
        file="pyipc/protocol/outgoing.py",
        old="        call = self._last_call + 1\n",
        new="        call = self._last_call % 8 + 1\n",
        caught_by="tests/test_calls.py::test_the_number_of_pending_requests_is_bounded",
    ),
    Mutant(
        name="cancel-not-sent",
        mistake="nobody is told that a request was cancelled, and its handler goes on",
        file="pyipc/lifecycle.py",
        old="                self._outbox.push(self._conversation.cancel(number))  # there are no more of them than of calls\n",
        new="                pass\n",
        caught_by="tests/test_calls.py::test_a_request_that_was_cancelled_in_the_queue_is_never_handled",
    ),
    Mutant(
        name="abandoned-calls-leak",
        mistake="calls that were cancelled or came too late are never forgotten",
        file="pyipc/calls.py",
        old="        if self.pending.pop(call.number, None) is not None:\n",
        new="        if call.number in self.pending:\n",
        caught_by="tests/test_calls.py::test_a_handler_that_will_not_be_cancelled_answers_nobody",
    ),
    Mutant(
        name="cancelled-in-the-queue-and-handled",
        mistake="a request that was cancelled while it waited for its turn is handled all the same",
        file="pyipc/responder.py",
        old="        waiting = self._waiting.pop(call, None)\n",
        new="        waiting = None\n",
        caught_by="tests/test_calls.py::test_a_request_that_was_cancelled_in_the_queue_is_never_handled",
    ),
    Mutant(
        name="no-slots",
        mistake="any number of requests of one connection is handled at the same time",
        file="pyipc/responder.py",
        old="                or self.slots_used >= self._max_slots\n",
        new="",
        caught_by="tests/test_dispatch.py::test_requests_are_limited_and_answered_as_they_finish",
    ),
    Mutant(
        name="slot-kept-while-waiting",
        mistake="a handler keeps its slot while it asks the peer, so that calls which nest wait for ever",
        file="pyipc/slots.py",
        old="        if self._waiters == 0:\n            self._free()\n        self._waiters += 1\n",
        new="        self._waiters += 1\n",
        caught_by="tests/test_dispatch.py::test_calls_nested_100_deep_finish",
    ),
    Mutant(
        name="number-twice",
        mistake="a peer may use the number of a call that is at work for another",
        file="pyipc/responder.py",
        old="                    self._refuse_number(request.call)\n                return None\n",
        new="                    pass\n                return None\n",
        caught_by="tests/test_calls.py::test_the_same_number_twice_ends_the_connection",
    ),
    Mutant(
        name="timeout-by-the-next-call",
        mistake="a deadline before that of the call before it is not noticed in time",
        file="pyipc/calls.py",
        old="        if deadline < self._sweep_at:\n",
        new="        if self._sweep is None:\n",
        caught_by="tests/test_deadlines_of_calls.py::test_each_expires_at_its_time",
    ),
    Mutant(
        name="waiting-for-the-dead",
        mistake="whoever waits for an answer is not told that the connection has ended",
        file="pyipc/lifecycle.py",
        old="        self._calls.fail_all(message, lost=lost, maybe_handled=maybe_handled)\n",
        new="",
        caught_by="tests/test_dispatch.py::test_with_a_wait_pending_the_hard_cap_closes_with_the_reason",
    ),
    Mutant(
        name="credit-ignored-by-the-producer",
        mistake="a stream is sent as fast as its generator yields, whether or not the peer has room",
        file="pyipc/producing.py",
        old="""\
                        production.items <= 0
                        or production.size <= 0
                        or outbox.size""",
        new="                        outbox.size",
        caught_by="tests/test_streams.py::test_without_credit_nothing_is_sent",
    ),
    Mutant(
        name="credit-ignored-by-the-consumer",
        mistake="a peer may send more of a stream than it has credit for, and all of it is kept",
        file="pyipc/streams.py",
        old="        if stream._items_left > 0 and stream._size_left > 0:\n",
        new="        if stream._buffer is not None:\n",
        caught_by="tests/test_streams.py::test_a_peer_that_exceeds_its_credit_is_refused",
    ),
    Mutant(
        name="credit-not-given-back",
        mistake="what is taken of a stream makes no room for more, and it stands still",
        file="pyipc/streams.py",
        old="            self._give_credit()\n        taken",
        new="            pass\n        taken",
        caught_by="tests/test_streams.py::test_what_is_asked_and_credited",
    ),
    Mutant(
        name="left-stream-goes-on",
        mistake="leaving the block of a stream does not end its generator",
        file="pyipc/streams.py",
        old="""\
        if self._state == "open":
            self._cancel()
        self.end(None)
""",
        new="        self.end(None)\n",
        caught_by="tests/test_streams.py::test_what_a_generator_does_at_its_end",
    ),
    Mutant(
        name="generator-not-closed",
        mistake="the generator of a stream that was cancelled is left to the garbage collector",
        file="pyipc/producing.py",
        old="        finally:\n            await rows.aclose()\n",
        new="        finally:\n            pass\n",
        caught_by="tests/test_streams.py::test_what_a_generator_does_at_its_end",
    ),
    Mutant(
        name="stalled-for-ever",
        mistake="a generator whose peer takes nothing is held for ever",
        file="pyipc/producing.py",
        old="        self._max_wait = math.inf if timeout is None else timeout\n",
        new="        self._max_wait = math.inf\n",
        caught_by="tests/test_streams.py::test_a_peer_that_gives_no_credit_is_not_waited_for_for_ever",
    ),
)
