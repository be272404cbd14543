"""``pyipc listen``: show what a server sends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyipc
from pyipc.cli import arguments as common
from pyipc.cli.exits import ExitCode
from pyipc.cli.quota import Quota, add_quota_options
from pyipc.cli.showing.journal import Journal

if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable

    from pyipc.cli.showing.console import Console

__all__ = ["add", "run"]


def add(commands: Any) -> None:
    """Add the command to the command line."""
    parser = common.add_command(
        commands,
        "listen",
        run,
        help="show the events that a server sends",
        description="""
            Connect to a server and show the events that it sends. A connection that is lost is made again.
            In a PATTERN, * stands for one part of a name between dots, and ** for all the rest.
        """,
        examples="""
            pyipc listen world                            # everything
            pyipc listen world news 'orders.*'            # some
            pyipc listen world --json | jq .data          # for another program
            pyipc listen world done --count 1 --timeout 60
        """,
    )
    parser.add_argument("address", type=common.address, metavar="ADDRESS", help="where the server is")
    parser.add_argument("patterns", nargs="*", metavar="PATTERN", help="names of events; all, if there is none")
    add_quota_options(parser)
    common.add_connect_options(parser)
    common.add_framing_options(parser)
    common.add_tls_options(parser, connects=True)


async def run(arguments: argparse.Namespace, console: Console) -> int:
    """Show events until there are enough or a signal comes.

    Cancellation: closes at once.
    """
    journal = Journal(console)
    quota = Quota(arguments)
    router = pyipc.Router()
    wanted: list[object] = [None]

    def mark(message: pyipc.Message[Any]) -> None:
        wanted[0] = message

    def show(message: pyipc.Message[Any]) -> Awaitable[None] | None:
        return write(message) if message is wanted[0] and quota.take() else None

    async def write(message: pyipc.Message[Any]) -> None:
        await journal.message("event", message)
        quota.check()

    # Several patterns may match one event, which is to be shown once: by the last handler, which all events go to.
    for pattern in arguments.patterns or ["**"]:
        # These two mean the same; but a request must not find two handlers that claim as much.
        router.on("*.**" if pattern == "**" else pattern, mark)
    router.on("**", show)

    def on_disconnect(ending: pyipc.Disconnected) -> None:
        if ending.code == "version":  # the one end after which no new connection is tried
            quota.fail(pyipc.ConnectionLost(ending.message))
        elif ending.code != "closed":
            console.note(f"disconnected: {ending.message}; connecting again")

    async with pyipc.connect(
        common.endpoint(arguments, arguments.address),
        router=router,
        connect_timeout=arguments.connect_timeout,
        on_connect=lambda connection: console.note(f"connected to {arguments.address}"),
        on_disconnect=on_disconnect,
    ):
        await quota.wait()
    return ExitCode.OK
