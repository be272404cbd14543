"""``pyipc request``: ask, and show the answers."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import trio

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
        "request",
        run,
        help="ask a server, and show its answer",
        description="""
            Ask a server and show its answer as JSON. With --lines, ask once for every line of the input, several at a
            time with --concurrency; the answers come in the order of the lines.
        """,
        examples="""
            pyipc request world greet '{"name": "Ada"}'
            pyipc request world time                       # without data
            pyipc request world add --lines < sums.json    # one question a line
            pyipc request world add '[1, 2]' --json --timeout 5
        """,
    )
    parser.add_argument("address", type=common.address, metavar="ADDRESS", help="where the server is")
    parser.add_argument("event", metavar="EVENT", help="the name of the request")
    add_data_options(parser, many=False)
    parser.add_argument(
        "--concurrency", type=common.positive, default=1, metavar="N", help="ask so many at a time (default: 1)"
    )
    parser.add_argument(
        "--timeout",
        type=common.seconds,
        default=30.0,
        metavar="SECONDS",
        help="wait so long for each answer (default: 30)",
    )
    common.add_connect_options(parser)
    common.add_framing_options(parser, raw=False)
    common.add_tls_options(parser, connects=True)


async def run(arguments: argparse.Namespace, console: Console) -> int:
    """Ask with what the arguments give, and show the answers in order.

    Cancellation: closes at once; the server is told and cancels its handlers.
    """
    async with (
        aclosing(read_values(arguments)) as values,
        pyipc.connect(
            common.endpoint(arguments, arguments.address), connect_timeout=arguments.connect_timeout
        ) as client,
    ):
        asking = _Asking(client, arguments, console)
        places = trio.Semaphore(arguments.concurrency)
        my_turn = trio.Event()
        my_turn.set()
        with interruptible():
            async with trio.open_nursery() as nursery:
                async for value in values:
                    await places.acquire()
                    next_turn = trio.Event()
                    nursery.start_soon(asking.ask, value, places, my_turn, next_turn)
                    my_turn = next_turn
    return asking.status


class _Asking:
    """Asks, each question in a task of its own, and shows the answers in order."""

    def __init__(self, client: pyipc.Client, arguments: argparse.Namespace, console: Console) -> None:
        self._client = client
        self._event: str = arguments.event
        self._timeout: float = arguments.timeout
        self._console = console
        self.status = ExitCode.OK

    async def ask(self, value: Any, places: trio.Semaphore, my_turn: trio.Event, next_turn: trio.Event) -> None:
        error: pyipc.RequestError | None = None
        answer = None
        try:
            answer = await self._client.request(self._event, value, timeout=self._timeout)
        except pyipc.RequestError as caught:
            error = caught
        await my_turn.wait()
        await (self._show(answer) if error is None else self._show_error(error))
        next_turn.set()
        places.release()

    async def _show(self, answer: Any) -> None:
        record = {"kind": "reply", "event": self._event, **answer_record(answer)}
        await self._console.record(record, answer_pieces(answer, indent=2 if self._console.is_terminal else None))

    async def _show_error(self, error: pyipc.RequestError) -> None:
        status = exit_code_of(error)
        if self.status is ExitCode.OK:
            self.status = status
        code, message, data = words_of(error)
        if self._console.json:
            record = {"kind": "error", "event": self._event, "code": code, "message": message, "data": data}
            await self._console.record(record, "")
        else:
            self._console.error(f"pyipc: {self._event!r} has no answer: {message} ({code})")
