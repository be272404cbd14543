"""``pyipc broadcast``: be a server for as long as it takes to tell its clients something."""

from __future__ import annotations

import math
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any

import trio

import pyipc
from pyipc.cli import arguments as common
from pyipc.cli.data import add_data_options, read_values
from pyipc.cli.exits import ExitCode, Failed
from pyipc.cli.interruption import interruptible

if TYPE_CHECKING:
    import argparse

    from pyipc.cli.showing.console import Console

__all__ = ["add", "run"]

#: Bytes that may wait for one client before all wait for it, and for how many seconds.
_TOLERATED_SIZE = 64 * 1024
_CATCH_UP_TIMEOUT = 2.0


def add(commands: Any) -> None:
    """Add the command to the command line."""
    parser = common.add_command(
        commands,
        "broadcast",
        run,
        help="be a server that tells its clients something",
        description="""
            Broadcasting is what servers do: listen on ADDRESS, wait for clients, send every one of them the events, and
            close. Clients that come back by themselves, as those of pyipc and node-ipc do, can wait for it to begin.
        """,
        examples="""
            pyipc broadcast world news '"it works"'              # to the first client that comes
            pyipc broadcast world news --text hello --clients 3  # when three are there
            pyipc broadcast world tick --lines --wait 5 < ticks.json
        """,
    )
    parser.add_argument("address", type=common.address, metavar="ADDRESS", help="where to listen")
    parser.add_argument("event", metavar="EVENT", help="the name of the event")
    add_data_options(parser)
    parser.add_argument(
        "--clients", type=common.positive, default=1, metavar="N", help="wait for so many clients (default: 1)"
    )
    parser.add_argument(
        "--wait",
        type=common.seconds,
        metavar="SECONDS",
        help="wait no longer than this, and send to those who are there",
    )
    common.add_framing_options(parser)
    common.add_tls_options(parser, listens=True)


async def run(arguments: argparse.Namespace, console: Console) -> int:
    """Broadcast what the arguments give.

    Cancellation: closes at once; what was not sent is lost.
    """
    server = pyipc.Server(common.endpoint(arguments, arguments.address, listens=True))
    arrivals = trio.Event()

    @server.on_connect
    def count(connection: pyipc.Connection) -> None:
        if len(server.connections) >= arguments.clients:
            arrivals.set()

    dropped = 0
    too_slow: set[pyipc.Connection] = set()
    async with aclosing(read_values(arguments)) as values, server:
        for address in server.addresses:
            console.note(f"listening on {address}")
        with interruptible():
            with trio.move_on_after(math.inf if arguments.wait is None else arguments.wait):
                await arrivals.wait()
            if not server.connections:
                raise Failed(ExitCode.TIMEOUT, f"nobody connected within {arguments.wait:g} s; nothing was sent")
            async for value in values:
                report = await server.broadcast(arguments.event, common.outgoing(arguments, value))
                dropped += report.dropped
                await console.record(
                    {"kind": "broadcast", "event": arguments.event, "sent": report.sent, "dropped": report.dropped},
                    f"sent to {report.sent:,}, dropped for {report.dropped:,}",
                )
                await _let_catch_up(server.connections - too_slow, too_slow)
    return ExitCode.LOST if dropped else ExitCode.OK


async def _let_catch_up(connections: frozenset[pyipc.Connection], too_slow: set[pyipc.Connection]) -> None:
    """Wait for clients that lag, as a broadcast itself does not; for those who do not catch up only once."""
    for connection in connections:
        if connection.statistics().outbox_size > _TOLERATED_SIZE:
            with suppress(pyipc.ConnectionClosed), trio.move_on_after(_CATCH_UP_TIMEOUT) as scope:
                await connection.flush()
            if scope.cancelled_caught:
                too_slow.add(connection)
