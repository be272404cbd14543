"""The work that ``pyipc bench`` measures: doing it, and counting what came of it."""

from __future__ import annotations

import collections
import dataclasses
import time
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import trio

import pyipc
from pyipc.cli.benching.histogram import Histogram

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["ECHO", "EVENT", "REQUEST", "Measurement", "Plan", "Work", "measure", "probe"]

Work: TypeAlias = Literal["request", "events", "echo"]

#: The names of the messages: answered with its data, swallowed, and sent back.
REQUEST: Final = "bench.request"
EVENT: Final = "bench.event"
ECHO: Final = "bench.echo"

#: Seconds in which a first message, and the last echoes, have to come back.
_PATIENCE: Final = 5.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be done.

    Attributes:
        work: ``"request"``: ask and wait for the answer; ``"events"``: send one way; ``"echo"``:
            send events that come back.
        count: How many messages; ``None`` if time is the measure.
        seconds: How long; ``None`` if the count is the measure.
        concurrency: Requests, or events that have not come back, at a time.
        size: Bytes of data in each message.
    """

    work: Work
    count: int | None
    seconds: float | None
    concurrency: int
    size: int

    @property
    def data(self) -> str:
        """What every message carries."""
        return "x" * self.size

    def warm_up(self) -> Plan:
        """A tenth of the work, but half a second at most."""
        count = None if self.count is None else max(1, self.count // 10)
        return dataclasses.replace(self, count=count, seconds=min(0.5, (self.seconds or 5.0) / 10))


class Measurement:
    """What came of a plan so far.

    Attributes:
        plan: What is to be done.
        latencies: Nanoseconds that each message took: until the answer or the echo was there; of
            one-way events, until sending the next one was possible.
        errors: What went wrong with single messages, and how often.
        failure: What ended all of it, if something did.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.latencies: Histogram = Histogram()
        self.errors: collections.Counter[str] = collections.Counter()
        self.failure: pyipc.IPCError | None = None
        self._claimed = 0
        self._began = time.perf_counter()
        self._ended: float | None = None

    @property
    def seconds(self) -> float:
        """How long it took, or has taken until now."""
        return (time.perf_counter() if self._ended is None else self._ended) - self._began

    @property
    def rate(self) -> float:
        """Messages a second."""
        return self.latencies.count / self.seconds if self.latencies.count else 0.0

    @property
    def progress(self) -> float:
        """How much of the plan is done, from 0 to 1."""
        parts = [0.0]
        if self.plan.count is not None:
            parts.append((self.latencies.count + self.errors.total()) / self.plan.count)
        if self.plan.seconds is not None:
            parts.append(self.seconds / self.plan.seconds)
        return min(1.0, max(parts))

    def claim(self) -> bool:
        """Whether one more message is to be sent."""
        if self.failure is not None or (self.plan.count is not None and self._claimed >= self.plan.count):
            return False
        if self.plan.seconds is not None and self.seconds >= self.plan.seconds:
            return False
        self._claimed += 1
        return True

    def end(self) -> None:
        """Stop the clock."""
        self._ended = time.perf_counter()


async def probe(client: pyipc.Client, plan: Plan) -> bool:
    """Find out whether the server answers in the way that is to be measured.

    Raises:
        ConnectionLost, LocalProtocolError: The work cannot be done at all.

    Cancellation: nothing is left behind.
    """
    with trio.move_on_after(_PATIENCE):
        if plan.work == "echo":
            async with client.expect(ECHO) as answer:
                await client.emit(ECHO, plan.data)
                return bool((await answer.get()).data == plan.data)
        if plan.work == "events":
            await _confirm(client)
            return True
        try:
            return bool(await client.request(REQUEST, plan.data, timeout=None) == plan.data)
        except pyipc.RequestError:
            return False
    return False


async def measure(client: pyipc.Client, measurement: Measurement) -> None:
    """Do the work. What goes wrong is in the measurement.

    Cancellation: what was measured until then is in the measurement.
    """
    try:
        await _WORKS[measurement.plan.work](client, measurement)
    finally:
        measurement.end()


async def _requests(client: pyipc.Client, measurement: Measurement) -> None:
    data = measurement.plan.data

    async def ask_on_and_on() -> None:
        clock, record = time.perf_counter_ns, measurement.latencies.record
        while measurement.claim():
            began = clock()
            try:
                answer = await client.request(REQUEST, data)
            except pyipc.RequestError as error:
                measurement.errors[type(error).__name__] += 1
            except pyipc.IPCError as error:
                measurement.failure = error
            else:
                record(clock() - began)
                if answer != data:
                    measurement.errors["WrongAnswer"] += 1

    async with trio.open_nursery() as nursery:
        for _ in range(measurement.plan.concurrency):
            nursery.start_soon(ask_on_and_on)


async def _events(client: pyipc.Client, measurement: Measurement) -> None:
    data = measurement.plan.data
    clock, record = time.perf_counter_ns, measurement.latencies.record
    try:
        while measurement.claim():
            began = clock()
            await client.emit(EVENT, data)
            record(clock() - began)
        # Sent is not received: an answer to what was sent behind them says that they are all there.
        await _confirm(client)
    except pyipc.IPCError as error:
        measurement.failure = error


async def _confirm(client: pyipc.Client) -> None:
    try:
        await client.request(EVENT)
    except (pyipc.NoHandler, pyipc.RemoteError):
        return  # an answer as good as any


async def _echoes(client: pyipc.Client, measurement: Measurement) -> None:
    data = measurement.plan.data
    clock, record = time.perf_counter_ns, measurement.latencies.record
    under_way: collections.deque[int] = collections.deque()
    changed = trio.lowlevel.ParkingLot()

    def on_echo(message: pyipc.Message[Any]) -> None:
        # Events arrive in the order in which they were sent, and so come back.
        record(clock() - under_way.popleft())
        if message.data != data:
            measurement.errors["WrongAnswer"] += 1
        changed.unpark_all()

    def on_loss(reason: pyipc.Disconnected) -> None:
        if reason.code != "closed":
            measurement.failure = measurement.failure or pyipc.ConnectionLost(reason.message)
            changed.unpark_all()

    client.on(ECHO, on_echo)
    client.on_disconnect(on_loss)
    try:
        while measurement.claim():
            while len(under_way) >= measurement.plan.concurrency and measurement.failure is None:
                await changed.park()
            under_way.append(clock())
            await client.emit(ECHO, data)
        with trio.move_on_after(_PATIENCE):
            while under_way and measurement.failure is None:
                await changed.park()
    except pyipc.IPCError as error:
        measurement.failure = error
    finally:
        client.off(ECHO, on_echo)
    if under_way:
        measurement.errors["NotSentBack"] += len(under_way)


_WORKS: Final[dict[Work, Callable[[pyipc.Client, Measurement], Awaitable[None]]]] = {
    "request": _requests,
    "events": _events,
    "echo": _echoes,
}
