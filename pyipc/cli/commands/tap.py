"""``pyipc tap``: watch a conversation without being part of it."""

from __future__ import annotations

import argparse
import itertools
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

import trio

import pyipc
from pyipc.cli import arguments as common
from pyipc.cli.exits import ExitCode, Failed
from pyipc.cli.interruption import Interrupted, interruptible
from pyipc.cli.peers import check_peer
from pyipc.cli.showing.figures import count
from pyipc.cli.tapping.backlog import Backlog, Skipped
from pyipc.cli.tapping.cutter import Budget
from pyipc.cli.tapping.watching import Conversation
from pyipc.transports import transport_for

if TYPE_CHECKING:
    from pyipc.cli.showing.console import Console
    from pyipc.cli.tapping.watching import Reading
    from pyipc.transports import Link, Listener

__all__ = ["add", "run"]

#: Bytes of one frame that are kept for showing it, and the same with ``--full``.
_KEPT_SIZE: Final = 64 * 1024
_KEPT_SIZE_IN_FULL: Final = 4 * 1024 * 1024
#: What may wait to be shown, in bytes and in frames.
_BACKLOG_SIZE: Final = 8 * 1024 * 1024
_BACKLOG_FRAMES: Final = 4_096
#: What may be kept of frames that have not ended, in bytes, in all conversations together.
_UNFINISHED_SIZE: Final = 32 * 1024 * 1024
#: Conversations at a time: as many as a server takes.
_MAX_CONVERSATIONS: Final = pyipc.Options().max_connections
#: Seconds to wait for the target, after a failure to accept, and for the last lines to be shown.
_CONNECT_TIMEOUT: Final = 10.0
_ACCEPT_PAUSE: Final = 0.1
_LAST_LINES_TIMEOUT: Final = 1.0


def add(commands: Any) -> None:
    """Add the command to the command line."""
    parser = common.add_command(
        commands,
        "tap",
        run,
        help="watch a conversation through a proxy",
        description="""
            Listen on one address, pass everything on to another, and show what goes past: when, on which
            connection, which way (-> to the server, <- to the client), how large, and what it says.

            The conversation does not notice: every byte arrives unchanged, a side that reads slowly holds
            back the other one, and each side's end reaches the other. What goes past faster than it can be
            shown is counted instead; with --lossless the conversation waits for the display. Of a frame
            beyond 64 KiB only the beginning is shown; with --full, of one beyond 4 MiB. Of attachments the
            size is shown, and never the bytes.
        """,
        examples="""
            pyipc tap spied world                      # clients connect to 'spied' instead of 'world'
            pyipc tap tcp://127.0.0.1:0 node-ipc:world # a node-ipc server, from any free port
            pyipc tap spied world --json --lossless > conversation.jsonl
            pyipc tap spied unix:/run/app.sock --raw   # bytes, whatever they mean
        """,
    )
    parser.add_argument("listen", type=common.address, metavar="LISTEN", help="where clients connect")
    parser.add_argument("target", type=common.address, metavar="TARGET", help="where the server is")
    parser.add_argument("--full", action="store_true", help="show data in full length, up to 4 MiB of each frame")
    parser.add_argument(
        "--lossless",
        action="store_true",
        help="leave out no frame, but hold the conversation while the display is behind",
    )
    common.add_framing_options(parser)
    common.add_tls_options(parser, listens=True, connects=True)
    target = parser.add_argument_group("tls, towards TARGET")
    target.add_argument("--target-cert", metavar="FILE", help="show this certificate to TARGET, and --cert to clients")
    target.add_argument("--target-key", metavar="FILE", help="its private key, unless that is in the same file")


async def run(arguments: argparse.Namespace, console: Console) -> int:
    """Pass on and show what is said until interrupted.

    Raises:
        ListenError: The address to listen on is not to be had.
        AddressError: An address cannot be used here.

    Cancellation: ends all conversations at once.
    """
    tap = _Tap(arguments, console)
    listener = await tap.listen()
    console.note(f"listening on {listener.address}")
    console.note(f"passing on to {tap.target.parsed.redacted}")
    interrupted: Interrupted | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tap.show)
        try:
            with interruptible():
                await tap.serve(listener)
        except Interrupted as signal:
            interrupted = signal
        tap.backlog.end()
        # A terminal that is stopped shows nothing more, however long it is waited for.
        nursery.cancel_scope.deadline = trio.current_time() + _LAST_LINES_TIMEOUT
    assert interrupted is not None
    raise interrupted


