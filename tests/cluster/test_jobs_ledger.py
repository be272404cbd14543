"""What was accepted, started and done, written down, while workers die, drain and come back: hundreds of seeds."""

from __future__ import annotations

import dataclasses
import logging
import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import pyipc
from pyipc.cluster.errors import JobCancelled, JobFailed
from pyipc.cluster.jobs import Jobs
from tests.cluster.fake_workers import FakeWorker
from tests.conftest import CANNOT_RUN, SCALE, is_wine

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyipc.cluster.job import Job

pytestmark = [
    pytest.mark.slow,
    pytest.mark.time_limit(600),
    # Nothing in it is of a system, and there no test may take longer than two minutes.
    pytest.mark.skipif(is_wine(), reason=f"{CANNOT_RUN} it takes Wine too long"),
]

SUBMITTERS, EACH = 3, 12


@dataclasses.dataclass
class Ledger:
    """Everything that happened; a job is known by what it was given, which is a number of its own."""

    chance: random.Random
    begun: list[int] = dataclasses.field(default_factory=list)
    finished: list[int] = dataclasses.field(default_factory=list)
    accepted: dict[int, Job[int]] = dataclasses.field(default_factory=dict)
    max_attempts: dict[int, int] = dataclasses.field(default_factory=dict)
    outcomes: dict[int, list[Any]] = dataclasses.field(default_factory=dict)
    refused: list[int] = dataclasses.field(default_factory=list)
    deadly: set[int] = dataclasses.field(default_factory=set)
    workers: dict[str, FakeWorker] = dataclasses.field(default_factory=dict)

    def router(self, id: str) -> pyipc.Router:
        """What the processes of a worker handle."""
        router = pyipc.Router()

        @router.on("work")
        async def work(message: pyipc.Message[int]) -> int:
            number = message.data
            self.begun.append(number)
            if number in self.deadly:
                await self.workers[id].die()
            if self.chance.random() < 0.7:
                await trio.sleep(self.chance.uniform(0, 0.3))
            if number % 7 == 0:
                raise pyipc.Refused("seventh", "no")
            self.finished.append(number)
            return number

        return router

    async def wait(self, number: int) -> None:
        """One who waits for a job; it may lose its patience, and does so for itself alone."""
        job = self.accepted[number]
        with trio.move_on_after(self.chance.choice([0.05, 1.0, None, None]) or float("inf")):
            try:
                self.outcomes.setdefault(number, []).append(await job.result())
            except Exception as error:
                self.outcomes.setdefault(number, []).append(error)

    async def submit(self, jobs: Jobs, numbers: range, targets: list[Mapping[str, Any]], nursery: trio.Nursery) -> None:
        """What one who submits does."""
        for number in numbers:
            if self.chance.random() < 0.3:
                await trio.sleep(self.chance.uniform(0, 0.3))
            self.max_attempts[number] = self.chance.randrange(1, 5)
            if self.chance.random() < 0.05:
                self.deadly.add(number)
            try:
                with trio.move_on_after(self.chance.choice([0.0, 0.2, 5.0, 5.0, 5.0])):
                    self.accepted[number] = await jobs.submit(
                        "work",
                        number,
                        attempts=self.max_attempts[number],
                        timeout=self.chance.choice([None, None, self.chance.uniform(0, 2)]),
                        **self.chance.choice(targets),
                    )
            except pyipc.ConnectionClosed:
                pass
            if number not in self.accepted:
                self.refused.append(number)
                continue
            for _ in range(self.chance.randrange(3)):
                nursery.start_soon(self.wait, number)
            if self.chance.random() < 0.1:
                nursery.start_soon(self.cancel_later, number)

    async def cancel_later(self, number: int) -> None:
        await trio.sleep(self.chance.choice([0, self.chance.uniform(0, 1)]))
        self.accepted[number].cancel()

    async def live(self, worker: FakeWorker, jobs: Jobs, peace: trio.Event) -> None:
        """The processes of a worker, which end in one way or the other; in peace only if a job ends them."""
        while True:
            await trio.sleep(self.chance.choice([0, self.chance.uniform(0, 0.5)]))
            async with worker.process(jobs):
                if not peace.is_set():
                    with trio.move_on_after(self.chance.uniform(0.05, 1.5)):
                        await worker.dead.wait()
                    if self.chance.random() < 0.5 and not worker.dead.is_set():
                        worker.takes_jobs = False  # it drains
                        await trio.sleep(self.chance.uniform(0, 0.5))
                    if self.chance.random() < 0.8 or worker.dead.is_set():
                        continue
                    worker.takes_jobs = True  # it stays after all
                    jobs.workers_changed()
                await worker.dead.wait()


