"""A contender's processes: starting, watching and ending them; what they cost."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from harness.contender import Contender, NotMeasured, node_modules

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Child", "Usage", "forget_peak", "only_on", "pinning_processor", "workers_of"]

PEERS = Path(__file__).resolve().parent.parent / "peers"
#: Seconds that a process gets to end after it was asked to.
GRACE = 3.0
LINUX = sys.platform == "linux"


@dataclasses.dataclass(frozen=True)
class Usage:
    """What a process has used: seconds of CPU time, bytes of memory now and at most."""

    cpu: float
    memory: int
    peak: int

    @classmethod
    def of(cls, pid: int) -> Usage | None:
        """Of a process that runs; ``None`` where the system does not tell.

        Raises:
            NotMeasured: It does not run.
        """
        if not LINUX:
            return None
        # The clock of all threads of a process, those that have ended too, to the nanosecond: what
        # clock_getcpuclockid(3) would give. /proc has ticks of 10 ms, or threads that are there.
        try:
            cpu = time.clock_gettime((~pid << 3) | 2)
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError as error:
            raise NotMeasured(f"a process ended before its time: {error}") from None
        memory, peak = (_kilobytes(status, field) for field in ("VmRSS", "VmHWM"))
        return cls(cpu, memory, peak)

    @classmethod
    def of_all(cls, pids: Iterable[int]) -> Usage | None:
        """Of several together.

        Raises:
            NotMeasured: One of them does not run.
        """
        total = cls(0.0, 0, 0)
        for pid in pids:
            if (one := cls.of(pid)) is None:
                return None
            total = cls(total.cpu + one.cpu, total.memory + one.memory, total.peak + one.peak)
        return total


def workers_of(pid: int) -> list[int]:
    """The processes that a process has started, and that run; none where the system does not tell."""
    if not LINUX:
        return []
    found = []
    for place in Path("/proc").iterdir():
        # What a process is called stands in parentheses, and may hold any.
        with contextlib.suppress(ValueError, OSError):
            state, parent = (place / "stat").read_text().rpartition(")")[2].split()[:2]
            if int(parent) == pid and state != "Z":
                found.append(int(place.name))
    return found


def _kilobytes(status: str, field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def forget_peak(pid: int) -> None:
    """Have the peak of a process's memory start from what it uses now."""
    # Where that may not be done the peak includes what came before, which is still a bound.
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def pinning_processor() -> int:
    """Where pinned processes run.

    Raises:
        NotMeasured: This system cannot pin processes.
    """
    if sys.platform != "linux":
        raise NotMeasured("this system cannot pin processes to a processor")
    return max(os.sched_getaffinity(0))


@contextlib.contextmanager
def only_on(processor: int | None) -> Iterator[None]:
    """Start processes that may run on one processor only: they inherit it from this one."""
    if processor is None or sys.platform != "linux":
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {processor})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Child:
    """One process of a contender.

    Args:
        contender: Whose.
        file: The file in ``peers/`` that it runs.
        arguments: Role, work, address and parameters; see ``peers/common.py``.
        directory: Where it runs.
        deadline: By when it has to have said everything, on the monotonic clock.
    """

    def __init__(self, contender: Contender, file: str, arguments: list[str], directory: Path, deadline: float) -> None:
        environment = dict(os.environ)
        if file.endswith(".js"):
            program = ["node"]
            environment["NODE_PATH"] = str(node_modules())
        else:
            program = [sys.executable]
            paths = [str(contender.library), environment.get("PYTHONPATH", "")]
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
            # What is installed has its bytecode, and workers that start must not compile all of it again.
            environment.pop("PYTHONDONTWRITEBYTECODE", None)
        self._deadline = deadline
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `end`
        self._process = subprocess.Popen(
            [*program, str(PEERS / file), *arguments],
            cwd=directory,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self._said = b""

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def read(self, word: str, partner: Child | None = None) -> str:
        """Wait for the next line, and return what follows ``word`` in it.

        Args:
            word: How the line has to begin.
            partner: Another process, without which there will be no line.

        Raises:
            NotMeasured: It ended, said something else or took too long; or the partner ended.
        """
        watched = [self._stdout] if partner is None else [self._stdout, partner._stdout]
        while b"\n" not in self._said:
            ready, _, _ = select.select(watched, [], [], max(0.0, self._deadline - time.monotonic()))
            if not ready:
                raise NotMeasured("it took too long")
            if self._stdout not in ready:
                assert partner is not None
                raise NotMeasured(f"the server ended: {partner._last_words()}")
            chunk = self._stdout.read(65_536)
            if not chunk:
                raise NotMeasured(f"it ended: {self._last_words()}")
            self._said += chunk
        line, _, self._said = self._said.partition(b"\n")
        text = line.decode(errors="replace")
        if not text.startswith(word):
            raise NotMeasured(f"it said {text!r} instead of {word!r}")
        return text.removeprefix(word).strip()

    def read_figures(self, partner: Child | None) -> dict[str, float]:
        """Wait for the line of figures.

        Raises:
            NotMeasured: There is none.
        """
        figures: dict[str, float] = json.loads("{" + self.read("{", partner))
        return figures

    def go(self) -> None:
        """Let a driver that has said ``begin`` begin."""
        try:
            self._stdin.write(b"\n")
        except BrokenPipeError:
            raise NotMeasured(f"it ended: {self._last_words()}") from None

    def _last_words(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE)
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else f"exit code {self._process.returncode}, without a word"

    def end(self) -> None:
        """End it, whatever it is doing."""
        self._stdin.close()
        for harsher in (self._process.terminate, self._process.kill):
            try:
                self._process.wait(GRACE)
                break
            except subprocess.TimeoutExpired:
                harsher()
        self._process.wait()
        self._stdout.close()
        self._errors.close()
