"""Mistakes with workers: who is started again, who takes whose place, and who is left behind."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant

__all__ = ["MUTANTS"]

MUTANTS: Final = (
    Mutant(
        name="restarts-without-end",
        mistake="a worker that fails again and again is started again for ever",
        file="pyipc/cluster/supervising.py",
        old="        if len(self._restarts) >= settings.max_restarts:\n",
        new="        if len(self._restarts) > 1_000_000:\n",
        caught_by="tests/cluster/test_supervising.py::test_no_restarts_at_all",
    ),
    Mutant(
        name="slow-failures-forgotten",
        mistake="a worker that takes long to fail, and never becomes ready, is started again for ever",
        file="pyipc/cluster/supervising.py",
        old="        while was_ready and self._restarts",
        new="        while self._restarts",
        caught_by="tests/cluster/test_supervising.py::test_one_that_never_becomes_ready_is_given_up_however_slowly_it_fails",
    ),
    Mutant(
        name="silence-while-the-primary-stood-still",
        mistake="a primary that stood still itself takes its workers for hung, before it has read what they said",
        file="pyipc/cluster/pulse.py",
        old="            silence = silence + tick if process.pulses == heard else 0.0\n",
        new="            silence = trio.current_time() - process.started if process.pulses == heard else 0.0\n",
        caught_by="tests/cluster/test_supervising.py::test_a_primary_that_stood_still_judges_nobody_before_it_has_heard",
    ),
    Mutant(
        name="lag-never-measured",
        mistake="a worker tells that it is never late",
        file="pyipc/cluster/pulse.py",
        old="            lag = trio.current_time() - due\n",
        new="            lag = 0.0\n",
        caught_by="tests/cluster/test_faults.py::test_the_table_tells_lag_and_memory",
    ),
    Mutant(
        name="first-failure-restarted",
        mistake="a worker whose fork failed is started again, though whoever waited for it was told that it failed",
        file="pyipc/cluster/keeper.py",
        old="        if self._one_try and not process.was_ready",
        new="        if False and not process.was_ready",
        caught_by="tests/cluster/test_faults.py::test_an_error_at_the_start_is_told_and_leaves_nothing",
    ),
    Mutant(
        name="a-third-process",
        mistake="a worker gets a third process when its process ends while the next one is on its way",
        file="pyipc/cluster/keeper.py",
        old="                elif self._successor is None:\n",
        new="                elif self._successor is not process:\n",
        caught_by="tests/cluster/test_replacing.py::test_the_old_process_dies_while_the_new_one_starts",
    ),
    Mutant(
        name="restarted-beside-its-successor",
        mistake="after the pause a process is started although a reload has brought one meanwhile",
        file="pyipc/cluster/keeper.py",
        old="        if not handle.is_leaving and handle.current is process and self._successor is None:\n",
        new="        if not handle.is_leaving:\n",
        caught_by="tests/cluster/test_replacing.py::test_a_reload_ends_the_pause_before_a_restart",
    ),
    Mutant(
        name="reload-worker-by-worker",
        mistake="a reload replaces the first workers before it is known whether all can be replaced",
        file="pyipc/cluster/reloading.py",
        old="        if self._missing or self._failures:\n",
        new="        if self._failures:\n",
        caught_by="tests/cluster/test_replacing.py::test_nobody_is_replaced_before_all_can_be",
    ),
    Mutant(
        name="killed-before-it-was-there",
        mistake="a process that is to be killed before the system has started it lives on",
        file="pyipc/cluster/process.py",
        old="            self._early_signals.append(number)\n",
        new="            pass\n",
        caught_by="tests/cluster/test_replacing.py::test_killed_before_the_system_has_started_it",
    ),
    Mutant(
        name="any-token-will-do",
        mistake="on Windows whoever finds the pipe of a worker is taken for the worker",
        file="pyipc/cluster/dialing.py",
        old="        if not hmac.compare_digest(said[1:], bytes.fromhex(self.token)):\n",
        new="        if len(said) != _TOKEN_SIZE + 1:\n",
        caught_by="tests/cluster/test_dialing.py::test_nobody_else_is_let_in[5]",
    ),
    Mutant(
        name="one-token-for-many",
        mistake="on Windows a worker's token is good for more than one connection of a kind",
        file="pyipc/cluster/dialing.py",
        old="                self._missing.remove(channel)\n",
        new="                pass\n",
        caught_by="tests/cluster/test_dialing.py::test_a_token_is_good_for_one_connection_of_each_kind",
    ),
    Mutant(
        name="welcome-before-it-is-known",
        mistake="on Windows a worker may speak before its primary has its connection, and go unheard",
        file="pyipc/cluster/dialing.py",
        old="""        adopt(channel, link)
        with trio.CancelScope(shield=True):
            try:
                await link.send(_WELCOME)
            except pyipc.ConnectionLost:
                return  # whoever adopted it hears of that too
""",
        new="""        await link.send(_WELCOME)
        await trio.lowlevel.checkpoint()
        adopt(channel, link)
""",
        caught_by="tests/cluster/test_dialing.py::test_a_process_comes_once_for_each_of_its_connections",
    ),
    Mutant(
        name="orphans",
        mistake="a worker whose event loop is busy outlives its primary",
        file="pyipc/cluster/lifeline.py",
        old="    os._exit(ORPHANED)\n",
        new="    del timeout\n",
        caught_by="tests/cluster/test_orphans.py::test_no_worker_outlives_its_primary[SIGKILL]",
    ),
    Mutant(
        name="taken-off-and-called",
        mistake="a handler of events that another has just taken off is called all the same",
        file="pyipc/cluster/events.py",
        old="            if each not in present:\n",
        new="            if each is None:\n",
        caught_by="tests/cluster/test_events.py::test_a_handler_may_take_off_the_next_one",
    ),
    Mutant(
        name="told-after-what-comes-of-it",
        mistake="what a handler brings about is told before a handler that waits was told of the message",
        file="pyipc/cluster/events.py",
        old="        self._lane(event.worker).appendleft(report)\n",
        new="        self._lane(event.worker).append(report)\n",
        caught_by="tests/cluster/test_events.py::test_what_is_told_at_once_is_told_in_its_order",
    ),
    Mutant(
        name="policies-told-of-no-work",
        mistake="policies are told that no worker has anything to do",
        file="pyipc/cluster/handing.py",
        old="            seat.look()\n",
        new="",
        caught_by="tests/cluster/test_load.py::test_a_policy_sees_what_a_worker_has_to_do_when_it_chooses[python]",
    ),
)
