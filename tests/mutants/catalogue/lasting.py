"""Mistakes with silence and with endings: who is taken for dead, and what is lost when somebody closes."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant

__all__ = ["MUTANTS"]

MUTANTS: Final = (
    Mutant(
        name="wall-clock-heartbeat",
        mistake="silence is measured by the clock on the wall, which somebody may set",
        file="pyipc/vigil.py",
        old="""\
        \"\"\"Do what is due; say when to look again.\"\"\"
        now = trio.current_time()
""",
        new="""\
        \"\"\"Do what is due; say when to look again.\"\"\"
        import time

        now = time.time()
""",
        caught_by="tests/test_vigil.py::test_the_peer_says_how_often_it_wants_to_hear",
    ),
    Mutant(
        name="silence-while-reading-is-paused",
        mistake="a peer is taken for dead because this side does not read what it sends",
        file="pyipc/vigil.py",
        old="""\
        if self._dispatcher.paused or not self._connection._hears:
            self._reader.time = now
""",
        new="",
        caught_by="tests/test_vigil.py::test_a_paused_reader_judges_nobody",
    ),
    Mutant(
        name="blocked-loop-judges",
        mistake="a side whose own loop was blocked takes its peers for dead",
        file="pyipc/vigil.py",
        old="        if late > min(LAG, interval):\n",
        new="        if late < 0:\n",
        caught_by="tests/test_vigil.py::test_a_loop_that_was_blocked_judges_nobody",
    ),
    Mutant(
        name="silent-for-ever",
        mistake="a peer that has fallen silent is never noticed",
        file="pyipc/vigil.py",
        old="        self._expected_interval = self._options.heartbeat_interval\n",
        new="",
        caught_by="tests/test_vigil.py::test_any_byte_proves_life",
    ),
    Mutant(
        name="promise-broken",
        mistake="no ping is sent to a peer that wants to hear one",
        file="pyipc/vigil.py",
        old="        self._promised_interval = heartbeat\n",
        new="",
        caught_by="tests/test_vigil.py::test_pings_only_when_idle",
    ),
    Mutant(
        name="dribble-is-life",
        mistake="a frame may arrive one byte at a time, for as long as its sender likes",
        file="pyipc/vigil.py",
        old="        if self._dispatcher.paused or grown >= self._options.frame_progress_size:\n",
        new="        if self._dispatcher.paused or grown > 0:\n",
        caught_by="tests/test_vigil.py::test_dribble_does_not_buy_time",
    ),
    Mutant(
        name="written-to-for-ever",
        mistake="what a peer does not take is kept for it for ever",
        file="pyipc/vigil.py",
        old="        if timeout is None or not self._outbox.is_waiting or not self._connection._link.reliable:\n",
        new="        if timeout is None or self._outbox.is_waiting:\n",
        caught_by="tests/test_write_timeout.py::test_a_peer_that_takes_nothing_is_given_up",
    ),
    Mutant(
        name="no-hello-no-hurry",
        mistake="a peer that never introduces itself keeps its place",
        file="pyipc/vigil.py",
        old="        if timeout is None or not self.awaits_hello:\n",
        new="        if timeout is None or self._require_hello:\n",
        caught_by="tests/test_vigil.py::test_a_required_hello_has_its_time",
    ),
    Mutant(
        name="close-without-reading",
        mistake="closing does not read what the peer still sends, which resets the connection and loses what was sent",
        file="pyipc/lifecycle.py",
        old="""\
                    if is_eof_sent or not self._link.keeps_sent:
                        await self._reading_ended.wait()
""",
        new="                    pass\n",
        caught_by="tests/test_closing.py::test_a_link_that_could_lose_what_was_sent_is_read_until_the_peer_closes",
    ),
    Mutant(
        name="close-without-sending",
        mistake="closing drops what is queued",
        file="pyipc/lifecycle.py",
        old="""\
                    if self._link.verified:
                        await self._outbox.flush()
                    else:
                        self._outbox.flush_nowait()
                    is_eof_sent""",
        new="                    is_eof_sent",
        caught_by="tests/test_closing.py::test_nobody_waits_for_a_peer_that_is_not_told_of_the_end",
    ),
    Mutant(
        name="close-waits-for-ever",
        mistake="closing waits without a bound for a peer that does not close",
        file="pyipc/lifecycle.py",
        old="            with trio.move_on_after(self._options.close_timeout):\n",
        new="            with trio.move_on_after(1e9):\n",
        caught_by="tests/test_closing.py::test_a_link_that_could_lose_what_was_sent_is_read_until_the_peer_closes",
    ),
    Mutant(
        name="goodbye-not-sent",
        mistake="a peer is not told that this side closes because it wants to",
        file="pyipc/lifecycle.py",
        old="                        self._offer(self._conversation.goodbye(code, message))\n",
        new="                        pass\n",
        caught_by="tests/test_server.py::test_a_client_that_closes_says_goodbye",
    ),
    Mutant(
        name="reason-not-told",
        mistake="a peer whose connection is ended for what it did is not told why",
        file="pyipc/lifecycle.py",
        old="""\
        self._offer(self._conversation.goodbye(code, message))
        self._outbox.flush_nowait()
        self._outbox.end()
