"""Requests and events over a Unix socket, side by side with a floor, a ceiling and node-ipc.

    python benchmarks/core.py [--quick] [--rounds N] [--json FILE] [--against NAME=DIRECTORY]

Every round measures each contender once, one after the other, in fresh processes, so that whatever
else the machine does hits all of them; what is compared are contenders of the same round. The
figures that mean anything are the ratios. See README.md.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import platform
import select
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PEERS = HERE / "peers"
NODE_IPC = "9.2.1"

#: Seconds that one measurement may take, and that a process may take to end.
PATIENCE = 60.0
GRACE = 3.0

Figures = dict[str, float]


class NotMeasured(Exception):
    """Why there is no figure."""


@dataclasses.dataclass(frozen=True)
class Contender:
    """One line of a table.

    Args:
        name: What it is called.
        peer: The file in ``peers/`` that both of its processes run.
        role: What the measuring process does.
        library: Where a ``pyipc`` other than this repository's is.
        alone: There is only the measuring process.
    """

    name: str
    peer: str
    role: str
    library: Path | None = None
    alone: bool = False


@dataclasses.dataclass(frozen=True)
class Work:
    """One table.

    Args:
        title: What is measured.
        unit: What the figures are.
        key: The figure that is compared.
        reference: The contender that others are compared with.
        contenders: In the order in which each round measures them.
        count: Repetitions in one measurement.
        cpu: Where all processes run; ``None`` for anywhere.
    """

    title: str
    unit: str
    key: str
    reference: str
    contenders: Sequence[Contender]
    count: int
    cpu: int | None = None


# --- processes -----------------------------------------------------------------------------------------------------


def node_modules() -> Path:
    """Where node finds node-ipc.

    Raises:
        NotMeasured: It is not there.
    """
    if shutil.which("node") is None:
        raise NotMeasured("node is not installed")
    modules = Path(os.environ.get("PYIPC_NODE_DIR") or ROOT / ".node") / NODE_IPC / "node_modules"
    if not (modules / "node-ipc").is_dir():
        raise NotMeasured(f"node-ipc {NODE_IPC} is not installed under PYIPC_NODE_DIR or .node (./run test does that)")
    return modules


@contextlib.contextmanager
def only_on(cpu: int | None) -> Iterator[None]:
    """Start processes that may run on one processor only; they inherit it from this one."""
    if cpu is None:
        yield
        return
    if sys.platform != "linux":
        raise NotMeasured("this system cannot pin processes to a processor")
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Child:
    """One process of a contender."""

    def __init__(self, contender: Contender, role: str, directory: Path, count: int, cpu: int | None) -> None:
        environment = dict(os.environ)
        if contender.peer.endswith(".js"):
            program = ["node"]
            environment["NODE_PATH"] = str(node_modules())
        else:
            program = [sys.executable]
            paths = [str(contender.library or ROOT), environment.get("PYTHONPATH", "")]
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `end`
        with only_on(cpu):
            self._process = subprocess.Popen(
                [*program, str(PEERS / contender.peer), role, str(directory / "socket"), str(count)],
                cwd=directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=self._errors,
            )
        self._output = b""

    def read_line(self) -> str:
        """The next line that it writes.

        Raises:
            NotMeasured: It ended, or took too long.
        """
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        deadline = time.monotonic() + PATIENCE
        while b"\n" not in self._output:
            if not select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise NotMeasured(f"no answer within {PATIENCE:g} s")
            chunk = os.read(descriptor, 65536)
            if not chunk:
                raise NotMeasured(f"the process ended: {self._last_words()}")
            self._output += chunk
        line, _, self._output = self._output.partition(b"\n")
        return line.decode()

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def end(self) -> None:
        """End it, whatever it is doing."""
        self._process.terminate()
        try:
            self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(GRACE)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._errors.close()


def measure(contender: Contender, work: Work) -> Figures:
    """Run one contender once.

    Raises:
        NotMeasured: It did not give a figure.
    """
    # Not where TMPDIR says: the path of a socket has to be short.
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="pyipc-") as name, contextlib.ExitStack() as stack:

        def start(role: str) -> Child:
            child = Child(contender, role, Path(name), work.count, work.cpu)
            stack.callback(child.end)
            return child

        if not contender.alone:
            server = start("serve")
            if server.read_line() != "ready":
                raise NotMeasured("the server did not start")
        figures: Figures = json.loads(start(contender.role).read_line())
        return figures


# --- works ---------------------------------------------------------------------------------------------------------


def works(*, quick: bool, against: dict[str, Path]) -> list[Work]:
    """All that is measured."""
    requests = [
        Contender("bare trio echo", "bare_trio.py", "ask"),
        Contender("pyipc request, plain handler", "pyipc_peer.py", "plain"),
        Contender("pyipc request, async handler", "pyipc_peer.py", "async"),
        *(Contender(f"{name} request, plain", "pyipc_peer.py", "plain", path) for name, path in against.items()),
        Contender(f"node-ipc {NODE_IPC} echo by events", "node_ipc.js", "ask"),
    ]
    events = [
        Contender(f"node-ipc {NODE_IPC}", "node_ipc.js", "tell"),
        Contender("pyipc, plain handler", "pyipc_peer.py", "tell"),
        *(Contender(f"{name}, plain handler", "pyipc_peer.py", "tell", path) for name, path in against.items()),
        Contender("ceiling: msgspec alone", "ceiling.py", "alone", alone=True),
        Contender("ceiling 2: both at once", "ceiling.py", "together", alone=True),
    ]
    count = 1_000 if quick else 3_000
    title = "One request in flight"
    cpu = min(os.sched_getaffinity(0)) if sys.platform == "linux" else 0
    return [
        Work(f"{title}, both ends on one processor", "us", "mean_us", "bare trio echo", requests, count, cpu),
        Work(f"{title}, not pinned", "us", "mean_us", "bare trio echo", requests, count),
        Work(
            "One-way events of 64 bytes, sent to handled",
            "events/s",
            "per_second",
            f"node-ipc {NODE_IPC}",
            events,
            20_000 if quick else 100_000,
        ),
    ]


class Result:
    """What the rounds of one work gave."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.figures: dict[str, list[Figures]] = {contender.name: [] for contender in work.contenders}
        self.failures: dict[str, str] = {}

    def run_round(self) -> None:
        """Measure every contender that has not failed once."""
        for contender in self.work.contenders:
            if contender.name not in self.failures:
                try:
                    self.figures[contender.name].append(measure(contender, self.work))
                except NotMeasured as error:
                    self.failures[contender.name] = str(error)

    def values(self, name: str) -> list[float]:
        """The compared figure of every round."""
        return [figures[self.work.key] for figures in self.figures[name]]

    def ratios(self, name: str, other: str) -> list[float]:
        """The compared figure as a multiple of another contender's of the same round."""
        return [mine / theirs for mine, theirs in zip(self.values(name), self.values(other), strict=False)]

    def table(self) -> list[str]:
        """Lines for people."""
        work = self.work
        bases = [work.reference, *(c.name for c in work.contenders if c.name.startswith("ceiling"))]
        header = f"{work.title}  ({work.unit}; x = multiple of, median of the rounds and their spread)"
        lines = [header, "-" * len(header)]
        for contender in work.contenders:
            name = contender.name
            if name in self.failures:
                lines.append(f"  {name:<36} not measured: {self.failures[name]}")
                continue
            text = f"  {name:<36} {_spread(self.values(name), ',.0f'):>28}"
            for base in bases:
                if base != name and base not in self.failures:
                    text += f"   x {base.partition(':')[0]}: {_spread(self.ratios(name, base), '.2f')}"
            lines.append(text)
        return lines

    def as_json(self) -> dict[str, object]:
        """Everything, for programs."""
        reference = self.work.reference
        return {
            "title": self.work.title,
            "unit": self.work.unit,
            "compared": self.work.key,
            "reference": reference,
            "rounds": self.figures,
            "ratios": {name: self.ratios(name, reference) for name in self.figures},
            "not_measured": self.failures,
        }


