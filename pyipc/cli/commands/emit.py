"""``pyipc emit``: send events."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

import pyipc
from pyipc.cli import arguments as common
from pyipc.cli.data import add_data_options, read_values
from pyipc.cli.exits import ExitCode, Failed
from pyipc.cli.interruption import interruptible
from pyipc.cli.showing.text import printable

if TYPE_CHECKING:
    import argparse

    from pyipc.cli.showing.console import Console

__all__ = ["add", "run"]


def add(commands: Any) -> None:
    """Add the command to the command line."""
    parser = common.add_command(
        commands,
        "emit",
        run,
        help="send events to a server",
        description="""
            Send events to a server and leave, when all are handed over and the server has said goodbye.
            Without DATA they come from standard input, or are null if that is a terminal.
        """,
        examples="""
            pyipc emit world seen '{"page": 7}'        # one event
            pyipc emit world load @page.json           # the JSON in a file
            pyipc emit world photo '{"of": "a cat"}' --attach cat.jpg
            tail -f access.json | pyipc emit world hit --lines
        """,
    )
    parser.add_argument("address", type=common.address, metavar="ADDRESS", help="where the server is")
    parser.add_argument("event", metavar="EVENT", help="the name of the event")
    add_data_options(parser)
    parser.add_argument(
        "--attach",
        action="append",
        default=[],
        metavar="FILE",
        help="attach the bytes of a file to each event; may be given more than once",
    )
    common.add_connect_options(parser)
    common.add_framing_options(parser)
    common.add_tls_options(parser, connects=True)


async def run(arguments: argparse.Namespace, console: Console) -> int:
    """Send what the arguments give.

    Cancellation: closes at once; what was not sent is lost.
    """
    attachments = [await _content(name) for name in arguments.attach]
    endings: list[pyipc.Disconnected] = []
    sent = 0
    async with (
        aclosing(read_values(arguments)) as values,
        pyipc.connect(
            common.endpoint(arguments, arguments.address),
            connect_timeout=arguments.connect_timeout,
            # An event is for the server that is there now.
            reconnect=False,
            offline="raise",
            on_disconnect=endings.append,
        ) as client,
    ):
        with interruptible():
            async for value in values:
                await client.emit(arguments.event, common.outgoing(arguments, value), attachments=attachments)
                sent += 1
    if endings and endings[0].code != "closed":
        raise Failed(ExitCode.LOST, f"the server left before everything was surely delivered: {endings[0].message}")
    if console.json or console.is_terminal:
        await console.record({"kind": "emitted", "event": arguments.event, "count": sent}, f"sent {sent:,}")
    return ExitCode.OK


async def _content(name: str) -> bytes:
    """The bytes of a file.

    Raises:
        Failed: It cannot be read.
    """
    try:
        return await trio.to_thread.run_sync(Path(name).read_bytes, abandon_on_cancel=True)
    except OSError as error:
        raise Failed(ExitCode.IO, f"cannot read {printable(name)}: {error.strerror}") from None