async def scene(seed: int) -> Ledger:
    """A few workers, those who submit, and, with some seeds, an early end of it all."""
    chance = random.Random(seed)
    ledger = Ledger(chance)
    places = chance.randrange(1, 4)
    roles = ["", *chance.choices(["", "mail"], k=chance.randrange(3))]
    ledger.workers = {f"w{n}": FakeWorker(f"w{n}", ledger.router(f"w{n}"), role) for n, role in enumerate(roles)}
    targets: list[Mapping[str, Any]] = [{}, {}, {"worker": "w0"}, {"role": ""}]
    if "mail" in roles:
        targets.append({"role": "mail"})
    jobs = Jobs(ledger.workers, jobs_per_worker=places, max_pending_jobs=chance.randrange(1, 12))
    ends_early = chance.random() < 0.2
    peace = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(jobs.run)
        for worker in ledger.workers.values():
            nursery.start_soon(ledger.live, worker, jobs, peace)
        async with trio.open_nursery() as submitters:
            for submitter in range(SUBMITTERS):
                numbers = range(submitter * EACH, (submitter + 1) * EACH)
                submitters.start_soon(ledger.submit, jobs, numbers, targets, submitters)
            if ends_early:
                await trio.sleep(chance.uniform(0, 2))
                jobs.close()
            else:
                await trio.sleep(5)
                peace.set()
        # All who had the patience have their outcome; the others are asked now.
        for number, job in ledger.accepted.items():
            try:
                ledger.outcomes.setdefault(number, []).append(await job.result())
            except Exception as error:
                ledger.outcomes.setdefault(number, []).append(error)
        await trio.sleep(1)
        assert [worker.in_flight for worker in ledger.workers.values()] == [0] * len(roles)
        now = jobs.statistics()
        assert (now.pending, now.running) == (0, 0)
        assert now.done + now.failed + now.cancelled == len(ledger.accepted)
        if not ends_early:
            # Every place of every worker is still there.
            for id in ledger.workers:
                probes = [await jobs.submit("probe", worker=id) for _ in range(places)]
                for probe in probes:
                    with pytest.raises(pyipc.NoHandler):
                        await probe.result()
            if len(roles) == places == 1:
                starts = [ledger.accepted[number].number for number in ledger.begun]
                assert starts == sorted(starts)
        nursery.cancel_scope.cancel()
    return ledger


def check(ledger: Ledger) -> Counter[str]:
    """What must hold however badly it went. Returns how the jobs have ended."""
    assert set(ledger.accepted) | set(ledger.refused) == set(range(SUBMITTERS * EACH))
    assert set(ledger.outcomes) == set(ledger.accepted)
    starts = Counter(ledger.begun)
    ends: Counter[str] = Counter()
    for number, outcomes in ledger.outcomes.items():
        job = ledger.accepted[number]
        assert [outcome for outcome in outcomes if outcome is not outcomes[0]] == []
        assert starts[number] <= job.attempts <= ledger.max_attempts[number]
        outcome = outcomes[0]
        ends[type(outcome).__name__] += 1
        match outcome:
            case int():
                assert outcome == number
                assert number in ledger.finished
            case JobFailed():
                assert job.attempts == ledger.max_attempts[number] == outcome.attempts
                assert isinstance(outcome.__cause__, pyipc.ConnectionClosed)
            case pyipc.RemoteError():
                assert (outcome.code, number % 7) == ("seventh", 0)
                assert starts[number] >= 1
            case JobCancelled() | pyipc.RequestTimeout() | pyipc.ConnectionClosed():
                assert not isinstance(outcome, pyipc.ConnectionLost)
            case _:
                pytest.fail(f"{job} ended with {outcome!r}")
    assert [number for number in ledger.refused if starts[number]] == []
    return ends


def test_every_job_that_was_accepted_has_one_outcome(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    ends: Counter[str] = Counter()
    retried = 0
    for seed in range(500 * SCALE):
        try:
            ledger = trio.run(scene, seed, clock=trio.testing.MockClock(autojump_threshold=0))
            ends += check(ledger)
            retried += sum(job.attempts > 1 for job in ledger.accepted.values())
        except BaseException:
            print(f"the seed was {seed}")
            raise
    print(f"{ends}, {retried} of them started more than once")
    assert set(ends) == {"int", "JobFailed", "RemoteError", "JobCancelled", "RequestTimeout", "ConnectionClosed"}
    assert min(ends.values()) > 20
    assert retried > 100