""",
        new="        self._outbox.end()\n",
        caught_by="tests/test_dispatch.py::test_with_a_wait_pending_the_hard_cap_closes_with_the_reason",
    ),
    Mutant(
        name="undelivered-not-told",
        mistake="closing says nothing of what could not be sent",
        file="pyipc/lifecycle.py",
        old="                undelivered = self._outbox.count_events()\n",
        new="                pass\n",
        caught_by="tests/test_dispatch.py::test_what_could_not_be_delivered_is_counted",
    ),
    Mutant(
        name="end-before-what-arrived",
        mistake="what arrived right before the end of the connection is not handled",
        file="pyipc/dispatch.py",
        old="        self._leader = self._leading_task = None\n        self._ended = self._responder.ended = True\n",
        new="        self._inbox.clear()\n        self._leader = self._leading_task = None\n        self._ended = self._responder.ended = True\n",
        caught_by="tests/test_dispatch.py::test_what_arrived_before_the_end_of_the_stream_is_all_handled",
    ),
    Mutant(
        name="drain-waits-for-nothing",
        mistake="a connection is ended in a drain although something that has arrived is being handled",
        file="pyipc/finishing.py",
        old="    return asked + handlers + len(inbox.events) + len(inbox.requests) +",
        new="    return asked +",
        caught_by="tests/test_draining.py::test_a_plain_peer_gets_its_answers_and_then_the_end",
    ),
    Mutant(
        name="drain-without-a-word",
        mistake="a server that is drained does not ask its clients to go elsewhere",
        file="pyipc/draining.py",
        old="                connection._outbox.push(connection._conversation.goaway(self._message))\n",
        new="                pass\n",
        caught_by="tests/test_draining.py::test_a_peer_is_asked_with_the_reason_and_waited_for",
    ),
    Mutant(
        name="answers-lost-on-leaving",
        mistake="a client that is asked to go elsewhere does not wait for the answers that are under way",
        file="pyipc/reconnecting.py",
        old="        await depart(connection, expected, max(self._options.drain_timeout, self._options.close_timeout))\n",
        new='        connection.abort("left", "", linger=False)\n',
        caught_by="tests/test_moving.py::test_new_work_goes_to_a_new_connection_and_old_work_stays",
    ),
    Mutant(
        name="one-timer-stops-all",
        mistake="one deadline that fails takes the clock of all connections with it",
        file="pyipc/timers.py",
        old='                logger.exception("a timer\'s action failed")\n',
        new="                raise\n",
        caught_by="tests/test_timers.py::test_one_that_fails_does_not_stop_the_others",
    ),
    Mutant(
        name="handler-ends-connection",
        mistake="a handler that raises ends its connection",
        file="pyipc/dispatch.py",
        old="""\
                        except Exception as error:
                            self._report("a handler", name, error)
                            continue
""",
        new="""\
                        except Exception as error:
                            self._report("a handler", name, error)
                            raise
""",
        caught_by="tests/test_dispatch.py::test_a_handler_that_fails_hurts_nobody_else",
    ),
    Mutant(
        name="stuck-for-ever",
        mistake="a peer that takes nothing of what waits for it is waited for without end",
        file="pyipc/vigil.py",
        old="        if timeout is None or not self._outbox.is_waiting or not self._connection._link.reliable:\n",
        new="        if timeout != 0:\n",
        caught_by="tests/test_write_timeout.py::test_a_peer_that_takes_nothing_is_given_up",
    ),
    Mutant(
        name="stuck-since-long-ago",
        mistake="the time since something was last sent counts for a peer that has only now stopped to take anything",
        file="pyipc/vigil.py",
        old="        since = max(self._writing_since, self._outbox.last_sent)\n        if now < since + timeout:\n",
        new="        since = self.began\n        if now < since + timeout:\n",
        caught_by="tests/test_write_timeout.py::test_time_spent_waiting_before_does_not_count",
    ),
    Mutant(
        name="large-message-looks-stuck",
        mistake="of a large message it is not seen that the peer takes it bit by bit",
        file="pyipc/outbox.py",
        old="                if size > STRIDE and self._link.reliable:\n",
        new="                if size < 0:\n",
        caught_by="tests/test_write_timeout.py::test_whoever_takes_a_little_now_and_then_is_not",
    ),
    Mutant(
        name="back-in-step",
        mistake="clients that have lost their server at one moment try again at the same moments",
        file="pyipc/backoff.py",
        old="        return interval * self._draw() if options.reconnect_jitter else interval\n",
        new="        return interval\n",
        caught_by="tests/battery/test_r13_reconnect_storm.py::"
        "test_those_who_were_left_at_one_moment_do_not_try_in_step",
    ),
)
