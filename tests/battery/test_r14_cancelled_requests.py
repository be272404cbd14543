"""R14: requests of which a third are cancelled at any moment and a tenth time out; nobody ever gets another's answer.

Fifty callers at once ask 20,000 times. Whoever waits long enough gets the answer to its own question. A handler whose
caller is gone is cancelled, and neither side keeps anything of the call.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
import trio

import pyipc
from tests.battery.leaks import leak_gate
from tests.battery.sizes import sized
from tests.battery.wires import over_local_and_tcp, stage_of
from tests.conformance.sides import until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.battery.conftest import Tally

AT_ONCE = 50
#: Seconds from cancelling a request to the end of its handler on the other side; ten times what is promised.
BOUND = 10 * 0.1


class Handlers:
    """The side that answers: some handlers at once, some a little later, and some never."""

    def __init__(self) -> None:
        self.router = pyipc.Router()
        self.router.on("work", self.work)
        self.router.on("wait", self.wait)
        self.given_up: dict[int, float] = {}  # when the caller of each stopped to wait
        self.waiting = self.cancelled = 0
        self.longest = 0.0

    async def work(self, message: pyipc.Message[int]) -> int:
        for _ in range(message.data % 4):
            await trio.lowlevel.checkpoint()
        return message.data * 3

    async def wait(self, message: pyipc.Message[int]) -> None:
        """Ends only by being cancelled."""
        self.waiting += 1
        try:
            await trio.sleep_forever()
        finally:
            self.waiting -= 1
            self.cancelled += 1
            self.longest = max(self.longest, trio.current_time() - self.given_up.pop(message.data))


class Callers:
    """The side that asks, and what became of it."""

    def __init__(self, connection: pyipc.Connection, handlers: Handlers) -> None:
        self.connection = connection
        self.handlers = handlers
        self.draw = random.Random(14)
        self.answered = self.cancelled = self.timed_out = 0

    async def ask_all(self, numbers: range) -> None:
        async with trio.open_nursery() as nursery:
            for first in range(AT_ONCE):
                nursery.start_soon(self._ask_some, numbers[first::AT_ONCE], nursery)

    async def _ask_some(self, numbers: range, nursery: trio.Nursery) -> None:
        for number in numbers:
            chance = self.draw.random()
            if chance < 0.3:
                with trio.CancelScope() as scope:
                    event, steps = self.draw.choice(("work", "wait")), self.draw.randrange(12)
                    nursery.start_soon(self._cancel, scope, number, event, steps)
                    await self._ask(event, number)
                self.cancelled += scope.cancelled_caught
            elif chance < 0.4:
                try:
                    self.handlers.given_up[number] = trio.current_time() + 0.01
                    await self.connection.request("wait", number, timeout=0.01)
                except pyipc.RequestTimeout:
                    self.timed_out += 1
            else:
                await self._ask("work", number)

    async def _ask(self, event: str, number: int) -> None:
        assert await self.connection.request(event, number) == number * 3
        self.answered += 1

    async def _cancel(self, scope: trio.CancelScope, number: int, event: str, steps: int) -> None:
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        if event == "wait":
            self.handlers.given_up[number] = trio.current_time()
        scope.cancel()


@pytest.mark.time_limit(60)
@over_local_and_tcp
async def test_no_answer_reaches_the_wrong_caller(transport: str, tmp_path: Path, tally: Tally) -> None:
    total = sized(20_000)
    handlers = Handlers()
    stage = stage_of(transport, tmp_path)
    async with leak_gate(tmp_path) as gate, stage.open(theirs=handlers.router, request_timeout=None) as wire:
        callers = Callers(wire.ours.conn, handlers)
        await callers.ask_all(range(total // 10))
        gate.warmed_up()
        await callers.ask_all(range(total // 10, total))

        assert callers.answered + callers.cancelled + callers.timed_out == total
        assert callers.timed_out > total / 20
        assert callers.cancelled > total / 5
        assert wire.ours.conn.statistics().pending_requests == 0
        await wire.ours.conn.request("conformance.ready")  # behind all that was cancelled
        await until(lambda: wire.theirs.conn.statistics().concurrent_requests == 0)
        theirs = wire.theirs.conn.statistics()
        assert (theirs.pending_requests, theirs.inbox_size, handlers.waiting) == (0, 0, 0)
        late = wire.ours.conn.statistics().late_answers
    print(f"{callers.answered:,} answered, {late:,} of {callers.cancelled + callers.timed_out:,} others too late")
    print(f"{handlers.cancelled:,} handlers cancelled, at most {handlers.longest * 1_000:.1f} ms later")
    assert handlers.cancelled > total / 20
    assert handlers.longest < BOUND
    tally.add(messages=total, lost=0)
