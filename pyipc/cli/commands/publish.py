"""``pyipc publish``: send something to whoever has subscribed to it."""

from __future__ import annotations

from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any

import pyipc
from pyipc.cli import arguments as common
from pyipc.cli.data import add_data_options, read_values
from pyipc.cli.exits import ExitCode, Failed
from pyipc.cli.interruption import interruptible

if TYPE_CHECKING:
    import argparse

    from pyipc.cli.showing.console import Console

__all__ = ["add", "run"]


def add(commands: Any) -> None:
    """Add the command to the command line."""
    parser = common.add_command(
        commands,
        "publish",
        run,
        help="send something to whoever has subscribed to it",
        description="""
            Publish something at a server, which sends it to all who have subscribed to the topic. Without DATA it comes
            from standard input, or is null if that is a terminal.
        """,
        examples="""
            pyipc publish world orders.new '{"id": 7}'    # to whoever has subscribed to it
            pyipc publish world state.load 0.7 --retain   # and to whoever will
            tail -f access.json | pyipc publish world hits --lines
        """,
    )
    parser.add_argument("address", type=common.address, metavar="ADDRESS", help="where the server is")
    parser.add_argument("topic", metavar="TOPIC", help="the name under which it is published")
    add_data_options(parser)
    parser.add_argument("--retain", action="store_true", help="let the server keep it for those who subscribe later")
    common.add_connect_options(parser)
    common.add_framing_options(parser, raw=False)
    common.add_tls_options(parser, connects=True)


async def run(arguments: argparse.Namespace, console: Console) -> int:
    """Publish what the arguments give.

    Cancellation: closes at once; what was not sent is lost.
    """
    endings: list[pyipc.Disconnected] = []
    sent = 0
    async with (
        aclosing(read_values(arguments)) as values,
        pyipc.connect(
            common.endpoint(arguments, arguments.address),
            connect_timeout=arguments.connect_timeout,
            # It is for those who have subscribed at the server that is there now.
            reconnect=False,
            offline="raise",
            on_disconnect=endings.append,
        ) as client,
    ):
        with interruptible():
            async for value in values:
                await client.publish(arguments.topic, value, retain=arguments.retain)
                sent += 1
            # The server says only what it refuses. What it answers, be it a refusal as well, comes after that.
            with suppress(pyipc.RemoteError):
                async with client.subscribe(arguments.topic, retained=False):
                    pass
        refused = client.statistics().publishes_refused
    if refused:
        raise Failed(ExitCode.REFUSED, f"the server refused to publish {refused:,} of {sent:,} under {arguments.topic}")
    if endings and endings[0].code != "closed":
        raise Failed(ExitCode.LOST, f"the server left before everything was surely delivered: {endings[0].message}")
    if console.json or console.is_terminal:
        await console.record({"kind": "emitted", "event": arguments.topic, "count": sent}, f"sent {sent:,}")
    return ExitCode.OK
