"""What the peers of other libraries do alike: the handlers of their servers and the loops of their drivers.

A loop needs two functions: ``send(event, data, call)``, and ``receive()`` for the next message. There is a blocking set
of loops and an async one, for any kind of async. The async one has no ``requests``, as tasks are made differently
everywhere; the blocking one keeps many requests on their way without threads, by their numbers.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from common import EVENT, Envelope, Params, begin, encode, payload, report_laps, report_rate, warm_up

__all__ = ["Answer", "Handler", "check", "converse", "converse_async", "handlers", "hear"]

#: Event, data and call, as `encode` takes them.
Answer = tuple[str, Any, int]
Handler = Callable[[Envelope], Answer | None]
Receive = Callable[[], Envelope]
AsyncReceive = Callable[[], Awaitable[Envelope]]


# --- serving -------------------------------------------------------------------------------------------------------


def handlers(workload: str, params: Params) -> dict[str, Handler]:
    """What a server does with each event: it gives the message to send back, or nothing."""
    seen = 0

    def welcome(message: Envelope) -> Answer:
        return "welcome", message.data, message.call

    def answer(message: Envelope) -> Answer:
        return "reply", message.data, message.call

    def echo(message: Envelope) -> Answer:
        return EVENT, message.data, 0

    def take(message: Envelope) -> Answer:
        return "taken", len(message.data["s"]), 0

    def tally(message: Envelope) -> Answer | None:
        nonlocal seen
        seen += 1
        return ("done", seen, 0) if seen == params.count else None

    by_workload: dict[str, Handler] = {
        "request": answer,
        "requests": answer,
        "echo": echo,
        "large": take,
    }
    return {"hello": welcome, EVENT: by_workload.get(workload, tally)}


# --- driving, blocking ---------------------------------------------------------------------------------------------


def check(got: object, expected: object) -> None:
    """End this process where an answer is wrong, so that there is no figure.

    At once, as an exception would first wait for connections to close, and its text would not come last.
    """
    if got != expected:
        print(f"a wrong answer: {got!r:.100} instead of {expected!r:.100}", file=sys.stderr, flush=True)
        os._exit(1)


class Send(Protocol):
    """Send a message."""

    def __call__(self, event: str, data: object = None, call: int = 0) -> object: ...


def converse(workload: str, params: Params, send: Send, receive: Receive) -> None:
    """Measure a workload over a blocking channel and report."""
    send("hello")
    check(receive().type, "welcome")
    loops = {"request": _request, "requests": _requests, "echo": _echo, "events": _events, "large": _large}
    loops[workload](params, send, receive)


def _request(params: Params, send: Send, receive: Receive) -> None:
    data, laps = payload(params.size), []
    first = warm_up(params.count)
    for call in range(first + params.count):
        if call == first:
            begin()
        began = time.perf_counter()
        send(EVENT, data, call)
        reply = receive()
        laps.append(time.perf_counter() - began)
        check((reply.call, reply.data), (call, data))
    report_laps(laps[first:])


def _requests(params: Params, send: Send, receive: Receive) -> None:
    data = [payload(params.size, 100 + task) for task in range(params.tasks)]
    calls = iter(range(1, params.count + 1))
    waiting: dict[int, int] = {}

    def ask(task: int) -> None:
        if call := next(calls, 0):
            waiting[call] = task
            send(EVENT, data[task], call)

    begin()
    began = time.perf_counter()
    for task in range(params.tasks):
        ask(task)
    while waiting:
        reply = receive()
        task = waiting.pop(reply.call)
        check(reply.data, data[task])
        ask(task)
    report_rate(params.count, time.perf_counter() - began)


def _echo(params: Params, send: Send, receive: Receive) -> None:
    data = payload(params.size)
    begin()
    began = time.perf_counter()
    for number in range(params.count + params.tasks):
        if number >= params.tasks:
            check(receive().data, data)
        if number < params.count:
            send(EVENT, data)
    report_rate(params.count, time.perf_counter() - began)


def _events(params: Params, send: Send, receive: Receive) -> None:
    data = payload(params.size)
    begin()
    began = time.perf_counter()
    for _ in range(params.count):
        send(EVENT, data)
    check(receive().data, params.count)
    report_rate(params.count, time.perf_counter() - began)


def _large(params: Params, send: Send, receive: Receive) -> None:
    data, laps = payload(params.size), []
    begin()
    for _ in range(params.count):
        began = time.perf_counter()
        send(EVENT, data)
        taken = receive()
        laps.append(time.perf_counter() - began)
        check(taken.data, len(data["s"]))
    report_laps(laps)


def hear(params: Params, go: Callable[[], object], clients: list[Callable[[], bytes]]) -> None:
    """Measure a broadcast. What arrives is compared and not decoded, as little as ``crowd.py`` does.

    Args:
        params: How much work.
        go: Has the server begin.
        clients: Each waits for a client's next message, in the order in which the server sends to them.
    """
    expected = encode(EVENT, payload(params.size))
    begin()
    began = time.perf_counter()
    go()
    for _ in range(params.count):
        for receive in clients:
            check(receive(), expected)
    report_rate(params.count * params.clients, time.perf_counter() - began)


# --- driving, async ------------------------------------------------------------------------------------------------


class AsyncSend(Protocol):
    """Send a message."""

    def __call__(self, event: str, data: object = None, call: int = 0) -> Awaitable[object]: ...


async def converse_async(workload: str, params: Params, send: AsyncSend, receive: AsyncReceive) -> None:
    """Measure a workload over an async channel and report. Cancelling it leaves the workload unfinished."""
    await send("hello")
    check((await receive()).type, "welcome")
    loops = {"request": _request_async, "echo": _echo_async, "events": _events_async, "large": _large_async}
    await loops[workload](params, send, receive)


async def _request_async(params: Params, send: AsyncSend, receive: AsyncReceive) -> None:
    data, laps = payload(params.size), []
    first = warm_up(params.count)
    for call in range(first + params.count):
        if call == first:
            begin()
        began = time.perf_counter()
        await send(EVENT, data, call)
        reply = await receive()
        laps.append(time.perf_counter() - began)
        check((reply.call, reply.data), (call, data))
    report_laps(laps[first:])


async def _echo_async(params: Params, send: AsyncSend, receive: AsyncReceive) -> None:
    data = payload(params.size)
    begin()
    began = time.perf_counter()
    for number in range(params.count + params.tasks):
        if number >= params.tasks:
            check((await receive()).data, data)
        if number < params.count:
            await send(EVENT, data)
    report_rate(params.count, time.perf_counter() - began)


async def _events_async(params: Params, send: AsyncSend, receive: AsyncReceive) -> None:
    data = payload(params.size)
    begin()
    began = time.perf_counter()
    for _ in range(params.count):
        await send(EVENT, data)
    check((await receive()).data, params.count)
    report_rate(params.count, time.perf_counter() - began)


async def _large_async(params: Params, send: AsyncSend, receive: AsyncReceive) -> None:
    data, laps = payload(params.size), []
    begin()
    for _ in range(params.count):
        began = time.perf_counter()
        await send(EVENT, data)
        taken = await receive()
        laps.append(time.perf_counter() - began)
        check(taken.data, len(data["s"]))
    report_laps(laps)
