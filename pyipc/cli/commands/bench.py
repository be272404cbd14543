"""``pyipc bench``: how fast it is here."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final

import trio

import pyipc
from pyipc.cli import arguments as common
from pyipc.cli.benching import server as bench_server
from pyipc.cli.benching.cpu_time import cpu_seconds
from pyipc.cli.benching.report import Report
from pyipc.cli.benching.workload import Measurement, Plan, measure, probe
from pyipc.cli.exits import ExitCode, Failed
from pyipc.cli.interruption import Interrupted, interruptible
from pyipc.cli.showing.progress import show_progress

if TYPE_CHECKING:
    import argparse

    from pyipc.cli.showing.console import Console

__all__ = ["add", "run"]

_SECONDS: Final = 3.0
#: What a frame takes beside its data, amply.
_ENVELOPE_SIZE: Final = 1_024


def add(commands: Any) -> None:
    """Add the command to the command line."""
    parser = common.add_command(
        commands,
        "bench",
        run,
        help="measure how fast it is here",
        description="""
            Send as many messages as will go, and tell how many that were, how long each took, and what
            that cost both ends. Without ADDRESS the server is a process of its own on a temporary socket.

            A server elsewhere has to send back what it is sent: "pyipc serve ADDRESS --echo -q >/dev/null" will do.
            Events are counted when the server has them all; one that sends them back has more to do.

            Ctrl-C ends it early and still tells what was measured.
        """,
        examples="""
            pyipc bench                                  # requests, one at a time
            pyipc bench --concurrency 100 --size 1024    # a hundred at a time, 1 KiB each
            pyipc bench --work events --count 100000     # one way
            pyipc bench world --work echo --seconds 10 --json
        """,
    )
    parser.add_argument("address", nargs="?", type=common.address, metavar="ADDRESS", help="where the server is")
    parser.add_argument(
        "--work",
        choices=("request", "events", "echo"),
        default="request",
        help="ask and wait for answers; send events one way; send events that come back (default: request)",
    )
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument("--count", type=common.positive, metavar="N", help="how many messages")
    amount.add_argument("--seconds", type=common.seconds, metavar="S", help=f"how long (default: {_SECONDS:g})")
    parser.add_argument(
        "--concurrency", type=common.positive, default=1, metavar="N", help="messages under way at a time (default: 1)"
    )
    parser.add_argument(
        "--size", type=common.positive, default=64, metavar="BYTES", help="data in each message (default: 64)"
    )
    common.add_connect_options(parser)
    common.add_framing_options(parser, raw=False)
    common.add_tls_options(parser, connects=True)


async def run(arguments: argparse.Namespace, console: Console) -> int:
    """Measure and report.

    Raises:
        ConnectError: The server is not there.
        ConnectionLost: It left before the end; what was measured until then has been reported.
        Failed: It does not send back what it is sent.

    Cancellation: ends at once and reports nothing.
    """
    plan = Plan(
        work=arguments.work,
        count=arguments.count,
        seconds=arguments.seconds or (None if arguments.count else _SECONDS),
        concurrency=arguments.concurrency,
        size=arguments.size,
    )
    max_frame_size = max(pyipc.Options().max_frame_size, plan.size + _ENVELOPE_SIZE)
    interrupted: Interrupted | None = None
    async with AsyncExitStack() as stack:
        address = arguments.address or await stack.enter_async_context(bench_server.start(max_frame_size))
        client = await stack.enter_async_context(
            pyipc.connect(
                common.endpoint(arguments, address),
                connect_timeout=arguments.connect_timeout,
                max_frame_size=max_frame_size,
                # A measurement is of one connection, and ends with it.
                reconnect=False,
                offline="raise",
            )
        )
        if not await probe(client, plan):
            raise Failed(
                ExitCode.REFUSED,
                f"{address} does not send back what it is sent; start it with: pyipc serve {address} --echo",
            )
        await measure(client, Measurement(plan.warm_up()))
        server = client.peer.pid if client.peer is not None else None
        before = cpu_seconds(os.getpid()), cpu_seconds(server)
        measurement = Measurement(plan)
        try:
            with interruptible():
                await _measure_visibly(client, measurement, console)
        except Interrupted as signal:
            interrupted = signal
        after = cpu_seconds(os.getpid()), cpu_seconds(server)
    here, there = (_difference(*times) for times in zip(before, after, strict=True))
    report = Report(
        address=arguments.address,
        measurement=measurement,
        cpu_here=here,
        cpu_there=there,
        interrupted=interrupted is not None,
    )
    await _tell(report, console)
    if interrupted is not None:
        raise interrupted
    if measurement.failure is not None:
        raise measurement.failure
    return ExitCode.REFUSED if measurement.errors else ExitCode.OK


async def _measure_visibly(client: pyipc.Client, measurement: Measurement, console: Console) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            show_progress, console, measurement.plan.work, lambda: (measurement.progress, measurement.rate)
        )
        await measure(client, measurement)
        nursery.cancel_scope.cancel()


async def _tell(report: Report, console: Console) -> None:
    if console.json:
        await console.record(report.record(), "")
        return
    for line in report.lines(ascii_only="utf" not in console.output.encoding.lower()):
        await console.line(line)


def _difference(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before
