"""``pyipc stream``: ask for a stream, and show its items as they come."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pyipc
from pyipc.cli import arguments as common
from pyipc.cli.data import add_data_options, read_values
from pyipc.cli.exits import ExitCode, exit_code_of, words_of
from pyipc.cli.interruption import interruptible
from pyipc.cli.showing.answers import answer_pieces, answer_record

if TYPE_CHECKING:
    import argparse

    from pyipc.cli.showing.console import Console

__all__ = ["add", "run"]


def add(commands: Any) -> None:
    """Add the command to the command line."""
    parser = common.add_command(
        commands,
        "stream",
        run,
        help="ask a server for a stream, and show its items",
        description="""
            Ask a server for a stream and show its items, one line of JSON each. The server makes them no faster than
            they are shown. With --lines, ask once for every line of the input, one after the other.
        """,
        examples="""
            pyipc stream world rows '{"of": "orders"}'
            pyipc stream world log --count 10              # the first ten; the server is told to stop
            pyipc stream world rows 3 --json | jq .data    # for another program
        """,
    )
    parser.add_argument("address", type=common.address, metavar="ADDRESS", help="where the server is")
    parser.add_argument("event", metavar="EVENT", help="the name of the stream")
    add_data_options(parser, many=False)
    parser.add_argument("--count", type=common.positive, metavar="N", help="end after so many items")
    parser.add_argument(
        "--timeout",
        type=common.seconds,
        default=30.0,
        metavar="SECONDS",
        help="wait so long for each item (default: 30)",
    )
    common.add_connect_options(parser)
    common.add_framing_options(parser, raw=False)
    common.add_tls_options(parser, connects=True)


async def run(arguments: argparse.Namespace, console: Console) -> int:
    """Ask with what the arguments give, and show the items in order.

    Cancellation: closes at once; the server is told and cancels its handler.
    """
    status = ExitCode.OK
    left: int | None = arguments.count
    async with (
        aclosing(read_values(arguments)) as values,
        pyipc.connect(
            common.endpoint(arguments, arguments.address), connect_timeout=arguments.connect_timeout
        ) as client,
    ):
        with interruptible():
            async for value in values:
                try:
                    async with client.stream(arguments.event, value, timeout=arguments.timeout) as items:
                        async for item in items:
                            await _show(item, arguments.event, console)
                            left = None if left is None else left - 1
                            if left == 0:
                                return status
                except pyipc.RequestError as error:
                    if status is ExitCode.OK:
                        status = exit_code_of(error)
                    await _show_error(error, arguments.event, console)
    return status


async def _show(item: Any, event: str, console: Console) -> None:
    await console.record({"kind": "item", "event": event, **answer_record(item)}, answer_pieces(item))


async def _show_error(error: pyipc.RequestError, event: str, console: Console) -> None:
    code, message, data = words_of(error)
    if console.json:
        await console.record({"kind": "error", "event": event, "code": code, "message": message, "data": data}, "")
    else:
        console.error(f"pyipc: the stream {event!r} has failed: {message} ({code})")
