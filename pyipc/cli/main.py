"""The command line: finds the command, runs it, and turns how it ended into an exit status."""

from __future__ import annotations

import argparse
import contextlib
import errno
import importlib
import io
import logging
import os
import platform
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import trio

import pyipc
from pyipc.cli.arguments import CommandParser
from pyipc.cli.exits import ExitCode, Failed, exit_code_of
from pyipc.cli.interruption import Interrupted, interruptible
from pyipc.cli.showing.console import Console
from pyipc.cli.showing.text import Lines, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["COMMANDS", "main", "make_parser"]

#: The commands in the order in which ``--help`` shows them: modules of `pyipc.cli.commands`.
COMMANDS = (
    "serve",
    "listen",
    "emit",
    "request",
    "stream",
    "broadcast",
    "subscribe",
    "publish",
    "tap",
    "bench",
    "doctor",
    "cert",
    "run",
)

_DESCRIPTION = """\
Talk to programs over sockets: serve, listen, send and ask, with JSON in and out.

An ADDRESS is a name such as 'world', which means a socket that only you can reach, or one of
unix:/path/to.sock, tcp://127.0.0.1:8000, tls://example.com:8000 and node-ipc:name.
"""

# Seconds that what is still to be written is given at the end, where nobody may read it.
_LAST_WORDS_TIMEOUT = 1.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``pyipc`` with the arguments of the process, or with these; return the exit status."""
    _occupy_standard_descriptors()
    parser = make_parser()
    words = io.StringIO()
    try:
        # argparse itself would not notice that its words cannot be written.
        with contextlib.redirect_stdout(words):
            arguments = parser.parse_args(argv)
    except SystemExit as exit:
        return _tell(words.getvalue()) or (exit.code if isinstance(exit.code, int) else ExitCode.OK)
    if arguments.command is None:
        parser.print_help(sys.stderr)
        return ExitCode.USAGE
    try:
        return trio.run(_supervise, arguments)
    except* KeyboardInterrupt:
        pass  # one more signal than those that `interruptible` blocks wait for
    return ExitCode.INTERRUPTED


def make_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    statuses = "\n".join(f"  {code:<5}{code.meaning}" for code in ExitCode)
    parser = argparse.ArgumentParser(
        prog="pyipc",
        description=_DESCRIPTION,
        epilog=f"exit status:\n{statuses}\n\n'pyipc COMMAND --help' has examples.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    version = f"pyipc {pyipc.__version__} (Python {platform.python_version()})"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", parser_class=CommandParser)
    for name in COMMANDS:
        importlib.import_module(f"pyipc.cli.commands.{name}").add(commands)
    return parser


def _occupy_standard_descriptors() -> None:
    """Where the program was started without one of them, keep a socket from getting its number."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)


def _tell(words: str) -> int:
    """Write what was asked for before there is a console, as help is; return how that went."""
    try:
        if sys.stdout is not None:
            sys.stdout.write(words)
            sys.stdout.flush()
    except OSError as error:
        # The interpreter would try again at its end, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _after_failure(error)
    return ExitCode.OK


async def _supervise(arguments: argparse.Namespace) -> int:
    """Run a command with a console around it."""
    failures: list[OSError] = []
    command = trio.CancelScope()

    def on_failure(error: OSError) -> None:
        failures.append(error)
        command.cancel()

    console = Console(json=arguments.json, quiet=arguments.quiet, on_failure=on_failure)
    _log_to(console, arguments)
    status = int(ExitCode.OK)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(console.errors.run)
        nursery.start_soon(console.output.run)
        nursery.start_soon(console.output.watch)
        try:
            with command, interruptible():
                status = await _run(arguments, console)
                await console.drain()
        except Interrupted as interrupted:
            status = 128 + interrupted.signal
        with trio.move_on_after(_LAST_WORDS_TIMEOUT):
            await console.drain()
        nursery.cancel_scope.cancel()
    return status if not failures else _after_failure(failures[0])


def _after_failure(error: OSError) -> int:
    """The exit status when the output could not be written."""
    # Windows has another name for a pipe that nobody reads.
    if isinstance(error, BrokenPipeError) or (sys.platform == "win32" and error.errno == errno.EINVAL):
        return ExitCode.BROKEN_PIPE
    with contextlib.suppress(OSError):
        sys.stderr.write(f"pyipc: the output cannot be written: {error.strerror}\n")
    return ExitCode.IO


async def _run(arguments: argparse.Namespace, console: Console) -> int:
    """Run a command and tell its errors as sentences. What is a bug stays an exception."""
    try:
        try:
            status: int = await arguments.run(arguments, console)
        except BaseExceptionGroup as group:
            raise _only_expected(group) from None
    except Failed as failed:
        console.error(f"pyipc: {failed.sentence}")
        return failed.code
    except pyipc.IPCError as error:
        console.error(f"pyipc: {error}{_hint(error)}")
        return exit_code_of(error)
    return status


def _only_expected(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error of a group from a command's nursery, if all in it are of the kinds that are told."""
    _, bugs = group.split((Failed, pyipc.IPCError, Interrupted))
    if bugs is not None:
        return group
    first: BaseException = group
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first


def _hint(error: pyipc.IPCError) -> str:
    """What the library's own sentence cannot know."""
    match error:
        case pyipc.PeerNotAllowed():
            return " (here: --allow, or --allow-anyone)"
        case pyipc.InsecureAddress():
            return " (here: --allow-anyone)"
        case pyipc.CertificateFileError():
            return " (here: --cert, --key, --ca and --client-ca)"
        case pyipc.HandshakeFailed(code="unknown-ca" | "certificate-required" | "bad-certificate"):
            return " (here: --ca, or --cert and --key)"
    return ""


class _LogHandler(logging.Handler):
    """Log records as lines of the console, which a blocked stderr does not hold up."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        self._console.error(Lines(self.format(record)))


class LineFormatter(logging.Formatter):
    """Each message on one line, whatever a peer put into it; a traceback is indented, so that it is nothing else."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line without the traceback."""
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        """The traceback."""
        return textwrap.indent(super().formatException(ei), "    ")


def _log_to(console: Console, arguments: argparse.Namespace) -> None:
    """Show what the library logs: warnings always, more with ``-v``, errors alone with ``--quiet``."""
    handler = _LogHandler(console)
    logger = logging.getLogger("pyipc")
    logger.addHandler(handler)
    if arguments.verbose:
        logger.setLevel(logging.INFO if arguments.verbose == 1 else logging.DEBUG)
        handler.setFormatter(LineFormatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    else:
        logger.setLevel(logging.ERROR if arguments.quiet else logging.WARNING)
        handler.setFormatter(LineFormatter("pyipc: %(message)s"))