def _spread(values: list[float], how: str) -> str:
    return f"{statistics.median(values):{how}} ({min(values):{how}}-{max(values):{how}})"


def environment() -> dict[str, str]:
    """What was measured on what."""
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "processors": str(os.cpu_count()),
        "trio": version("trio"),
        "msgspec": version("msgspec"),
    }


def main() -> None:
    """Measure, print, and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="three short rounds: to see that it works")
    parser.add_argument("--rounds", type=int, help="how often to measure each contender (7, or 3 with --quick)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    parser.add_argument(
        "--against",
        action="append",
        default=[],
        metavar="NAME=DIRECTORY",
        help="measure the pyipc of another checkout as well",
    )
    parsed = parser.parse_args()
    rounds = parsed.rounds or (3 if parsed.quick else 7)
    others = dict(pair.split("=", 1) for pair in parsed.against)
    results = [
        Result(work)
        for work in works(quick=parsed.quick, against={name: Path(path).resolve() for name, path in others.items()})
    ]
    about = environment()
    print(", ".join(f"{name} {value}" for name, value in about.items()), f", {rounds} rounds", sep="")
    for number in range(rounds):
        for result in results:
            result.run_round()
        print(f"round {number + 1} of {rounds} done", file=sys.stderr)
    for result in results:
        print("", *result.table(), sep="\n")
    if parsed.json is not None:
        everything = {"about": about, "results": [result.as_json() for result in results]}
        parsed.json.write_text(json.dumps(everything, indent=2) + "\n")


if __name__ == "__main__":
    main()
