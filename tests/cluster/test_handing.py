"""Handing connections to workers in one process: each is served exactly once, by whom the policy says."""

from __future__ import annotations

import collections
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trio

from pyipc.cluster.listeners import HandedStream, TrioListener
from pyipc.cluster.policies import Sticky
from tests.battery.leaks import leak_gate
from tests.cluster.worlds import CLAIM, clients, local_workers, primary, settled, shortage
from tests.conformance.sides import until
from tests.conftest import CANNOT_RUN

if TYPE_CHECKING:
    from tests.cluster.worlds import LocalWorker

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason=f"{CANNOT_RUN} Windows has no SCM_RIGHTS")


async def take_all(worker: LocalWorker, taken: list[str], *, task_status: trio.TaskStatus[None]) -> None:
    """Take whatever comes, and keep it open until the peer has gone."""

    async def serve(stream: HandedStream) -> None:
        taken.append(worker.candidate.worker)
        await stream.receive_some()

    await trio.serve_listeners(serve, [TrioListener(worker.receiving.open(CLAIM))], task_status=_Ignoring(task_status))


class _Ignoring(trio.TaskStatus[object]):
    """Passes on that it has started, and not what."""

    def __init__(self, task_status: trio.TaskStatus[None]) -> None:
        self._task_status = task_status

    def started(self, value: object = None) -> None:
        self._task_status.started()


async def test_connections_take_turns_and_the_primary_knows_what_is_open() -> None:
    taken: list[str] = []
    async with (
        leak_gate(),
        primary() as (handing, source),
        local_workers("a", "b", "c") as workers,
        trio.open_nursery() as nursery,
    ):
        for worker in workers:
            await nursery.start(take_all, worker, taken)
            handing.join(worker.candidate)
            handing.join(worker.candidate)
        with clients(source, 30):
            await settled()
            assert collections.Counter(taken) == {"a": 10, "b": 10, "c": 10}
            assert [worker.candidate.open_connections for worker in workers] == [10, 10, 10]
            assert [worker.receiving.open_connections for worker in workers] == [10, 10, 10]
            statistics = handing.statistics()
            assert (statistics.accepted, statistics.taken, statistics.given, statistics.waiting) == (30, 30, 0, 0)
        await settled()
        assert [worker.candidate.open_connections for worker in workers] == [0, 0, 0]
        with trio.fail_after(1):
            await workers[0].receiving.wait_none_open()
        nursery.cancel_scope.cancel()


async def test_what_was_not_taken_goes_to_others_when_the_worker_ends() -> None:
    taken: list[str] = []
    async with (
        leak_gate(),
        primary() as (handing, source),
        local_workers("dies", "lives") as (dies, lives),
        trio.open_nursery() as nursery,
    ):
        inlet = dies.receiving.open(CLAIM)
        handing.join(dies.candidate)
        with clients(source, 9) as peers:
            await settled()
            # Its limit was given, the rest waits.
            assert (handing.statistics().given, handing.statistics().waiting) == (4, 5)
            own, closed = await inlet.accept()
            await settled()
            assert (handing.statistics().given, handing.statistics().taken) == (4, 1)
            await nursery.start(take_all, lives, taken)
            handing.join(lives.candidate)
            await until(lambda: len(taken) == 4)  # once the other one was waited for
            dies.die()
            own.close()
            closed()
            await until(lambda: len(taken) == 8)
            statistics = handing.statistics()
            assert (statistics.moved, statistics.given, statistics.waiting, statistics.taken) == (4, 0, 0, 9)
            peers[0].setblocking(False)
            assert peers[0].recv(1) == b""  # what it had taken has ended with it
            assert dies.candidate.is_over
            handing.join(dies.candidate)  # too late
            assert "candidates: 1" in repr(handing)
        nursery.cancel_scope.cancel()


