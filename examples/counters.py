"""Counters of a server, as Prometheus reads them: ``python examples/counters.py``.

A real program serves the text over HTTP, or writes it to a file for the node exporter's textfile collector.
"""

from __future__ import annotations

import collections
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import trio

import pyipc

if TYPE_CHECKING:
    from collections.abc import Iterator


class Counters(pyipc.Instrument):
    """Counts what a server does. What its peers choose, such as names that nobody handles, makes no new counter."""

    def __init__(self) -> None:
        self.values: collections.defaultdict[str, float] = collections.defaultdict(float)

    def connected(self, connection: pyipc.Connection) -> None:
        self.values["pyipc_connections"] += 1

    def disconnected(self, reason: pyipc.Disconnected) -> None:
        self.values["pyipc_connections"] -= 1
        self.values[f'pyipc_disconnects_total{{code="{reason.code}"}}'] += 1

    def sent(self, kind: str, event: str, size: int, connection: pyipc.Connection) -> None:
        self.values[f'pyipc_sent_total{{kind="{kind}"}}'] += 1
        self.values[f'pyipc_sent_bytes_total{{kind="{kind}"}}'] += size

    @contextmanager
    def handling(self, kind: str, message: pyipc.Message[Any]) -> Iterator[None]:
        began, outcome = time.perf_counter(), "ok"
        try:
            yield
        except pyipc.Refused as refused:
            outcome = refused.code
            raise
        except BaseException as error:
            outcome = type(error).__name__
            raise
        finally:
            labels = f'kind="{kind}",event="{message.event}"'
            self.values[f'pyipc_handled_total{{{labels},outcome="{outcome}"}}'] += 1
            self.values[f"pyipc_handling_seconds_total{{{labels}}}"] += time.perf_counter() - began

    def __str__(self) -> str:
        return "".join(f"{name} {value:g}\n" for name, value in sorted(self.values.items()))


counters = Counters()
server = pyipc.Server("tcp://127.0.0.1:0", instrument=counters)


@server.on("add")
async def add(message: pyipc.Message[list[int]]) -> int:
    if not message.data:
        raise pyipc.Refused("empty", "there is nothing to add")
    return sum(message.data)


async def main() -> None:
    async with server:
        async with pyipc.connect(server.addresses[0]) as client:
            for numbers in ([1, 2], [3], []):
                try:
                    print(numbers, "->", await client.request("add", numbers))
                except pyipc.RemoteError as error:
                    print(numbers, "->", error)
            await server.broadcast("news", "hello")
        print(counters)


trio.run(main)
