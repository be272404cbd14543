"""Where a command writes: lines for people or records for programs, and notes beside them."""

from __future__ import annotations

import io
import os
import sys
from typing import IO, TYPE_CHECKING, Any, TypeAlias, cast

from pyipc.cli.showing.output import Output
from pyipc.cli.showing.text import json_text, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import rich.console

__all__ = ["Console", "Line"]

#: A line for people: text, or pieces of text with a style of rich each; the style ``"json"`` colors JSON.
#: Line ends in it are escaped, but for those of `pyipc.cli.showing.text.Lines`.
Line: TypeAlias = "str | Sequence[tuple[str, str]]"

# Coloring takes a millisecond for a text of this size, and nobody reads a longer one by its colors.
_MAX_COLORED = 4_096


class Console:
    """What a command says.

    Args:
        json: Whether records are written as JSON, one a line, instead of as text.
        quiet: Whether notes are left out.
        on_failure: Called once if the output cannot be written any more.
    """

    def __init__(self, *, json: bool, quiet: bool, on_failure: Callable[[OSError], object]) -> None:
        self.json = json
        self._quiet = quiet
        self.output: Output = Output(sys.stdout, on_failure)
        # Who does not read the errors may still read the output.
        self.errors: Output = Output(sys.stderr, lambda error: None)
        self._left_out = 0
        self._rich: rich.console.Console | None = None
        self._has_rich = True

    @property
    def is_terminal(self) -> bool:
        """Whether the output goes to a terminal, where somebody looks at it."""
        return self.output.is_terminal

    async def line(self, line: Line) -> None:
        """Write one line; control characters in it are escaped.

        Cancellation: a cancelled call has written nothing. Waits only while much is pending that
        the reader of the output does not take.
        """
        await self.output.wait_for_room()
        if isinstance(line, str):
            self.output.put(printable(line) + "\n")
            return
        pieces = [(printable(text), style) for text, style in line]
        terminal = self.rich()
        if terminal is None or sum(len(text) for text, _ in pieces) > _MAX_COLORED:
            self.output.put("".join(text for text, _ in pieces) + "\n")
        else:
            _print_colored(terminal, pieces)

    async def record(self, record: dict[str, Any], line: Line) -> None:
        """Write one fact: with ``--json`` as one line of JSON, else as a line for people.

        Cancellation: as `line`.
        """
        if not self.json:
            await self.line(line)
            return
        await self.output.wait_for_room()
        text = json_text(record)
        try:
            text.encode(self.output.encoding)
        except UnicodeEncodeError:
            text = json_text(record, ascii_only=True)
        self.output.put(text + "\n")

    def note(self, text: str) -> None:
        """Tell people something beside the output, on stderr, unless they want it quiet."""
        if not self._quiet:
            self.error(text)

    def error(self, text: str) -> None:
        """Write a line on stderr; control characters in it are escaped, as in `line`.

        While much is pending that nobody reads, lines are left out, and then it is said how many: no
        peer can fill the memory by causing warnings.
        """
        said = _left_out(self._left_out) if self._left_out else ""
        if self.errors.offer(f"{said}{printable(text)}\n"):
            self._left_out = 0
        else:
            self._left_out += 1

    async def drain(self) -> None:
        """Wait until everything is written, and say how much of stderr was left out.

        Cancellation: what is pending stays so.
        """
        await self.output.drain()
        await self.errors.drain()
        if self._left_out:
            self.errors.put(_left_out(self._left_out))
            self._left_out = 0
            await self.errors.drain()

    def rich(self) -> rich.console.Console | None:
        """rich's console, for tables and colors, where it is installed and somebody looks.

        What is printed there is pending like all else, so it blocks nobody; `line` and `drain`
        wait for room. Use it from the main thread only: no ``auto_refresh``.
        """
        if (
            self.json
            or not self.is_terminal
            or not self._has_rich
            or os.environ.get("NO_COLOR")
            or os.environ.get("TERM") == "dumb"
        ):
            return None
        if self._rich is None:
            try:
                from rich.console import Console as RichConsole
            except ImportError:
                self._has_rich = False  # looking for it again takes long
                return None
            self._rich = RichConsole(
                file=cast("IO[str]", _Terminal(self.output)),
                force_terminal=True,
                legacy_windows=False,
                markup=False,
                emoji=False,
                highlight=False,
            )
        return self._rich


def _left_out(count: int) -> str:
    return f"pyipc: {count:,} lines were left out here, as nobody read them\n"


def _print_colored(terminal: rich.console.Console, pieces: Sequence[tuple[str, str]]) -> None:
    from rich.highlighter import JSONHighlighter
    from rich.text import Text

    color_json = JSONHighlighter()
    whole = Text()
    for text, style in pieces:
        whole.append_text(color_json(Text(text)) if style == "json" else Text(text, style))
    terminal.print(whole, soft_wrap=True)


class _Terminal(io.TextIOBase):
    """The terminal, as a file for rich."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def write(self, text: str) -> int:
        self._output.put(text)
        return len(text)

    def isatty(self) -> bool:
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]  # a plain attribute in the stubs
        return self._output.encoding
