"""The same hostile tests against pyipc and other libraries, on this machine: what each does, not how fast.

    ./run hostile [--quick] [--only SCENARIO ...] [--libraries NAME ...] [--json FILE] [--markdown FILE]

README.md says what is done and how to read it.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from harness.command import Marks, check_names, show_progress
from harness.environment import about
from scenarios.battery import SCENARIOS, play
from scenarios.libraries import LIBRARIES
from scenarios.report import Run

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Between these a page has the tables; all else in it is kept.
MARKS = Marks("./run hostile")
#: Libraries at the same time, for ``--quick``.
QUICK_AT_ONCE = 4


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="./run hostile",
        description="Do the same hostile things to pyipc and to other libraries, and say what comes of it.",
        epilog="Scenarios and libraries have the names that --list shows.",
    )
    made.add_argument("--quick", action="store_true", help="less of everything, about a minute: to see it work")
    made.add_argument("--only", nargs="+", metavar="SCENARIO", help="only these scenarios")
    made.add_argument("--libraries", nargs="+", metavar="NAME", help="only these libraries")
    made.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    made.add_argument(
        "--markdown",
        type=Path,
        metavar="FILE",
        help="write the tables there: a new page, or between the marks of one that is there",
    )
    made.add_argument("--list", action="store_true", help="show scenarios and libraries, and do nothing")
    return made


def show_list() -> None:
    """Print what there is."""
    print("Scenarios (--only):")
    for scenario in SCENARIOS:
        print(f"  {scenario.key:<16} {scenario.title}")
    print("\nLibraries (--libraries):")
    for library in LIBRARIES:
        print(f"  {library.key:<16} {library.name}")


def main(arguments: Sequence[str]) -> None:
    """Do it, print what came of it, and write files."""
    parsed = parser().parse_args(arguments)
    if parsed.list:
        show_list()
        return
    check_names(parsed.only, [scenario.key for scenario in SCENARIOS], "scenario")
    check_names(parsed.libraries, [library.key for library in LIBRARIES], "library")
    if parsed.markdown is not None:
        MARKS.around(parsed.markdown)  # before minutes of work
    scenarios = [each for each in SCENARIOS if parsed.only is None or each.key in parsed.only]
    libraries = [each for each in LIBRARIES if parsed.libraries is None or each.key in parsed.libraries]
    at_once = QUICK_AT_ONCE if parsed.quick else 1  # who is disturbed by others has longer times
    began = time.monotonic()
    outcomes = play(scenarios, libraries, quick=parsed.quick, at_once=at_once, progress=show_progress)
    seconds = time.monotonic() - began
    if sys.stderr.isatty():
        show_progress("")
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    packages = [package for library in libraries for package in library.needs.values()]
    releases = " and ".join(library.node for library in libraries if library.node)
    command = shlex.join(["./run", "hostile", *arguments])
    run = Run(command, today, about(packages, releases), seconds, outcomes)
    print(run.text(), end="")
    if parsed.json is not None:
        parsed.json.write_text(json.dumps(run.as_json(), indent=2, ensure_ascii=False) + "\n", "utf-8")
    if parsed.markdown is not None:
        MARKS.place(run.markdown(), parsed.markdown)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(130)
