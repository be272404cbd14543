"""pyipc side by side with floors, ceilings and other libraries, on this machine.

    ./run bench [--quick] [--rounds N] [--only WORKLOAD ...] [--peers NAME ...] [--json FILE] ...

Every round measures each contender once at each workload, one after the other, in fresh processes; a ratio compares
two contenders of one round. README.md says what is measured and how to read it.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from harness.charts import bar_chart
from harness.command import Marks, check_names, show_progress
from harness.contender import Contender, NotMeasured
from harness.contenders import CONTENDERS, other_pyipc
from harness.environment import about
from harness.measuring import run_rounds
from harness.report import Run
from harness.workloads import WORKLOADS, Workload

if TYPE_CHECKING:
    from collections.abc import Sequence

ROUNDS = 5


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="./run bench",
        description="Measure pyipc side by side with floors, ceilings and other libraries.",
        epilog="Workloads and peers have the names that --list shows.",
    )
    made.add_argument("--quick", action="store_true", help="one round of less work, about a minute: to see it work")
    made.add_argument("--rounds", type=int, metavar="N", help=f"how often to measure each ({ROUNDS}; 1 with --quick)")
    made.add_argument("--every", action="store_true", help="what takes much longer too: all over TCP, TLS and pinned")
    made.add_argument("--only", nargs="+", metavar="WORKLOAD", help="only these workloads")
    made.add_argument("--peers", nargs="+", metavar="NAME", help="only these contenders")
    made.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    made.add_argument(
        "--markdown",
        type=Path,
        metavar="FILE",
        help="write the tables there: a new page, or between the marks of one that is there",
    )
    made.add_argument("--svg", type=Path, metavar="DIRECTORY", help="write a chart of each workload there")
    made.add_argument(
        "--against",
        action="append",
        default=[],
        metavar="NAME=DIRECTORY",
        help="measure the pyipc of another checkout as well",
    )
    made.add_argument("--list", action="store_true", help="show workloads and contenders, and measure nothing")
    return made


def chosen_workloads(names: Sequence[str] | None, *, quick: bool, every: bool = False) -> list[Workload]:
    """Those that are asked for.

    Raises:
        SystemExit: There is none of such a name.
    """
    check_names(names, [workload.name for workload in WORKLOADS], "workload")
    if names is None:
        usual = [workload for workload in WORKLOADS if every or not workload.extra]
        return [workload for workload in usual if not quick or workload.quick is not None]
    return [workload for workload in WORKLOADS if workload.name in names]


def chosen_contenders(names: Sequence[str] | None, against: Sequence[str], *, quick: bool) -> list[Contender]:
    """Those that are asked for, and those of other checkouts. Unasked, a quick run is without variants.

    Raises:
        SystemExit: There is none of such a name, or in such a directory.
    """
    check_names(names, [contender.key for contender in CONTENDERS], "contender")
    chosen = [each for each in CONTENDERS if (each.key in names if names is not None else not (quick and each.variant))]
    for pair in against:
        name, equals, directory = pair.partition("=")
        if not (name and equals):
            sys.exit(f"--against takes NAME=DIRECTORY, such as before=../old, not {pair!r}")
        if name in {contender.key for contender in CONTENDERS}:
            sys.exit(f"--against: {name!r} is the name of another contender; choose one of your own")
        try:
            # Beside pyipc itself, so that both meet the machine in the same state.
            chosen.insert(1, other_pyipc(name, Path(directory)))
        except NotMeasured as error:
            sys.exit(f"--against: {error}")
    return chosen


def show_list() -> None:
    """Print what can be measured."""
    print("Workloads (--only):")
    for workload in WORKLOADS:
        print(f"  {workload.name:<26} {workload.titled(workload.params)}")
    print("\nContenders (--peers):")
    for contender in CONTENDERS:
        print(f"  {contender.key:<26} {contender.name}: {contender.promises}")


#: Where a page has the tables.
MARKS = Marks("./run bench")


def write(run: Run, json_file: Path | None, markdown: Path | None, svg: Path | None) -> None:
    """Write the files that are asked for."""
    if json_file is not None:
        json_file.write_text(json.dumps(run.as_json(), indent=2, ensure_ascii=False) + "\n", "utf-8")
    if svg is not None:
        svg.mkdir(parents=True, exist_ok=True)
        for result in run.results:
            (svg / f"{result.workload.name}.svg").write_text(bar_chart(result), "utf-8")
    if markdown is not None:
        charts = None if svg is None else Path(os.path.relpath(svg, markdown.parent)).as_posix()
        MARKS.place(run.markdown(charts), markdown)


def main(arguments: Sequence[str]) -> None:
    """Measure, print, and write files."""
    parsed = parser().parse_args(arguments)
    if parsed.list:
        show_list()
        return
    if parsed.markdown is not None:
        MARKS.around(parsed.markdown)  # before half an hour of measuring
    rounds = parsed.rounds or (1 if parsed.quick else ROUNDS)
    workloads = chosen_workloads(parsed.only, quick=parsed.quick, every=parsed.every)
    contenders = chosen_contenders(parsed.peers, parsed.against, quick=parsed.quick)
    workloads = [each for each in workloads if any(who.takes_part(each) for who in contenders)]
    contenders = [who for who in contenders if any(who.takes_part(each) for each in workloads)]
    if not workloads:
        sys.exit("none of these contenders takes part in any of these workloads; README.md says who does")
    began = time.monotonic()
    results = run_rounds(workloads, contenders, rounds, quick=parsed.quick, progress=show_progress)
    seconds = time.monotonic() - began
    if sys.stderr.isatty():
        show_progress("")
    run = Run(shlex.join(["./run", "bench", *arguments]), about(), rounds, seconds, results, contenders)
    print(run.text(), end="")
    write(run, parsed.json, parsed.markdown, parsed.svg)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(130)
