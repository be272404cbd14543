"""A trace through two processes, printed as a tree: ``python examples/tracing.py``.

`Tracer` is what a tracing system would bring: it makes a span around everything that is asked and around every handler,
and says which one is the present. With OpenTelemetry each of its methods is a line or two; see
``docs/how-to/tracing.md``. The handlers and the calls know nothing of it.
"""

from __future__ import annotations

import contextvars
import json
import os
import secrets
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import trio

import pyipc

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

present: contextvars.ContextVar[str] = contextvars.ContextVar("present", default="")


class Tracer(pyipc.Instrument):
    """Keeps the spans of one process."""

    def __init__(self, process: str) -> None:
        self.process = process
        self.spans: list[dict[str, Any]] = []

    @contextmanager
    def span(self, name: str, parent: str) -> Iterator[None]:
        trace = parent[3:35] or secrets.token_hex(16)
        me = f"00-{trace}-{secrets.token_hex(8)}-01"
        token, began, outcome = present.set(me), time.time(), "ok"
        try:
            yield
        except BaseException as error:
            outcome = type(error).__name__
            raise
        finally:
            present.reset(token)
            text = f"{self.process}: {name} ({outcome}, {(time.time() - began) * 1000:.1f} ms)"
            self.spans.append({"me": me, "parent": parent, "began": began, "text": text})

    def calling(self, kind: str, event: str, address: str) -> AbstractContextManager[None]:
        return self.span(f"{kind} {event}", present.get())

    def handling(self, kind: str, message: pyipc.Message[Any]) -> AbstractContextManager[None]:
        return self.span(f"handle {message.event}", message.traceparent)

    def traceparent(self) -> str:
        return present.get()


def shop(name: str) -> None:
    """The other process: takes orders, asks back what things cost, and writes its spans to the standard output."""
    tracer = Tracer("shop")
    server = pyipc.Server(name, instrument=tracer)

    @server.on("order")
    async def order(message: pyipc.Message[list[str]]) -> int:
        total = 0
        for thing in message.data:
            try:
                total += await message.connection.request("price", thing)
            except pyipc.RemoteError as error:
                raise pyipc.Refused(error.code, error.message) from error
        await message.connection.emit("packed", message.data)
        return total

    @server.on("close")
    async def close(message: pyipc.Message[None]) -> None:
        await server.aclose()

    trio.run(server.run)
    for span in tracer.spans:
        print(json.dumps(span))


async def buy(name: str, tracer: Tracer) -> None:
    router = pyipc.Router()
    packed = trio.Event()
    prices = {"tea": 4, "cup": 9}

    @router.on("price")
    def price(message: pyipc.Message[str]) -> int:
        if message.data not in prices:
            raise pyipc.Refused("unknown", f"nobody knows what {message.data!r} costs")
        return prices[message.data]

    @router.on("packed")
    async def pack(message: pyipc.Message[list[str]]) -> None:
        await trio.sleep(0.01)
        packed.set()

    options: dict[str, Any] = {"connect_timeout": 30, "reconnect_max_interval": 0.5}  # the shop has yet to open
    async with pyipc.connect(name, router=router, instrument=tracer, **options) as client:
        with tracer.span("buy", ""):
            print("total:", await client.request("order", ["tea", "cup"]))
            try:
                await client.request("order", ["moon"])
            except pyipc.RemoteError as error:
                print("refused:", error.message)
        await packed.wait()
        await client.emit("close")


def show(spans: list[dict[str, Any]], parent: str = "", indent: int = 0) -> None:
    for span in sorted(spans, key=lambda span: span["began"]):
        if span["parent"] == parent and (indent or "buy" in span["text"]):
            print("  " * indent + span["text"])
            show(spans, span["me"], indent + 1)


async def main() -> None:
    name = f"tracing-{os.getpid()}"
    tracer = Tracer("customer")
    spans = tracer.spans

    async def run_shop() -> None:
        result = await trio.run_process([sys.executable, __file__, name], capture_stdout=True)
        spans.extend(json.loads(line) for line in result.stdout.splitlines())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_shop)
        await buy(name, tracer)
    show(spans)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        shop(sys.argv[1])
    else:
        trio.run(main)
