"""Requests: answers reach who asked, nothing waits for ever, nobody gets another's answer."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
import trio

import pyipc
from tests.conformance.sides import until
from tests.conformance.subjects import Feature, needs

if TYPE_CHECKING:
    from tests.conformance.sides import Stage


@needs(Feature.MESSAGES)
async def test_calls_a_hundred_deep_finish_with_one_slot(stage: Stage) -> None:
    ours, theirs = pyipc.Router(), pyipc.Router()

    async def deeper(message: pyipc.Message[int]) -> int:
        if message.data == 0:
            return 0
        below: int = await message.connection.request("deeper", message.data - 1)
        return below + 1

    ours.on("deeper", deeper)
    theirs.on("deeper", deeper)
    async with stage.open(ours, theirs, max_concurrent_requests=1) as wire:
        assert await wire.ours.conn.request("deeper", 100) == 100
        await until(lambda: wire.ours.conn.statistics().concurrent_requests == 0)
        assert wire.theirs.conn.statistics().concurrent_requests == 0


@needs(Feature.CANCEL, Feature.DELIVERY)
async def test_two_thousand_requests_a_third_of_them_cancelled(stage: Stage) -> None:
    total, at_once = 2_000, 50  # ten times as many in tests/battery/test_r14_cancelled_requests.py
    theirs = pyipc.Router()
    draw = random.Random(7)
    answered = cancelled = 0

    @theirs.on("work")
    async def work(message: pyipc.Message[int]) -> int:
        for _ in range(message.data % 3):
            await trio.lowlevel.checkpoint()
        return message.data * 3

    async def ask(number: int, give_up_after: int | None) -> None:
        nonlocal answered, cancelled
        with trio.CancelScope() as scope:
            if give_up_after is not None:
                nursery.start_soon(cancel_after, scope, give_up_after)
            assert await wire.ours.conn.request("work", number) == number * 3
            answered += 1
            return
        cancelled += 1

    async def cancel_after(scope: trio.CancelScope, steps: int) -> None:
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        scope.cancel()

    async def worker(numbers: range) -> None:
        for number in numbers:
            await ask(number, draw.randrange(4) if draw.random() < 1 / 3 else None)

    async with stage.open(theirs=theirs) as wire:
        async with trio.open_nursery() as nursery:
            for first in range(at_once):
                nursery.start_soon(worker, range(first, total, at_once))
        assert answered + cancelled == total
        assert cancelled > total / 10
        assert wire.ours.conn.statistics().pending_requests == 0
        await wire.ours.conn.request("conformance.ready")
        await until(lambda: wire.theirs.conn.statistics().concurrent_requests == 0)


@needs(Feature.CANCEL)
async def test_a_cancelled_request_cancels_its_handler(stage: Stage) -> None:
    theirs = pyipc.Router()
    started, ended = trio.Event(), trio.Event()

    @theirs.on("slow")
    async def slow(message: pyipc.Message[None]) -> None:
        started.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    async with stage.open(theirs=theirs) as wire, trio.open_nursery() as nursery:
        nursery.start_soon(wire.ours.conn.request, "slow")
        await started.wait()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await ended.wait()


@needs(Feature.CANCEL, Feature.MESSAGES)
async def test_a_request_times_out_and_its_late_answer_hurts_nobody(stage: Stage) -> None:
    theirs = pyipc.Router()
    release = trio.Event()

    @theirs.on("stubborn")
    async def stubborn(message: pyipc.Message[None]) -> str:
        with trio.CancelScope(shield=True):
            await release.wait()
        return "late"

    async with stage.open(theirs=theirs) as wire:
        with pytest.raises(pyipc.RequestTimeout) as caught:
            await wire.ours.conn.request("stubborn", timeout=0.02)
        assert caught.value.event == "stubborn"
        assert isinstance(caught.value, TimeoutError)
        release.set()
        assert await wire.ours.conn.request("conformance.ready") is True


@needs(Feature.MESSAGES)
async def test_requests_run_beside_events_and_up_to_the_limit(stage: Stage) -> None:
    theirs = pyipc.Router()
    running, most, release = 0, 0, trio.Event()

    @theirs.on("work")
    async def work(message: pyipc.Message[int]) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await release.wait()
        running -= 1
        return message.data

    blocked = trio.Event()

    @theirs.on("block")
    async def block(message: pyipc.Message[None]) -> None:
        blocked.set()
        await release.wait()

    results: list[int] = []

    async def ask(number: int) -> None:
        results.append(await wire.ours.conn.request("work", number))

    async with stage.open(theirs=theirs, max_concurrent_requests=4) as wire, trio.open_nursery() as nursery:
        await wire.ours.conn.emit("block")
        await blocked.wait()
        for number in range(10):
            nursery.start_soon(ask, number)
        await until(lambda: running == 4)
        assert wire.theirs.conn.statistics().concurrent_requests == 4
        release.set()
    assert sorted(results) == list(range(10))
    assert most == 4


@needs(Feature.MESSAGES)
async def test_failures_say_what_went_wrong(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    theirs = pyipc.Router()

    @theirs.on("fails")
    def fails(message: pyipc.Message[Any]) -> None:
        raise LookupError("nothing there")

    @theirs.on("typed")
    def typed(message: pyipc.Message[dict[str, int]]) -> int:
        return message.data["n"]

    theirs.on("unencodable", lambda message: object())
    async with stage.open(theirs=theirs) as wire:
        ask = wire.ours.conn.request
        with pytest.raises(pyipc.RemoteError) as failed:
            await ask("fails")
        assert (failed.value.code, failed.value.message) == ("handler-failed", "LookupError: nothing there")
        with pytest.raises(pyipc.NoHandler) as nobody:
            await ask("nobody")
        assert nobody.value.event == "nobody"
        with pytest.raises(pyipc.InvalidData) as invalid:
            await ask("typed", {"n": "three"})
        assert invalid.value.path == "$[...]"
        with pytest.raises(pyipc.RemoteError, match="UnencodableData"):
            await ask("unencodable")
        with pytest.raises(pyipc.InvalidData):
            await ask("typed", {"n": 3}, result=str)
        assert await ask("typed", {"n": 3}, result=int) == 3
    assert sum(record.exc_info is not None for record in caplog.records) == 2


@needs(Feature.MESSAGES)
async def test_a_handler_chooses_the_code_of_its_error(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    theirs = pyipc.Router()

    @theirs.on("balance")
    async def balance(message: pyipc.Message[int]) -> int:
        await trio.lowlevel.checkpoint()
        if message.data == 7:
            raise pyipc.Refused("not-found", "there is no account 7", {"account": 7})
        if message.data == 8:
            raise pyipc.Refused("frozen", "account 8 is frozen", object())  # which cannot be sent
        return 100

    async with stage.open(theirs=theirs) as wire:
        ask = wire.ours.conn.request
        with pytest.raises(pyipc.RemoteError) as refused:
            await ask("balance", 7)
        error = refused.value
        assert (error.code, error.message, error.data) == ("not-found", "there is no account 7", {"account": 7})
        with pytest.raises(pyipc.RemoteError) as refused:
            await ask("balance", 8)
        error = refused.value
        assert (error.code, error.message, error.data) == ("frozen", "account 8 is frozen", None)
        assert await ask("balance", 9) == 100
        statistics = wire.theirs.conn.statistics()
        assert (statistics.refusals, statistics.handler_errors) == (2, 0)
    assert [record for record in caplog.records if record.exc_info] == []


@needs(Feature.CANCEL)
async def test_a_request_that_times_out_cancels_its_handler(stage: Stage) -> None:
    theirs = pyipc.Router()
    ended = trio.Event()

    @theirs.on("slow")
    async def slow(message: pyipc.Message[None]) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    async with stage.open(theirs=theirs) as wire:
        with pytest.raises(pyipc.RequestTimeout):
            await wire.ours.conn.request("slow", timeout=0.02)
        await ended.wait()
        await until(lambda: wire.theirs.conn.statistics().concurrent_requests == 0)


@needs(Feature.CANCEL)
async def test_a_cancelled_request_that_waits_for_a_slot_never_begins(stage: Stage) -> None:
    theirs = pyipc.Router()
    begun: list[int] = []
    release, started = trio.Event(), trio.Event()

    @theirs.on("work")
    async def work(message: pyipc.Message[int]) -> int:
        begun.append(message.data)
        started.set()
        await release.wait()
        return message.data

    async with stage.open(theirs=theirs, max_concurrent_requests=1) as wire, trio.open_nursery() as nursery:
        nursery.start_soon(wire.ours.conn.request, "work", 1)
        await started.wait()
        async with trio.open_nursery() as second:
            second.start_soon(wire.ours.conn.request, "work", 2)
            await until(lambda: wire.theirs.conn.statistics().inbox_size > 0)
            second.cancel_scope.cancel()
        await until(lambda: wire.theirs.conn.statistics().inbox_size == 0)
        release.set()
        assert await wire.ours.conn.request("work", 3) == 3
    assert begun == [1, 3]