def _towards_target(arguments: argparse.Namespace) -> argparse.Namespace:
    """The same arguments, with the certificate for the target."""
    if arguments.target_cert is None:
        if arguments.target_key is not None:
            raise Failed(
                ExitCode.USAGE, "--target-key needs --target-cert as well, the certificate that it is the key of"
            )
        return arguments
    own = {"cert": arguments.target_cert, "key": arguments.target_key, "client_ca": None}
    return argparse.Namespace(**{**vars(arguments), **own})


class _Tap:
    """Everything between one address and another."""

    def __init__(self, arguments: argparse.Namespace, console: Console) -> None:
        self.source = common.endpoint(arguments, arguments.listen, arguments.target, listens=True)
        self.target = common.endpoint(_towards_target(arguments), arguments.target, arguments.listen)
        self.backlog: Backlog[Reading] = Backlog(max_size=_BACKLOG_SIZE, max_items=_BACKLOG_FRAMES)
        self._console = console
        self._lossless: bool = arguments.lossless
        self._full: bool = arguments.full
        self._transport = transport_for(self.target.parsed.scheme)
        self._budget = Budget(_UNFINISHED_SIZE)
        self._conversations = 0

    async def listen(self) -> Listener:
        """Take the address where clients are to connect."""
        transport = transport_for(self.source.parsed.scheme)
        return await transport.listen(self.source.parsed, self.source.listen_options)

    async def serve(self, listener: Listener) -> None:
        """Join every client to the target, for ever."""
        try:
            async with trio.open_nursery() as nursery:
                for number in itertools.count(1):
                    link = await self._accept(listener)
                    if self._conversations < _MAX_CONVERSATIONS:
                        self._conversations += 1
                        nursery.start_soon(self._join, number, link)
                    else:
                        most = count(_MAX_CONVERSATIONS)
                        self._console.error(f"pyipc: turned away #{number}: {most} connections are passed on already")
                        nursery.start_soon(link.aclose)
        finally:
            with trio.CancelScope(shield=True):
                await listener.aclose()

    async def show(self) -> None:
        """Show what went past, as fast as the output takes it."""
        while (item := await self.backlog.take()) is not None:
            if isinstance(item, Skipped):
                await self._console.record(
                    {"kind": "skipped", "count": item.count}, [(f"... {count(item.count)} frames not shown", "yellow")]
                )
            else:
                entry = item()
                await self._console.record(entry.record, entry.line)

    async def _accept(self, listener: Listener) -> Link:
        while True:
            try:
                return await listener.accept()
            except OSError as error:
                self._console.error(f"pyipc: cannot accept for now: {error.strerror}")
                await trio.sleep(_ACCEPT_PAUSE)

    async def _join(self, number: int, client: Link) -> None:
        """Live through one conversation, and give back its place."""
        try:
            await self._pass_on(number, client)
        finally:
            self._conversations -= 1

    async def _pass_on(self, number: int, client: Link) -> None:
        async with aclosing(client):
            try:
                await check_peer(self.source, client)
            except (pyipc.HandshakeFailed, pyipc.PeerNotAllowed) as error:
                self._console.error(f"pyipc: turned away: {error}")
                return
            try:
                server = await self._connect()
            except pyipc.IPCError as error:
                # It is this client's loss alone: the next one may find the target there.
                self._console.error(f"pyipc: #{number} could not be passed on: {error}")
                return
            framing = self.source.framing
            await Conversation(
                number,
                self.backlog,
                delimiter=framing.delimiter if isinstance(framing, pyipc.Json) else None,
                max_kept_size=_KEPT_SIZE_IN_FULL if self._full else _KEPT_SIZE,
                budget=self._budget,
                full=self._full,
                lossless=self._lossless,
            ).run(client, server)

    async def _connect(self) -> Link:
        with trio.move_on_after(_CONNECT_TIMEOUT):
            link = await self._transport.connect(self.target.parsed, self.target.connect_options)
            await check_peer(self.target, link)
            return link
        raise pyipc.ConnectError(f"no answer from {self.target.parsed.redacted} within {_CONNECT_TIMEOUT:g} s")
