"""``pyipc serve``: a server that shows what arrives, and answers in a simple way."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

import pyipc
from pyipc.cli import arguments as common
from pyipc.cli.data import json_argument
from pyipc.cli.exits import ExitCode
from pyipc.cli.quota import Quota, add_quota_options
from pyipc.cli.showing.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from pyipc.cli.showing.console import Console

__all__ = ["add", "run"]


def add(commands: Any) -> None:
    """Add the command to the command line."""
    parser = common.add_command(
        commands,
        "serve",
        run,
        help="be a server that shows what arrives",
        description="""
            Listen on one address or several, and show who comes, what they send and why they go. Requests are
            answered with null, or as --echo or --reply says. "listening on ADDRESS" on stderr tells that it is ready.
        """,
        examples="""
            pyipc serve world                            # show what anybody sends to 'world'
            pyipc serve world tcp://127.0.0.1:0 --echo   # on a free port too; send everything back
            pyipc serve world --reply '{"ok": true}' --count 1
            pyipc serve node-ipc:world                   # for node-ipc programs, as they are
        """,
    )
    parser.add_argument("addresses", nargs="+", type=common.address, metavar="ADDRESS", help="where to listen")
    parser.add_argument(
        "--echo", action="store_true", help="send each event back to its sender; answer requests with their data"
    )
    parser.add_argument(
        "--reply", type=json_argument, default=argparse.SUPPRESS, metavar="JSON", help="answer every request with this"
    )
    add_quota_options(parser)
    common.add_framing_options(parser)
    common.add_tls_options(parser, listens=True)


async def run(arguments: argparse.Namespace, console: Console) -> int:
    """Serve until there is enough or a signal comes.

    Cancellation: closes at once.
    """
    journal = Journal(console)
    quota = Quota(arguments)
    server = pyipc.Server(
        *(common.endpoint(arguments, address, *arguments.addresses, listens=True) for address in arguments.addresses),
        router=_Handlers(arguments, console, journal, quota).router,
    )
    server.on_connect(journal.connected)
    server.on_disconnect(journal.disconnected)
    async with server:
        for address in server.addresses:
            console.note(f"listening on {address}")
            if console.json:
                await console.record({"kind": "listening", "address": str(address)}, "")
        await quota.wait()
    return ExitCode.OK


class _Handlers:
    """Shows every message, and answers.

    A message does not tell whether it is an event or a request, but who gets it does: an event goes
    to every handler, in order of registration, and a request to the most specific one alone. Both
    patterns here match every name, and the second is the more specific.
    """

    def __init__(self, arguments: argparse.Namespace, console: Console, journal: Journal, quota: Quota) -> None:
        self._echo: bool = arguments.echo
        self._returns_data = arguments.echo and not hasattr(arguments, "reply")
        self._reply: Any = getattr(arguments, "reply", None)
        self._console = console
        self._journal = journal
        self._quota = quota
        self._event: object = None
        self.router = pyipc.Router()
        self.router.on("**", self._notice)
        self.router.on("*.**", self._handle)

    def _notice(self, message: pyipc.Message[Any]) -> None:
        self._event = message

    def _handle(self, message: pyipc.Message[Any]) -> Awaitable[Any]:
        # Not async itself: told apart here and now, before any other message is handled.
        event, self._event = self._event, None
        return self._on_event(message) if message is event else self._on_request(message)

    async def _on_event(self, message: pyipc.Message[Any]) -> None:
        if self._quota.take():
            await self._journal.message("event", message)
            if self._echo:
                await _send_back(message, self._console)
            self._quota.check()

    async def _on_request(self, message: pyipc.Message[Any]) -> Any:
        if self._quota.take():
            await self._journal.message("request", message)
            self._quota.check()
        return message.data if self._returns_data else self._reply


async def _send_back(message: pyipc.Message[Any], console: Console) -> None:
    try:
        await message.connection.emit(message.event, message.data)
    except pyipc.ConnectionClosed:
        pass  # told when the connection's end is shown
    except pyipc.LocalProtocolError as error:
        console.error(f"pyipc: an event is not sent back: {error}")