async def test_notes_that_were_written_before_the_end_are_believed() -> None:
    """It has taken a connection and died before the primary came to read that: nobody else gets it."""
    async with leak_gate(), primary() as (handing, source), local_workers("dies", "lives") as (dies, lives):
        lives.receiving.open(CLAIM)
        inlet = dies.receiving.open(CLAIM)
        handing.join(dies.candidate)
        with clients(source, 2):
            await settled()
            own, closed = await inlet.accept()  # does not let the primary run before
            own.close()
            dies.die()
            handing.join(lives.candidate)
            await settled()
            statistics = handing.statistics()
            assert (statistics.taken, statistics.moved, statistics.given) == (1, 1, 1)
            closed()


async def test_a_refused_connection_goes_to_another_also_when_nobody_is_there_yet() -> None:
    taken: list[str] = []
    async with (
        leak_gate(),
        primary() as (handing, source),
        local_workers("closed", "open") as (closed, opened),
        trio.open_nursery() as nursery,
    ):
        handing.join(closed.candidate)  # has no listener
        with clients(source, 3):
            await settled()
            assert handing.statistics().refused >= 3
            handing.leave(closed.candidate)
            await nursery.start(take_all, opened, taken)
            handing.join(opened.candidate)
            await until(lambda: len(taken) == 3)
        nursery.cancel_scope.cancel()


async def test_a_refusing_worker_rests_and_is_asked_again(autojump_clock: trio.testing.MockClock) -> None:
    """Else it would be asked without end."""
    async with leak_gate(), primary() as (handing, source), local_workers("w") as (worker,):
        handing.join(worker.candidate)
        with clients(source, 1):
            await trio.sleep(1.05)
            assert 5 <= handing.statistics().refused <= 11
            inlet = worker.receiving.open(CLAIM)
            carrier, closed = await inlet.accept()
            carrier.close()
            closed()


async def test_a_listener_that_is_closed_leaves_what_waits_to_others() -> None:
    taken: list[str] = []
    async with (
        leak_gate(),
        primary() as (handing, source),
        local_workers("closes", "open") as (closes, opened),
        trio.open_nursery() as nursery,
    ):
        listener = TrioListener(closes.receiving.open(CLAIM))
        handing.join(closes.candidate)
        with clients(source, 4):
            await settled()
            handing.leave(closes.candidate)
            await nursery.start(take_all, opened, taken)
            handing.join(opened.candidate)
            await settled()
            assert taken == []
            await listener.aclose()
            await settled()
            assert taken == ["open"] * 4
        nursery.cancel_scope.cancel()


async def test_without_anybody_to_hand_to_connections_wait_in_the_backlog() -> None:
    taken: list[str] = []
    async with (
        leak_gate(),
        primary(max_waiting=3) as (handing, source),
        local_workers("a") as (worker,),
        trio.open_nursery() as nursery,
    ):
        with clients(source, 20):
            await settled()
            assert handing.statistics().accepted == 0
            handing.join(worker.candidate)
            await settled()
            assert handing.statistics().accepted <= 3 + 4  # the line, and what a worker without a listener refuses
            await nursery.start(take_all, worker, taken)
            with trio.fail_after(5):
                await until(lambda: len(taken) == 20)
        nursery.cancel_scope.cancel()


