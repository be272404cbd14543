"""Every command that the help and the guides show is one that the parser takes; those of the guide are run."""

from __future__ import annotations

import argparse
import re
import shlex
from typing import TYPE_CHECKING

import pytest
import trio

import pyipc
from pyipc.cli.main import COMMANDS, make_parser
from tests.cli.processes import PATIENCE, ROOT, eventually, run, start

if TYPE_CHECKING:
    from pathlib import Path

PAGES = ("docs/how-to/command-line.md", "docs/reference/command-line.md", "README.md")


def in_help() -> list[str]:
    """The examples in the help of every command."""
    (subparsers,) = [action for action in make_parser()._actions if isinstance(action, argparse._SubParsersAction)]
    examples: list[str] = []
    for name in COMMANDS:
        epilog = subparsers.choices[name].epilog or ""
        examples += [line.strip() for line in epilog.splitlines() if "pyipc " in line]
    return examples


def in_pages() -> list[str]:
    """The commands in the documentation."""
    return [
        line.removeprefix("$ ")
        for page in PAGES
        for block in re.findall(r"^```console\n(.*?)^```$", (ROOT / page).read_text("utf-8"), re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
        if line.startswith("$ ") and re.search(r"\bpyipc (?!-)", line) and "pip install" not in line
    ]


def arguments_in(line: str) -> list[str]:
    """The arguments of ``pyipc`` in a line of shell: before a pipe, a redirection or a comment ends them."""
    words = shlex.split(line[re.search(r"\bpyipc ", line).start() :], comments=True)  # type: ignore[union-attr]
    for index, word in enumerate(words):
        if word in ("|", "||", "<", ">", "&", "&&"):
            return words[1:index]
    return words[1:]


def test_there_are_examples() -> None:
    assert len(in_help()) >= 2 * len(COMMANDS)
    assert len(in_pages()) >= 15
    assert arguments_in("tail | pyipc emit a 'b c' --lines < x  # y") == ["emit", "a", "b c", "--lines"]


@pytest.mark.parametrize("line", [*in_help(), *in_pages()])
def test_an_example_is_taken(line: str) -> None:
    assert callable(make_parser().parse_args(arguments_in(line)).run)


#: Those that end by themselves; the others are run in tests of their own.
OF_CLIENTS = sorted(
    line for line in {*in_help(), *in_pages()} if arguments_in(line)[0] in ("emit", "request", "listen")
)


@pytest.mark.parametrize("line", OF_CLIENTS)
async def test_an_example_of_a_client_works(line: str, address: str, tmp_path: Path) -> None:
    command, *arguments = arguments_in(line)
    (tmp_path / "page.json").write_text('{"page": 1}', "utf-8")
    assert arguments[0] == "world"
    arguments[0] = address
    server = pyipc.Server(address)
    heard: list[object] = []
    server.on("**", lambda message: heard.append(message.data))
    with trio.fail_after(2 * PATIENCE):
        async with server:
            if command != "listen":
                result = await run(command, *arguments, input="[1, 2]\n", cwd=tmp_path)
                assert (result.status, result.err) == (0, "")
                assert heard
                return
            async with start(command, *arguments, cwd=tmp_path) as program:
                await eventually(lambda: server.connections, "the connection")
                for event in ("news", "orders.new", "done"):
                    await server.broadcast(event, event)
                await program.line("done" if "news" not in arguments else "orders.new")
