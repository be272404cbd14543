"""``pyipc run``: a cluster in the foreground."""

from __future__ import annotations

import argparse
import re
import sys
from typing import TYPE_CHECKING, Any

from pyipc.cli import arguments as common
from pyipc.cli.exits import ExitCode, Failed

if TYPE_CHECKING:
    from pyipc import cluster
    from pyipc.cli.showing.console import Console

__all__ = ["add", "run"]

_UNITS = {"": 1, "K": 1_000, "M": 1_000_000, "G": 1_000_000_000, "KI": 1 << 10, "MI": 1 << 20, "GI": 1 << 30}

# What is a setting of the cluster under the name of its option.
_SETTINGS = (
    "ready_timeout",
    "drain_timeout",
    "kill_timeout",
    "hang_timeout",
    "restart",
    "max_restarts",
    "cwd",
)


def add(commands: Any) -> None:
    """Add the command to the command line."""
    parser = common.add_command(
        commands,
        "run",
        run,
        help="run workers, keep them alive and reload them",
        description="""
            Start workers, and a new one for each that dies. Every step is told on stderr, what workers print goes where
            it always goes. TARGET is an async function that takes a worker, as package.module:function, found in the
            present directory too; or the path of a script, which Node runs if it ends in .js, .cjs or .mjs.

            Signals: INT (Ctrl-C) and TERM let the workers finish and leave, and the second one ends them at once. HUP
            starts new ones beside the old, which leave when all are ready. TTIN and TTOU: one more, one less. USR1
            shows how each of them is.
        """,
        examples="""
            pyipc run app:main --workers 4                # else one for each CPU
            pyipc run server.js --workers 2 -- --fast     # a script, with an argument of its own
            pyipc run app:main --reload                   # new workers whenever a source file changes
            pyipc run app:main --json > steps.jsonl       # for another program
        """,
    )
    parser.add_argument("target", metavar="TARGET", help="what each worker runs")
    # Without a default it would be named among those that are missing.
    parser.add_argument("args", nargs="*", default=[], metavar="ARG", help="arguments for it")
    parser.hint = "options of the target come after --, as in: pyipc run worker.py -- --fast"
    parser.add_argument(
        "--workers", type=_workers, default="auto", metavar="N", help="how many, or 'auto', one for each CPU (default)"
    )
    parser.add_argument("--role", default="", help="what they are for, by which others can address them")
    parser.add_argument(
        "--env", type=_variable, action="append", metavar="NAME=VALUE", help="set this in their environment; repeatable"
    )
    parser.add_argument("--cwd", metavar="DIR", help="the directory that they run in")
    parser.add_argument(
        "--policy",
        choices=("round-robin", "least-loaded", "sticky", "shared", "reuse-port"),
        default="round-robin",
        help="which of them gets a connection to an address that they share (default: round-robin)",
    )

    life = parser.add_argument_group("their life")
    life.add_argument("--wait-ready", action="store_true", help="one is ready only when it calls worker.ready()")
    life.add_argument(
        "--ready-timeout", type=common.seconds, metavar="SECONDS", help="it must be ready after so long (default: 30)"
    )
    life.add_argument(
        "--drain-timeout",
        type=common.seconds,
        metavar="SECONDS",
        help="one that is to leave may take so long to finish (default: 30)",
    )
    life.add_argument(
        "--kill-timeout", type=common.seconds, metavar="SECONDS", help="from SIGTERM to SIGKILL (default: 5)"
    )
    life.add_argument(
        "--hang-timeout",
        type=common.seconds,
        metavar="SECONDS",
        help="one of which nothing is heard for so long is replaced (default: 30)",
    )
    life.add_argument(
        "--restart",
        choices=("always", "on-failure", "never"),
        help="after which ends that nobody asked for one is started again (default: always)",
    )
    life.add_argument(
        "--max-restarts",
        type=common.count,
        metavar="N",
        help="within a minute; one more, and it has failed (default: 10); 0 for none",
    )
    life.add_argument("--max-memory", type=_size, metavar="SIZE", help="replace one that is larger, such as 200M")
    life.add_argument("--max-age", type=common.seconds, metavar="SECONDS", help="replace one that is older")

    reload = parser.add_argument_group("reload")
    reload.add_argument("--reload", action="store_true", help="reload when source files change")
    reload.add_argument(
        "--reload-dir", action="append", metavar="DIR", help="where they are (default: here); may be repeated"
    )
    reload.add_argument(
        "--reload-include",
        action="append",
        metavar="PATTERN",
        help="their names (default: *.py, or of a Node program *.js, *.cjs and *.mjs); may be repeated",
    )


async def run(arguments: argparse.Namespace, console: Console) -> int:
    """Run the cluster until its workers have returned or a signal comes.

    Cancellation: the workers finish and leave.
    """
    # Every command is added to the parser, and this one alone needs all of the cluster.
    from pyipc import cluster

    if not arguments.reload and (arguments.reload_dir or arguments.reload_include):
        raise Failed(ExitCode.USAGE, "--reload-dir and --reload-include need --reload as well")
    try:
        sources = (
            cluster.SourceFiles(arguments.reload_dir or (), arguments.reload_include or (), target=arguments.target)
            if arguments.reload
            else None
        )
        runner = cluster.Runner(
            arguments.target,
            workers=arguments.workers,
            role=arguments.role,
            sources=sources,
            reporter=_ConsoleReporter(console),
            policy=arguments.policy,
            **_settings(arguments),
        )
        return await runner.run()
    except cluster.ClusterError as error:
        raise Failed(ExitCode.USAGE, str(error)) from error


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings that were given."""
    values: dict[str, Any] = {name: value for name in _SETTINGS if (value := getattr(arguments, name)) is not None}
    values["args"] = arguments.args
    values["wait_ready"] = arguments.wait_ready
    values["max_memory_size"] = arguments.max_memory
    values["max_age_timeout"] = arguments.max_age
    values["env"] = dict(arguments.env or ())
    if arguments.json:
        values["stdout"] = sys.__stderr__.fileno() if sys.__stderr__ is not None else 2
    return values


class _ConsoleReporter:
    """Writes records to the output, or lines beside it: what workers print is the output then."""

    def __init__(self, console: Console) -> None:
        self._console = console

    async def report(self, step: cluster.Step) -> None:
        """Write one step.

        Cancellation: nothing was written.
        """
        from pyipc.cluster import step_line

        if self._console.json:
            record = {"kind": "step", "step": step.kind, "time": step.time.isoformat(timespec="milliseconds")}
            await self._console.record({**record, "problem": step.is_problem, **step.facts()}, "")
        elif step.is_problem:
            self._console.error(step_line(step))
        else:
            self._console.note(step_line(step))


# --- types of arguments ---


def _workers(text: str) -> int | str:
    """How many, or as many as there are CPUs."""
    return text if text == "auto" else common.positive(text)


def _variable(text: str) -> tuple[str, str]:
    """A variable for the environment."""
    name, separator, value = text.partition("=")
    if not name or not separator or "\0" in text:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def _size(text: str) -> int:
    """A number of bytes, with a unit perhaps."""
    found = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)([KMG]I?|)B?", text, re.IGNORECASE | re.ASCII)
    value = int(float(found[1]) * _UNITS[found[2].upper()]) if found else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 200M or 1.5GiB")
    return value
