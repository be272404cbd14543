"""Mistakes with jobs: each is done, in its order, by whoever has the least to do, though workers are lost."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant

__all__ = ["MUTANTS"]

MUTANTS: Final = (
    Mutant(
        name="job-lost-with-its-worker",
        mistake="a job whose worker is lost has failed, and no other worker gets it",
        file="pyipc/cluster/jobs.py",
        old="                self._lose(job, desk, loss)\n",
        new="                self._settle(job, None, loss)\n",
        caught_by="tests/cluster/test_jobs_lost.py::test_another_worker_gets_it_ahead_of_all_that_wait",
    ),
    Mutant(
        name="lost-jobs-wait-again",
        mistake="a job whose worker is lost waits behind all others once more",
        file="pyipc/cluster/jobs.py",
        old="            line.add_again(job)\n",
        new="            line.add(job)\n",
        caught_by="tests/cluster/test_jobs_lost.py::test_what_comes_back_keeps_its_order",
    ),
    Mutant(
        name="starts-that-were-none-count",
        mistake="a job that could not even be sent to a worker has used up one of its attempts",
        file="pyipc/cluster/jobs.py",
        old="            job.attempts -= 1  # it never got there\n",
        new="            pass\n",
        caught_by="tests/cluster/test_jobs_lost.py::test_what_never_got_there_does_not_count_and_does_not_spin",
    ),
    Mutant(
        name="cancelled-jobs-go-on",
        mistake="the worker that has a job is not told when it is cancelled",
        file="pyipc/cluster/jobs.py",
        old="            job._runner.scope.cancel()\n",
        new="            pass\n",
        caught_by="tests/cluster/test_jobs_ended.py::test_cancelling_a_job_reaches_its_handler_and_nobody_elses",
    ),
    Mutant(
        name="bursts-to-one-worker",
        mistake="jobs that were given to a worker and have not been sent yet are not seen as its load",
        file="pyipc/cluster/jobs.py",
        old="desk.worker.in_flight + len(desk.given)",
        new="desk.worker.in_flight",
        caught_by="tests/cluster/test_jobs.py::test_who_has_the_least_to_do_gets_it",
    ),
    Mutant(
        name="room-for-jobs-leaks",
        mistake="a job that is cancelled while it waits takes its room along",
        file="pyipc/cluster/job_desks.py",
        old="        if self._fresh.pop(job.number, None) is None:\n            self._again.remove(job)\n        else:\n            self.room.release()\n",
        new="        if self._fresh.pop(job.number, None) is None:\n            self._again.remove(job)\n",
        caught_by="tests/cluster/test_jobs.py::test_a_cancelled_submit_has_accepted_nothing",
    ),
    Mutant(
        name="places-of-the-process-before",
        mistake="a worker's new process gets no jobs as long as the one before is busy with its own",
        file="pyipc/cluster/job_desks.py",
        old="        return self.worker is worker and self.generation == worker.generation\n",
        new="        return self.worker is worker\n",
        caught_by="tests/cluster/test_jobs_lost.py::test_the_next_process_of_a_worker_does_not_wait_for_the_jobs_of_the_one_before",
    ),
    Mutant(
        name="jobs-in-the-context-of-a-handler",
        mistake="jobs run in the context of whoever submitted one first, and hold the slot of a handler that ended",
        file="pyipc/cluster/jobs.py",
        old="self._context.run(self._nursery.start_soon, self._see_to_jobs, Runner(desk))",
        new="self._nursery.start_soon(self._see_to_jobs, Runner(desk))",
        caught_by="tests/cluster/test_jobs.py::test_a_runner_has_nothing_of_who_submitted",
    ),
)
