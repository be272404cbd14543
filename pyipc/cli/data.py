"""JSON in: from arguments, from files, from standard input.

All is read with the operating system's own calls in a thread: one that never ends, as with a pipe
or a terminal, is left to it, and a buffered stream would still be locked by it when the program ends.
"""

from __future__ import annotations

import argparse
import codecs
import json
import os
import sys
from contextlib import ExitStack, aclosing
from typing import TYPE_CHECKING, Any

import trio

from pyipc.cli.exits import ExitCode, Failed
from pyipc.cli.showing.text import printable
from pyipc.cli.strict_json import read_json

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

__all__ = ["add_data_options", "json_argument", "parse_json", "read_values"]

_CHUNK_SIZE = 64 * 1024
_MAX_QUOTED = 60


def add_data_options(parser: argparse.ArgumentParser, *, many: bool = True) -> None:
    """The arguments from which `read_values` takes its values."""
    parser.add_argument(
        "data",
        nargs="*" if many else "?",
        metavar="DATA",
        help="JSON; @FILE reads a file; - reads standard input, and so does no DATA if that is not a terminal",
    )
    parser.add_argument("--text", action="store_true", help="DATA is text and not JSON")
    parser.add_argument("--lines", action="store_true", help="files and standard input have one value a line")


def read_values(arguments: argparse.Namespace) -> AsyncGenerator[Any, None]:
    """The values that the arguments give or name, one after the other, as they become available.

    Close it after use, as with `contextlib.aclosing`. Cancellation loses nothing but what was not
    asked for yet.

    Raises:
        Failed: An argument is not JSON; at once, before anything is read. From the iteration: a
            file or standard input is not JSON, or cannot be read.
    """
    given = arguments.data if isinstance(arguments.data, list) else [arguments.data]
    sources = [_source(each, arguments) for each in given if each is not None]
    if not sources:
        nobody_writes = sys.stdin is None or sys.stdin.isatty()
        sources = [_one(None) if nobody_writes else _source("-", arguments, may_be_empty=True)]
    return _chain(sources)


async def _chain(sources: list[AsyncGenerator[Any, None]]) -> AsyncGenerator[Any, None]:
    for source in sources:
        async with aclosing(source):
            async for value in source:
                yield value


def _source(argument: str, arguments: argparse.Namespace, *, may_be_empty: bool = False) -> AsyncGenerator[Any, None]:
    """The values that one argument gives or names; null for nothing at all where nobody asked for a value."""
    if argument == "-":
        return _parsed(_read_descriptor(0, "standard input", arguments.lines), arguments.text, may_be_empty)
    if argument.startswith("@") and len(argument) > 1:
        return _parsed(_read_file(argument[1:], arguments.lines), arguments.text)
    return _one(argument if arguments.text else parse_json(argument, "the argument"))


async def _one(value: Any) -> AsyncGenerator[Any, None]:
    yield value


async def _parsed(
    texts: AsyncGenerator[tuple[str, str], None], as_text: bool, may_be_empty: bool = False
) -> AsyncGenerator[Any, None]:
    async with aclosing(texts):
        async for text, where in texts:
            if may_be_empty and not text.strip():
                yield None
            else:
                yield text if as_text else parse_json(text, where)


def parse_json(text: str, where: str) -> Any:
    """Read one JSON value, as strictly as the wire does.

    Args:
        text: The JSON.
        where: Where it came from, for people.

    Raises:
        Failed: It is not JSON.
    """
    try:
        return read_json(text)
    except json.JSONDecodeError as error:
        why = f"{error.msg} at line {error.lineno}, column {error.colno}" if text.strip() else "it is empty"
    except RecursionError:
        why = "it is nested too deep"
    except ValueError as error:
        why = str(error)
    quoted = printable(text if len(text) <= _MAX_QUOTED else f"{text[:_MAX_QUOTED]}...")
    hint = ""
    if where == "the argument":
        hint = """; put JSON in single quotes, as '{"n": 1}', so that the shell leaves it alone, """
        hint += "or use --text to send it as it is"
    raise Failed(
        ExitCode.USAGE,
        f"{where} is not JSON: {quoted} ({why}){hint}" if text.strip() else f"{where} is empty; write null for no data",
    )


def json_argument(text: str) -> Any:
    """The value of an option that takes JSON."""
    try:
        return parse_json(text, "it")
    except Failed as failed:
        raise argparse.ArgumentTypeError(failed.sentence) from None


async def _read_file(name: str, lines: bool) -> AsyncGenerator[tuple[str, str], None]:
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOCTTY", 0)
    try:
        # A pipe with a name opens when somebody else opens its other end.
        descriptor = await trio.to_thread.run_sync(os.open, name, flags, abandon_on_cancel=True)
    except OSError as error:
        raise Failed(ExitCode.IO, f"cannot read {printable(name)}: {error.strerror}") from None
    with ExitStack() as stack:
        stack.callback(os.close, descriptor)
        try:
            async with aclosing(_read_descriptor(descriptor, printable(name), lines)) as texts:
                async for text in texts:
                    yield text
        except trio.Cancelled:
            # A thread reads on, and must not find something else under this number. The end of the program, which is
            # near, closes it.
            stack.pop_all()
            raise


async def _read_descriptor(descriptor: int, name: str, lines: bool) -> AsyncGenerator[tuple[str, str], None]:
    """The whole text, or each line that is not blank, with where it stands."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    number = 0
    pieces: list[str] = []
    chunk = b"not the end yet"
    while chunk:
        try:
            chunk = await trio.to_thread.run_sync(os.read, descriptor, _CHUNK_SIZE, abandon_on_cancel=True)
            text = decoder.decode(chunk, final=not chunk)
        except OSError as error:
            raise Failed(ExitCode.IO, f"cannot read {name}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise Failed(ExitCode.USAGE, f"{name} is not UTF-8") from None
        if lines:
            *ends, text = text.split("\n") if chunk else (text, "")
            for end in ends:
                number += 1
                line = "".join((*pieces, end)).removesuffix("\r")
                pieces.clear()
                if line.strip():
                    yield line, f"line {number} of {name}"
        pieces.append(text)
    if not lines:
        yield "".join(pieces), name
