"""The help and the pages against the program.

Every command that they show is one that the parser takes, and those of clients are run. The reference
has all options, all records and all findings that there are, and no others.
"""

from __future__ import annotations

import argparse
import ast
import datetime
import json
import re
import shlex
from typing import TYPE_CHECKING, Any

import pytest
import trio

import pyipc
from pyipc.cli.main import COMMANDS, make_parser
from pyipc.cli.tapping.cutter import Piece
from pyipc.cli.tapping.relay import Direction
from pyipc.cli.tapping.transcript import Moment, Transcript
from tests.cli.processes import PATIENCE, ROOT, eventually, run, start

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

PAGES = ("docs/how-to/command-line.md", "docs/reference/command-line.md", "docs/how-to/tls.md", "README.md")


def commands_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of the commands that a command has."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def parsers() -> dict[str, argparse.ArgumentParser]:
    """The parser of each command by its name, such as ``"cert ca"``, and of ``pyipc`` itself."""
    whole = make_parser()
    found = {"pyipc": whole}
    for name, parser in commands_of(whole).items():
        found[name] = parser
        found |= {f"{name} {inner}": each for inner, each in commands_of(parser).items()}
    assert set(COMMANDS) < found.keys()
    return found


def in_help() -> list[str]:
    """The examples in the help of every command."""
    return [
        line.strip()
        for name, parser in parsers().items()
        if name != "pyipc"
        for line in (parser.epilog or "").splitlines()
        if "pyipc " in line
    ]


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
    try:
        make_parser().parse_args(arguments_in(line))
    except SystemExit:
        pytest.fail(f"the parser refuses: {line}")


#: Those that end by themselves; the others are run in tests of their own.
OF_CLIENTS = sorted(
    line
    for line in {*in_help(), *in_pages()}
    if arguments_in(line)[0] in ("emit", "request", "stream", "listen") and "tls://" not in line
)


@pytest.mark.parametrize("line", OF_CLIENTS)
async def test_an_example_of_a_client_works(line: str, address: str, tmp_path: Path) -> None:
    command, *arguments = arguments_in(line)
    (tmp_path / "page.json").write_text('{"page": 1}', "utf-8")
    (tmp_path / "cat.jpg").write_bytes(b"\xff\xd8\f\x01")
    assert arguments[0] == "world"
    arguments[0] = address
    server = pyipc.Server(address)
    heard: list[object] = []
    server.on("**", lambda message: heard.append(message.data))

    async def stream(message: pyipc.Message[object]) -> AsyncIterator[int]:
        heard.append(message.data)
        for number in range(20):
            yield number

    if command == "stream":
        server.off("**")
        server.on("**", stream)
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


# --- the reference ---

REFERENCE = (ROOT / "docs/reference/command-line.md").read_text("utf-8")
SOURCES = [ast.parse(path.read_text("utf-8"), str(path)) for path in sorted((ROOT / "pyipc/cli").rglob("*.py"))]


