"""When a worker is started again, and what is concluded from its pulse; without processes."""

from __future__ import annotations

import random
import sys
from typing import Any

import pytest
import trio
import trio.testing

from pyipc import cluster
from pyipc.cluster import pulse
from pyipc.cluster.events import EventQueue, Events
from pyipc.cluster.process import ProcessState
from pyipc.cluster.pulse import Watch, memory_reader
from pyipc.cluster.settings import Settings
from pyipc.cluster.supervising import RestartPolicy

SEEDS = range(50)

# --- after an exit ---


@pytest.mark.parametrize(
    ("restart", "code", "voluntary", "wanted"),
    [
        ("always", 0, False, True),
        ("always", 1, False, True),
        ("always", None, False, True),  # a signal
        ("always", 0, True, False),
        ("always", None, True, False),
        ("on-failure", 0, False, False),
        ("on-failure", 1, False, True),
        ("on-failure", None, False, True),
        ("never", 1, False, False),
        ("never", None, False, False),
        ("always", 42, False, False),  # one of stop_exit_codes
        ("on-failure", 42, False, False),
    ],
)
def test_the_exit_code_decides(restart: Any, code: int | None, voluntary: bool, wanted: bool) -> None:
    settings = Settings(restart=restart, stop_exit_codes=(42, 43))
    assert RestartPolicy().wants(settings, code=code, voluntary=voluntary) is wanted


def test_pauses_double_up_to_the_longest() -> None:
    settings = Settings(restart_interval=0.5, restart_max_interval=5, restart_jitter=False, max_restarts=6)
    policy = RestartPolicy()
    assert [policy.delay(settings, now, was_ready=True) for now in range(7)] == [0.5, 1, 2, 4, 5, 5, None]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_pause_is_shortened_by_chance_by_up_to_a_half(seed: int) -> None:
    settings = Settings(restart_interval=1, restart_max_interval=1000)
    policy = RestartPolicy(random.Random(seed))
    pauses = [policy.delay(settings, now, was_ready=True) for now in range(8)]
    for number, pause in enumerate(pauses):
        assert pause is not None
        assert 2**number / 2 < pause <= 2**number


def test_chance_spreads_pauses() -> None:
    settings = Settings(restart_interval=1)
    pauses = [RestartPolicy(random.Random(seed)).delay(settings, 0, was_ready=True) or 0 for seed in range(200)]
    assert min(pauses) < 0.6
    assert max(pauses) > 0.9


@pytest.mark.parametrize("seed", SEEDS)
def test_never_more_restarts_in_the_window_than_the_limit(seed: int) -> None:
    chance = random.Random(seed)
    settings = Settings(max_restarts=chance.randint(0, 6), restart_window=chance.uniform(1, 20))
    policy = RestartPolicy(chance)
    now, restarts = 0.0, list[float]()
    for _ in range(200):
        now += chance.expovariate(1 / 2)
        if policy.delay(settings, now, was_ready=True) is None:
            assert len([each for each in restarts if each > now - settings.restart_window]) == settings.max_restarts
            return
        restarts.append(now)
        assert len([each for each in restarts if each > now - settings.restart_window]) <= settings.max_restarts


def test_after_a_quiet_time_it_begins_anew() -> None:
    settings = Settings(restart_interval=1, restart_jitter=False, max_restarts=3, restart_window=10)
    policy = RestartPolicy()
    assert [policy.delay(settings, now, was_ready=True) for now in (0, 1, 2)] == [1, 2, 4]
    assert policy.delay(settings, 20, was_ready=True) == 1


def test_once_an_hour_is_never_too_often() -> None:
    settings = Settings(max_restarts=1, restart_jitter=False)
    policy = RestartPolicy()
    assert {policy.delay(settings, hour * 3600, was_ready=True) for hour in range(100)} == {0.1}


def test_one_that_never_becomes_ready_is_given_up_however_slowly_it_fails() -> None:
    settings = Settings(max_restarts=3, restart_window=10, restart_jitter=False)
    policy = RestartPolicy()
    delays = [policy.delay(settings, now * 3600, was_ready=False) for now in range(4)]
    assert delays == [0.1, 0.2, 0.4, None]


def test_no_restarts_at_all() -> None:
    assert RestartPolicy().delay(Settings(max_restarts=0), 0, was_ready=True) is None


def test_given_up_is_given_up_once() -> None:
    """Whoever starts a failed worker again begins with a clean slate."""
    settings = Settings(max_restarts=1, restart_jitter=False)
    policy = RestartPolicy()
    assert [policy.delay(settings, 0, was_ready=True) for _ in range(4)] == [0.1, None, 0.1, None]


# --- what no process can be started with ---


@pytest.mark.parametrize(
    ("setting", "error"),
    [
        ({"args": [1]}, "args must be a list of texts"),
        ({"exec_args": "-X"}, "exec_args must be a list of texts"),
        ({"cwd": 5}, "cwd must be the path"),
        ({"uid": 1.5}, "uid must be a name or a number"),
        ({"gid": True}, "gid must be a name or a number"),
        ({"stop_exit_codes": 3}, "stop_exit_codes must be a list"),
        ({"stop_exit_codes": "3"}, "stop_exit_codes must be a list"),
        ({"env": ["A"]}, "env must be a mapping"),
        ({"env": {"A": b"1"}}, "env must map names to texts"),
        ({"env": {"A=B": "1"}}, "no environment can have"),
        ({"env": {"A": "1\0"}}, "no environment can have"),
        ({"env": {"": "1"}}, "no environment can have"),
    ],
)
def test_settings_that_no_process_could_be_started_with_are_refused(setting: Any, error: str) -> None:
    with pytest.raises((TypeError, ValueError), match=error):
        Settings(**setting)


