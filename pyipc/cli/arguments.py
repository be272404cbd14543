"""What commands have in common on the command line."""

from __future__ import annotations

import argparse
import inspect
import math
import re
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
    "add_command_group",
    "add_connect_options",
    "add_framing_options",
    "add_output_options",
    "add_tls_options",
    "address",
    "count",
    "endpoint",
    "outgoing",
    "positive",
    "seconds",
]


class CommandParser(argparse.ArgumentParser):
    """The parser of one command, which takes options before, after and between the other arguments."""

    #: Whether it has commands of its own, each with a parser that does this.
    has_commands: bool = False
    #: What is to be said of an option that it does not know.
    hint: str = ""

    _intermixing = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse; see `argparse.ArgumentParser.parse_known_intermixed_args`, which calls this again."""
        if self._intermixing or self.has_commands:
            return super().parse_known_args(args, namespace)
        self._intermixing = True
        try:
            found, unknown = self.parse_known_intermixed_args(args, namespace)
        finally:
            self._intermixing = False
        if unknown and self.hint:
            self.error(f"unrecognized arguments: {' '.join(unknown)}; {self.hint}")
        return found, unknown


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
    parser = _add_parser(commands, name, help, description, examples)
    parser.set_defaults(run=run)
    add_output_options(parser)
    return parser


def add_command_group(commands: Any, name: str, *, help: str, description: str, examples: str) -> Any:
    """Add a command that has commands of its own, and return what `add_command` adds those to.

    The arguments are those of `add_command`.
    """
    parser = _add_parser(commands, name, help, description, examples)
    parser.has_commands = True
    return parser.add_subparsers(title="commands", metavar="COMMAND", required=True)


def _add_parser(commands: Any, name: str, help: str, description: str, examples: str) -> CommandParser:
    parser: CommandParser = commands.add_parser(
        name,
        help=help,
        description=inspect.cleandoc(description),
        epilog=f"examples:\n{_indented(examples)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
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
    who = group.add_mutually_exclusive_group()
    who.add_argument(
        "--allow",
        type=_allowed,
        action="append",
        metavar="WHO",
        help="talk to nobody else: a name in a certificate, its fingerprint as sha256:..., or the number of a user; "
        "may be repeated",
    )
    who.add_argument(
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


def add_tls_options(parser: argparse.ArgumentParser, *, listens: bool = False, connects: bool = False) -> None:
    """Certificates, for an address where the command listens, or to which it connects, or both."""
    group = parser.add_argument_group("tls")
    group.add_argument("--cert", metavar="FILE", help="our certificate, in PEM form")
    group.add_argument("--key", metavar="FILE", help="its private key, unless that is in the same file")
    if connects:
        trust = group.add_mutually_exclusive_group()
        trust.add_argument("--ca", metavar="FILE", help="trust servers of this CA (default: those of the system)")
        trust.add_argument("--insecure", action="store_true", help="trust any server, even one that is an impostor")
    if listens:
        group.add_argument("--client-ca", metavar="FILE", help="want a certificate of this CA from every client")


def endpoint(arguments: argparse.Namespace, where: str, *others: str, listens: bool = False) -> pyipc.Endpoint:
    """An address with what the options say about it.

    Args:
        arguments: With those of `add_framing_options` and `add_tls_options`.
        where: The address.
        others: Further ones of the command; what is said about TLS may be meant for them alone.
        listens: Whether the command listens there.

    Raises:
        AddressError: It cannot be used like this.
        Failed: So little is said about TLS that it means nothing.
    """
    framing = pyipc.Raw() if arguments.raw else arguments.delimiter or pyipc.Json()
    allow = pyipc.ANYONE if arguments.allow_anyone else None if arguments.allow is None else frozenset(arguments.allow)
    is_meant = _takes_tls(where) or not any(map(_takes_tls, others))
    tls = _tls(arguments) if is_meant else None
    if listens and where.startswith("tls:") and (tls is None or tls.cert is None):
        raise Failed(
            ExitCode.USAGE,
            f"{where} needs --cert FILE, the server's certificate, and --key FILE, its key; "
            "'pyipc cert server' makes both",
        )
    return pyipc.Endpoint(where, allow=allow, framing=framing, tls=tls)


def _takes_tls(where: str) -> bool:
    return where.partition(":")[0] in ("tls", "fd", "systemd")


def _tls(arguments: argparse.Namespace) -> pyipc.TLS | None:
    """What the options of `add_tls_options` say, if they say anything.

    Raises:
        Failed: They say half of it.
    """
    for name, what in (("key", "the certificate that it is the key of"), ("client_ca", "our own certificate")):
        if arguments.cert is None and getattr(arguments, name, None) is not None:
            raise Failed(ExitCode.USAGE, f"--{name.replace('_', '-')} needs --cert as well, {what}")
    names = ("cert", "key", "ca", "client_ca", "insecure")
    given = {name: value for name in names if (value := getattr(arguments, name, None))}
    return pyipc.TLS(**given) if given else None


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


def count(text: str) -> int:
    """A count, which may be zero."""
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def _allowed(text: str) -> int | str:
    """A user id, or what a certificate is known by."""
    if text.isascii() and text.isdigit():
        return int(text)
    if text.startswith("sha256:") and not re.fullmatch("sha256:[0-9a-f]{64}", text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a fingerprint; write sha256: and 64 of the digits 0 to 9 and a to f, as "
            "'pyipc cert show' does"
        )
    return text


def _delimiter(text: str) -> pyipc.Json:
    try:
        return pyipc.Json(text.encode("ascii").decode("unicode_escape").encode("latin-1"))
    except (UnicodeError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a delimiter: {error}") from None
