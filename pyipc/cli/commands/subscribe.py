"""``pyipc subscribe``: show what is published under some topics."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import trio

import pyipc
from pyipc.cli import arguments as common
from pyipc.cli.exits import ExitCode
from pyipc.cli.quota import Quota, add_quota_options
from pyipc.cli.showing.journal import Journal

if TYPE_CHECKING:
    import argparse

    from pyipc.cli.showing.console import Console

__all__ = ["add", "run"]

#: Messages that may wait to be shown, for each pattern; what is more is dropped, oldest first, which a warning tells.
_MAX_BUFFERED = 10_000


def add(commands: Any) -> None:
    """Add the command to the command line."""
    parser = common.add_command(
        commands,
        "subscribe",
        run,
        help="show what is published under some topics",
        description="""
            Subscribe to topics of a server and show what is published, by the server or by its other clients. A
            connection that is lost is made again; what was published meanwhile is missed, which stderr says. In a
            PATTERN, * stands for one part of a name between dots, and ** for all the rest.
        """,
        examples="""
            pyipc subscribe world 'orders.*'                   # one pattern
            pyipc subscribe world state.load --json --count 1  # the last one, if the server keeps it, or the next
            pyipc subscribe world '**' --new                   # everything, but nothing from before
        """,
    )
    parser.add_argument("address", type=common.address, metavar="ADDRESS", help="where the server is")
    parser.add_argument("patterns", nargs="+", metavar="PATTERN", help="names of topics")
    parser.add_argument("--new", action="store_true", help="leave out the last messages that the server keeps")
    add_quota_options(parser)
    common.add_connect_options(parser)
    common.add_framing_options(parser, raw=False)
    common.add_tls_options(parser, connects=True)


async def run(arguments: argparse.Namespace, console: Console) -> int:
    """Show messages until there are enough or a signal comes.

    Cancellation: closes at once.
    """
    journal = Journal(console)
    quota = Quota(arguments)

    async def show(subscription: pyipc.Subscription, earlier: pyipc.Router) -> None:
        try:
            async for message in subscription:
                # Several patterns may match one topic; what it brings is shown by the first of them.
                if not earlier.handlers_for(message.event) and quota.take():
                    kind = "retained" if message.retained else "published"
                    await journal.message(kind, message)
                    quota.check()
        except pyipc.IPCError as error:
            quota.fail(error)

    def on_disconnect(ending: pyipc.Disconnected) -> None:
        if ending.code != "closed":
            console.note(f"disconnected: {ending.message}; connecting again")

    async with (
        pyipc.connect(
            common.endpoint(arguments, arguments.address),
            connect_timeout=arguments.connect_timeout,
            on_disconnect=on_disconnect,
        ) as client,
        AsyncExitStack() as stack,
        trio.open_nursery() as nursery,
    ):
        shown = pyipc.Router()
        for pattern in arguments.patterns:
            subscription = client.subscribe(pattern, max_buffered=_MAX_BUFFERED, retained=not arguments.new)
            await stack.enter_async_context(subscription)
            earlier = pyipc.Router()
            earlier.include(shown)
            nursery.start_soon(show, subscription, earlier)
            shown = pyipc.Router()
            shown.include(earlier)
            shown.on(pattern, _mark)
        console.note(f"subscribed at {arguments.address}")
        await quota.wait()
        nursery.cancel_scope.cancel()
    return ExitCode.OK


def _mark(message: pyipc.Message[Any]) -> None:
    """Stands for a pattern."""