# --- the pulse ---


class Handle(Events):
    """A worker, as far as it can be heard of."""

    id = "1"


class Patient:
    """A process that is watched over, and what was concluded about it."""

    def __init__(self, **settings: Any) -> None:
        self.handle: Any = Handle()
        self.settings = Settings(**settings)
        self.pid: int | None = None
        self.pulses = 0
        self.memory: int | None = None
        self.started = trio.current_time()
        self.state = ProcessState.READY
        self.failures: list[tuple[float, str]] = []
        self.renewals: list[str] = []
        self.events: list[cluster.WorkerEvent] = []
        told = Events()
        told.on("unhealthy", self.events.append)
        self.queue = EventQueue(told)

    def fail(self, reason: str) -> None:
        self.failures.append((trio.current_time() - self.started, reason))

    def watch(self) -> Watch:
        process: Any = self
        return Watch(process, self.queue, lambda _, reason: self.renewals.append(reason), random.Random(1))

    async def beat(self, interval: float) -> None:
        while True:
            self.pulses += 1
            await trio.sleep(interval)


async def test_who_is_heard_of_is_well(autojump_clock: trio.testing.MockClock) -> None:
    patient = Patient()
    with trio.move_on_after(10_000):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(patient.beat, 1.0)
            nursery.start_soon(patient.watch().run)
    assert not patient.failures


@pytest.mark.parametrize(("interval", "timeout"), [(1.0, 30.0), (0.5, 1.0), (2.0, 7.0)])
async def test_silence_that_lasts_is_a_hang(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, interval: float, timeout: float
) -> None:
    patient = Patient(heartbeat_interval=interval, hang_timeout=timeout)
    nursery.start_soon(patient.queue.run)
    await patient.watch().run()
    [(when, reason)] = patient.failures
    assert timeout <= when <= timeout + 3 * interval
    await patient.queue.wait_told()
    [event] = patient.events
    assert event.reason == reason
    assert "hangs" in reason
    nursery.cancel_scope.cancel()


async def test_without_a_time_out_nobody_hangs(autojump_clock: trio.testing.MockClock) -> None:
    patient = Patient(hang_timeout=None)
    with trio.move_on_after(10_000):
        await patient.watch().run()
    assert not patient.failures


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_primary_that_stood_still_judges_nobody_before_it_has_heard(
    mock_clock: trio.testing.MockClock, seed: int
) -> None:
    """Whatever it did not read meanwhile, it reads in the same turn in which the clock has moved on."""
    chance = random.Random(seed)
    patient = Patient(heartbeat_interval=1.0, hang_timeout=2.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(patient.watch().run)
        for _ in range(200):
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(chance.choice([1.0, 1.0, 5.0, 3600.0]))
            # The pulse is read in this turn of the loop, before or behind the tick.
            for _ in range(chance.randint(0, 1)):
                await trio.lowlevel.checkpoint()
            patient.pulses += 1
        nursery.cancel_scope.cancel()
    assert not patient.failures


async def test_age_and_memory_are_told_again_and_again(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery
) -> None:
    size = 500
    monkeypatch.setattr(pulse, "memory_reader", lambda pid: lambda: size)
    patient = Patient(max_memory_size=1_000, max_age_timeout=100.0)
    nursery.start_soon(patient.beat, 1.0)
    nursery.start_soon(patient.queue.run)
    nursery.start_soon(patient.watch().run)
    await trio.sleep(89.5)  # between two ticks
    assert patient.memory == 500
    assert not patient.renewals
    await trio.sleep(12)
    assert "max_age_timeout is 100 s" in patient.renewals[0]
    patient.renewals.clear()
    size = 1_500
    await trio.sleep(3)
    assert [each[:23] for each in patient.renewals] == ["it has 1,500 bytes of me"[:23]] * 3
    assert len(patient.events) == 1
    nursery.cancel_scope.cancel()


async def test_ages_differ_by_up_to_a_tenth(autojump_clock: trio.testing.MockClock) -> None:
    lives = set()
    for seed in range(20):
        patient = Patient(max_age_timeout=100.0)
        process: Any = patient
        over = trio.Event()
        watch = Watch(process, patient.queue, lambda *_, over=over: over.set(), random.Random(seed))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(patient.beat, 1.0)
            nursery.start_soon(watch.run)
            await over.wait()
            lives.add(round(trio.current_time() - patient.started))
            nursery.cancel_scope.cancel()
    assert min(lives) >= 90
    assert max(lives) <= 101
    assert len(lives) > 5


# --- memory ---


def test_memory_is_known_where_psutil_is() -> None:
    pytest.importorskip("psutil")
    own = memory_reader(None)()
    assert own is not None
    assert own > 5_000_000
    assert memory_reader(2**30)() is None  # nobody has this number


def test_without_psutil_memory_is_unknown_and_a_limit_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert memory_reader(None)() is None
    with pytest.raises(cluster.ClusterError, match=r"pyipc-sockets\[cluster\]"):
        cluster.Cluster("app:main", max_memory_size=1_000_000)
    primary = cluster.Cluster("app:main")
    with pytest.raises(cluster.ClusterError, match="psutil"):
        primary.setup_primary(max_memory_size=1_000_000)
    assert primary.settings.max_memory_size is None


def test_a_hang_takes_two_missing_pulses_at_least() -> None:
    with pytest.raises(ValueError, match="at least twice"):
        Settings(heartbeat_interval=10, hang_timeout=15)
