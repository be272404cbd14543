"""Mistakes with events that are confirmed: handled once, in order, whatever happens to their connection."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant

__all__ = ["MUTANTS"]

MUTANTS: Final = (
    Mutant(
        name="confirm-before-handling",
        mistake="an event is confirmed as soon as it has arrived, whatever its handler makes of it",
        file="pyipc/delivering.py",
        old="    receipts.begin(number)\n",
        new="    receipts.begin(number)\n    _answer(connection, number, HANDLED)\n",
        caught_by="tests/test_confirm.py::test_what_went_wrong_is_raised_as_for_a_request",
    ),
    Mutant(
        name="failure-is-handled",
        mistake="an event whose handler raised is confirmed all the same",
        file="pyipc/delivering.py",
        old="""\
        self._dispatcher._report("a handler", self._delivery.type, error)
        self._refuse(error)
""",
        new="""\
        self._dispatcher._report("a handler", self._delivery.type, error)
""",
        caught_by="tests/test_confirm.py::test_what_went_wrong_is_raised_as_for_a_request",
    ),
    Mutant(
        name="dedupe-off",
        mistake="an event that comes again is handled again",
        file="pyipc/sessions.py",
        old="return Standing.RUNNING if verdict is None else verdict\n",
        new="return Standing.NEW\n",
        caught_by="tests/test_confirm.py::test_a_number_is_handled_once_and_answered_as_often_as_it_comes",
    ),
    Mutant(
        name="duplicate-beside-its-original",
        mistake="an event that comes again while it is being handled is answered as done",
        file="pyipc/sessions.py",
        old="return Standing.RUNNING if verdict is None else verdict\n",
        new="return HANDLED if verdict is None else verdict\n",
        caught_by="tests/test_confirm.py::test_order_holds_across_connections",
    ),
    Mutant(
        name="forget-with-the-connection",
        mistake="what is remembered of a client is forgotten with its connection, so that what it sends again is new",
        file="pyipc/sessions.py",
        old="""\
            return
        self._idle_for_now(session)
""",
        new="""\
            return
        del self._sessions[session.key]
""",
        caught_by="tests/test_confirm.py::test_a_session_outlives_its_connection_and_not_its_time",
    ),
    Mutant(
        name="forget-too-early",
        mistake="the lowest number whose outcome is waited for is forgotten with those below it",
        file="pyipc/sessions.py",
        old="while order and order[0] < lowest:\n",
        new="while order and order[0] <= lowest:\n",
        caught_by="tests/test_confirm.py::test_the_lowest_number_is_remembered_and_those_below_it_are_not",
    ),
    Mutant(
        name="sessions-for-ever",
        mistake="sessions without a connection are kept for ever, however many there are",
        file="pyipc/sessions.py",
        old="while len(self._idle) > self._options.max_sessions:\n",
        new="while False:\n",
        caught_by="tests/test_confirm.py::test_sessions_without_a_connection_are_bounded",
    ),
    Mutant(
        name="session-of-anybody",
        mistake="whoever knows the name of a session may enter it, whatever user it is",
        file="pyipc/sessions.py",
        old='''\
    """Who a peer is, as the kernel or TLS tells: what it must have in common with whom it was before."""
''',
        new='''\
    """Who a peer is, as the kernel or TLS tells: what it must have in common with whom it was before."""
    return None
''',
        caught_by="tests/test_confirm.py::test_a_session_belongs_to_who_made_it",
    ),
    Mutant(
        name="cut-off-with-the-connection",
        mistake="the handler of a confirmed event is cancelled when its connection is lost",
        file="pyipc/delivering.py",
        old="dispatcher._connection._owner.shelter if isinstance(receipts, Session) else None\n",
        new="None\n",
        caught_by="tests/test_confirm.py::test_a_connection_that_fails_on_this_side_does_not_stop_the_handler_either",
    ),
    Mutant(
        name="unconfirmed-dropped-on-reconnect",
        mistake="what a lost connection left without an outcome is not sent again",
        file="pyipc/offline.py",
        old="    window.resend(connection, owed)\n",
        new="",
        caught_by="tests/test_confirm.py::test_a_lost_connection_does_not_stop_the_handler_and_the_client_hears_of_it_over_the_next",
    ),
    Mutant(
        name="resend-after-newer",
        mistake="what is sent again comes after what was emitted later",
        file="pyipc/offline.py",
        old="        window.resend(connection, owed, after)\n",
        new="",
        caught_by="tests/test_confirm.py::test_what_is_sent_again_goes_before_what_is_newer",
    ),
    Mutant(
        name="resend-before-older",
        mistake="what is sent again overtakes plain events that were emitted before it and not sent",
        file="pyipc/offline.py",
        old="        window.resend(connection, owed, after)\n",
        new="        window.resend(connection, owed)\n",
        caught_by="tests/test_confirm.py::test_what_a_connection_had_not_sent_keeps_its_place_among_what_is_sent_again",
    ),
    Mutant(
        name="resend-to-who-has-forgotten",
        mistake="an event goes again, unmarked, to the very server that has forgotten whether it has handled it",
        file="pyipc/resending.py",
        old="            elif _is_forgotten(unsettled, introduction):\n",
        new="            elif False:\n",
        caught_by="tests/test_confirm.py::test_what_the_server_forgot_is_not_sent_again",
    ),
    Mutant(
        name="redelivery-not-told",
        mistake="a server that was started again is not told that an event may have been handled before",
        file="pyipc/resending.py",
        old="                unsettled.again = unsettled.again or place not in unsettled.places\n",
        new="",
        caught_by="tests/test_confirm.py::test_a_server_that_was_started_again_tells_its_handlers",
    ),
    Mutant(
        name="patience-too-long",
        mistake="a client sends again what the server may have forgotten by then",
        file="pyipc/resending.py",
        old="_PATIENCE = 0.75\n",
        new="_PATIENCE = 1.5\n",
        caught_by="tests/test_confirm.py::test_the_client_gives_up_before_the_server_may_forget",
    ),
    Mutant(
        name="outcome-of-another-connection",
        mistake="an outcome is believed whichever connection it comes over",
        file="pyipc/confirming.py",
        old="        if unsettled is None or unsettled.connection is not connection:\n",
        new="        if unsettled is None:\n",
        caught_by="tests/test_incarnations.py::test_an_outcome_counts_where_the_event_was_sent_and_nowhere_else",
    ),
    Mutant(
        name="unhandled-and-sure-of-it",
        mistake="an event that was sent and has no outcome is said to be surely not handled",
        file="pyipc/confirming.py",
        old="maybe_handled=unsettled.sent))",
        new="maybe_handled=False))",
        caught_by="tests/test_confirm.py::test_what_the_server_forgot_is_not_sent_again",
    ),
    Mutant(
        name="window-without-end",
        mistake="any number of confirmed events may be under way at once",
        file="pyipc/confirming.py",
        old="            len(pending) >= options.max_unconfirmed\n            or ",
        new="            ",
        caught_by="tests/test_confirm.py::test_only_so_many_are_under_way_and_nobody_is_overtaken",
    ),
    Mutant(
        name="any-number-will-do",
        mistake="a peer may send numbers as far above its lowest as it likes, and all of them are remembered",
        file="pyipc/settling.py",
        old="            if item.number - item.lowest >= connection._options.max_session_window:\n",
        new="            if item.number < item.lowest:\n",
        caught_by="tests/test_confirm.py::test_a_number_too_far_above_the_lowest_is_refused",
    ),
)
