"""What commands have in common on the command line."""

from __future__ import annotations

import argparse
import inspect
import math
from typing import TYPE_CHECKING, Any

import pyipc
from pyipc.cli.exits import ExitCode, Failed
from pyipc.cli.showing.text import json_text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pyipc.cli.showing.console import Console

__all__ = [
    "CommandParser",
    "add_command",
    "add_connect_options",
    "add_framing_options",
    "add_output_options",
    "address",
    "endpoint",
    "outgoing",
    "positive",
    "seconds",
]


class CommandParser(argparse.ArgumentParser):
    """The parser of one command, which takes options before, after and between the other arguments."""

    _intermixing = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse; see `argparse.ArgumentParser.parse_known_intermixed_args`, which calls this again."""
        if self._intermixing:
            return super().parse_known_args(args, namespace)
        self._intermixing = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._intermixing = False


def add_command(
    commands: Any,
    name: str,
    run: Callable[[argparse.Namespace, Console], Awaitable[int]],
    *,
    help: str,
    description: str,
    examples: str,
) -> CommandParser:
    """Add the parser of one command, with the options of every command.

    Args:
        commands: What `argparse.ArgumentParser.add_subparsers` returned.
        name: The command.
        run: What it does; returns the exit status.
        help: Half a line, for the list of commands.
        description: What it does, for its own page.
        examples: Commands to copy, with comments.
    """
    parser: CommandParser = commands.add_parser(
        name,
        help=help,
        description=inspect.cleandoc(description),
        epilog=f"examples:\n{_indented(examples)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    add_output_options(parser)
    return parser


def _indented(text: str) -> str:
    return "\n".join(f"  {line}".rstrip() for line in inspect.cleandoc(text).splitlines())


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """How much is said, and in which form."""
    group = parser.add_argument_group("output")
    group.add_argument("--json", action="store_true", help="write records, one JSON document a line")
    group.add_argument("-q", "--quiet", action="store_true", help="say nothing on stderr but errors")
    group.add_argument("-v", "--verbose", action="count", default=0, help="log what happens to stderr; -vv logs more")


def add_connect_options(parser: argparse.ArgumentParser) -> None:
    """How long to wait for a server."""
    parser.add_argument(
        "--connect-timeout",
        type=seconds,
        default=3.0,
        metavar="SECONDS",
        help="wait so long for the server to be there (default: 3)",
    )


def add_framing_options(parser: argparse.ArgumentParser, *, raw: bool = True) -> None:
    """Who may be on the other side, and how its bytes are divided; without ``raw``, into messages always."""
    group = parser.add_argument_group("connection")
    group.add_argument(
        "--allow-anyone",
        action="store_true",
        help="talk to any user, and over tcp beyond this host, in plain text and with whoever is there",
    )
    form = group.add_mutually_exclusive_group()
    form.add_argument(
        "--delimiter",
        type=_delimiter,
        metavar="BYTE",
        help=r"the byte that ends each message, such as \n (default: \f, as node-ipc has it)",
    )
    if raw:
        form.add_argument("--raw", action="store_true", help='no messages but bytes as they come, as the event "data"')
    else:
        parser.set_defaults(raw=False)


def endpoint(arguments: argparse.Namespace, where: str) -> pyipc.Endpoint:
    """An address with what the options say about it.

    Raises:
        AddressError: It cannot be used like this.
    """
    framing = pyipc.Raw() if arguments.raw else arguments.delimiter or pyipc.Json()
    return pyipc.Endpoint(where, allow=pyipc.ANYONE if arguments.allow_anyone else None, framing=framing)


def outgoing(arguments: argparse.Namespace, value: Any) -> Any:
    """A value as it is sent: with ``--raw``, text as its bytes.

    Raises:
        Failed: It is no text, and only text has bytes.
    """
    if not arguments.raw:
        return value
    if not isinstance(value, str):
        raise Failed(
            ExitCode.USAGE, f"with --raw only text can be sent, and this is JSON: {json_text(value)}; add --text"
        )
    return value.encode("utf-8", "surrogateescape")


# --- types of arguments ---


def address(text: str) -> str:
    """An address that is spelled rightly."""
    try:
        return str(pyipc.parse_address(text))
    except pyipc.AddressError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def seconds(text: str) -> float:
    """A time, which is above zero."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above zero")
    return value


def positive(text: str) -> int:
    """A count of at least one."""
    if not (text.isascii() and text.isdigit() and len(text) < 16 and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above zero")
    return int(text)


def _delimiter(text: str) -> pyipc.Json:
    try:
        return pyipc.Json(text.encode("ascii").decode("unicode_escape").encode("latin-1"))
    except (UnicodeError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a delimiter: {error}") from None