async def test_trouble_with_accepting_is_told_once_and_gone_on_after(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    taken: list[str] = []
    async with (
        leak_gate(),
        primary() as (handing, source),
        local_workers("a") as (worker,),
        trio.open_nursery() as nursery,
    ):
        await nursery.start(take_all, worker, taken)
        handing.join(worker.candidate)
        source.errors += [shortage() for _ in range(30)]
        with clients(source, 2):
            await trio.sleep(5)
            assert len(taken) == 2
        assert handing.statistics().accept_errors == 30
        told = [record.getMessage() for record in caplog.records if record.name == "pyipc.cluster"]
        assert len(told) == 2
        assert "no descriptors left" in told[0]
        assert "after 30 failed attempts" in told[1]
        nursery.cancel_scope.cancel()


async def test_a_worker_without_descriptors_lets_another_have_it() -> None:
    """The kernel delivers the message without the socket then, which must not be lost with it."""
    taken: list[str] = []
    async with (
        leak_gate(),
        primary() as (handing, source),
        local_workers("poor", "rich") as (poor, rich),
        trio.open_nursery() as nursery,
    ):
        poor.receiving.open(CLAIM)
        with clients(source, 1):
            poor.receiving._sort({"claim": CLAIM, "number": 999}, None)  # of which the primary knows nothing
            handing.join(poor.candidate)
            await settled()
            handing.leave(poor.candidate)
            await nursery.start(take_all, rich, taken)
            handing.join(rich.candidate)
            poor.receiving._inlets[CLAIM]._waiting.popleft()[1].close()
            poor.receiving._sort({"claim": CLAIM, "number": 1}, None)
            await settled()
            assert taken == ["rich"]
        nursery.cancel_scope.cancel()


async def test_notes_that_mean_nothing_are_told_and_change_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with leak_gate(), primary() as (handing, source), local_workers("w") as (worker,):
        inlet = worker.receiving.open(CLAIM)
        handing.join(worker.candidate)
        with clients(source, 1):
            carrier, closed = await inlet.accept()
            await settled()
            nonsense: list[dict[str, Any]] = [
                {},
                {"taken": 1},
                {"taken": "1"},
                {"taken": [1]},
                {"refused": 1},
                {"closed": 1},
                {"other": 1},
            ]
            for note in nonsense:
                worker.mailbox.send_nowait(note)
            worker.mailbox.send_nowait({"refused": [1, "1", None], "closed": []})
            worker.mailbox.send_nowait({"closed": ["1", None, 2, [1]]})
            await settled()
            assert caplog.text.count("a note that means nothing") == len(nonsense)
            assert worker.candidate.open_connections == 1
            carrier.close()
            closed()
            await settled()
            assert worker.candidate.open_connections == 0


async def test_what_cannot_be_handed_over_is_closed_and_does_not_stop_the_rest(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with leak_gate(), primary() as (handing, source), local_workers("w") as (worker,):
        inlet = worker.receiving.open(CLAIM)
        send = worker.courier.send_nowait
        errors = [OSError("no")]

        def failing(*message: Any) -> None:
            if errors:
                raise errors.pop()
            send(*message)

        monkeypatch.setattr(worker.courier, "send_nowait", failing)
        handing.join(worker.candidate)
        with clients(source, 2) as peers:
            carrier, closed = await inlet.accept()
            peers[0].settimeout(5)
            assert peers[0].recv(1) == b""
            assert "cannot be handed over, and is closed: no" in caplog.text
            carrier.close()
            closed()


async def test_closing_while_first_bytes_are_waited_for_closes_those_too() -> None:
    policy = Sticky(peek_size=10, peek_timeout=60)
    async with leak_gate(), primary(policy) as (handing, source), local_workers("w") as (worker,):
        handing.join(worker.candidate)
        with clients(source, 3) as peers:
            await settled()
            assert handing.statistics().waiting == 3
            handing.close()
            peers[0].sendall(b"x")
            peers[1].close()
            await settled()
            assert handing.statistics().waiting == 1
            peers[0].settimeout(5)
            with pytest.raises(ConnectionResetError):  # what it sent was not read
                peers[0].recv(1)


async def test_closing_resets_who_waits_and_not_who_is_about_to_be_taken() -> None:
    async with leak_gate(), local_workers("w") as (worker,):
        async with primary(max_handovers=2) as (handing, source):
            inlet = worker.receiving.open(CLAIM)
            handing.join(worker.candidate)
            with clients(source, 3) as peers:
                await settled()
                handing.close()
                assert handing.statistics().waiting == 0
                carriers = [await inlet.accept() for _ in range(2)]
                await settled()
                assert handing.statistics().taken == 2
                peers[2].settimeout(5)
                assert peers[2].recv(1) == b""
                for carrier, closed in carriers:
                    carrier.close()
                    closed()
        handing.close()


async def test_what_a_worker_loses_after_closing_is_closed() -> None:
    async with leak_gate(), local_workers("w") as (worker,), primary() as (handing, source):
        worker.receiving.open(CLAIM)
        handing.join(worker.candidate)
        with clients(source, 1) as (peer,):
            await settled()
            handing.close()
            worker.die()
            await settled()
            peer.settimeout(5)
            assert peer.recv(1) == b""