def table(heading: str) -> list[list[str]]:
    """The rows of the first table below a heading, without its head."""
    section = REFERENCE.split(f"# {heading}\n", 1)[1].split("\n#", 1)[0]
    rows = [line.strip("|").split(" | ") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def quoted(cell: str) -> set[str]:
    """What stands in code in a cell."""
    return set(re.findall(r"`([^`]+)`", cell))


def by_name(heading: str) -> dict[str, set[str]]:
    """For each name in the first column, what stands in the last."""
    return {name: quoted(row[-1]) for row in table(heading) for name in quoted(row[0])}


def takers(cell: str) -> set[str]:
    """The commands that a cell such as "all but `a`" or "`a`, `b`" means."""
    named = quoted(cell)
    if not cell.startswith("all"):
        return named
    every = {name for name, parser in parsers().items() if not commands_of(parser)}
    return {name for name in every if name.split()[0] not in named} if "but" in cell else every | named


def test_the_reference_has_every_option_of_every_command_and_no_others() -> None:
    written = set()
    for options, commands, _ in table("Options"):
        names = takers(commands)
        written |= {(name, option.split()[0]) for name in names for option in quoted(options)}
    taken = {
        (name, option)
        for name, parser in parsers().items()
        for action in parser._actions
        for option in action.option_strings
    }
    assert written == taken


def strings_in(node: ast.AST) -> set[str]:
    return {each.value for each in ast.walk(node) if isinstance(each, ast.Constant) and isinstance(each.value, str)}


def kinds_in_source() -> Iterator[str]:
    """Whatever is written for ``"kind"``: in a record, in a variable of that name, as an argument of that name."""
    nodes = [node for tree in SOURCES for node in ast.walk(tree)]
    positions: dict[str, int] = {}
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names = [each.arg for each in node.args.args if each.arg != "self"]
            if "kind" in names:
                positions[node.name] = names.index("kind")
    for node in nodes:
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "kind":
                    assert isinstance(value, ast.Constant) or (isinstance(value, ast.Name) and value.id == "kind")
                    yield from strings_in(value)
        elif isinstance(node, ast.Assign) and any(
            isinstance(each, ast.Name) and each.id == "kind" for each in node.targets
        ):
            yield from strings_in(node.value)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in positions:
            for value in node.args[positions[node.func.attr] :][:1]:
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    yield value.value


def tapped(name: str, data: Any) -> dict[str, Any]:
    """The record of ``tap`` for a frame, which may be the answer to a request seen before."""
    transcript = Transcript(1, full=False)

    def record(direction: Direction, name: str, data: Any) -> dict[str, Any]:
        frame = json.dumps({"type": name, "data": data}).encode()
        moment = Moment(datetime.datetime.now(datetime.UTC), 0.0)
        return transcript.frame(moment, direction, Piece(frame, len(frame))).record

    record(Direction.TO_SERVER, "pyipc.request", {"call": 1, "event": "greet"})
    return record(Direction.TO_SERVER if name == "pyipc.cancel" else Direction.TO_CLIENT, name, data)


def control_frames() -> set[str]:
    """The names of pyipc's own frames, from the source of the protocol, and one that it does not have."""
    sources = [path.read_text("utf-8") for path in sorted((ROOT / "pyipc/protocol").glob("*.py"))]
    return {name for source in sources for name in re.findall(r'"(pyipc\.[a-z]+)"[,}\]\n]', source)} | {"pyipc.other"}


CONTROL_FRAMES = sorted(control_frames())


def test_the_reference_has_every_kind_of_record_and_no_others() -> None:
    written = set(by_name("Output")) | set(by_name("The records of `tap`"))
    assert written == {*kinds_in_source(), *(tapped(name, {"call": 1})["kind"] for name in CONTROL_FRAMES)}


def test_the_reference_has_every_field_of_the_records_that_the_source_spells_out() -> None:
    words = quoted(REFERENCE.split("\n## Output\n", 1)[1])
    for tree in SOURCES:
        for node in ast.walk(tree):
            if isinstance(node, ast.Dict):
                keys = {key.value for key in node.keys if isinstance(key, ast.Constant)}
                assert "kind" not in keys or keys <= words, keys - words


@pytest.mark.parametrize("name", CONTROL_FRAMES)
def test_the_reference_has_every_field_of_a_frame(name: str) -> None:
    record = tapped(name, {"call": 1, "event": "greet", "code": "failed", "message": "no", "data": None})
    fields = by_name("The records of `tap`")[record["kind"]]
    assert record.keys() <= fields | {"kind", "time", "connection", "direction", "size"}
    assert record["event"] == name


def checks_in_source() -> set[str]:
    """The names of all checks of ``doctor``, from where it makes its findings."""
    makers = {"ok", "warning", "problem", "Finding"}
    found = set()
    for tree in SOURCES:
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and makers & {
                each.id for each in ast.walk(node.func) if isinstance(each, ast.Name)
            }:
                check = node.args[1 if isinstance(node.func, ast.Name) and node.func.id == "Finding" else 0]
                found |= strings_in(check)
    return found


def test_the_reference_has_every_check_of_doctor_and_no_others() -> None:
    assert set(by_name("The records of `doctor`")) == checks_in_source()


async def test_the_reference_has_every_field_of_a_finding(address: str) -> None:
    facts = by_name("The records of `doctor`")
    common = by_name("Output")["finding"] | {"kind"}
    checks = set()
    with trio.fail_after(2 * PATIENCE):
        async with pyipc.Server(address):
            result = await run("doctor", address, "tcp://127.0.0.1:0", "tcp://0.0.0.0:0", "no:such:address", "--json")
    for finding in map(json.loads, result.lines):
        checks.add(finding["check"])
        assert finding.keys() <= common | facts[finding["check"]], finding
    assert checks >= {"place", "peer", "protocol", "connect", "allow", "address"}
