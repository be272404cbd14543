"""The story of a cluster that runs in the foreground: its steps, and who writes them down."""

from __future__ import annotations

import datetime
import os
import signal
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import trio

if TYPE_CHECKING:
    from typing import TextIO

    from pyipc.cluster.events import WorkerEvent
    from pyipc.cluster.handle import WorkerInfo

__all__ = [
    "STEPS",
    "LineReporter",
    "Reporter",
    "Step",
    "StepKind",
    "Story",
    "step_line",
    "step_of",
    "step_words",
    "table_step",
]

StepKind = Literal[
    "begin",
    "fork",
    "online",
    "listening",
    "ready",
    "unhealthy",
    "disconnect",
    "exit",
    "restart",
    "error",
    "running",
    "watching",
    "changed",
    "reload",
    "reloaded",
    "reload-failed",
    "scale",
    "scale-failed",
    "waiting",
    "table",
    "drain",
    "kill",
    "end",
    "left-out",
]
#: Every kind of step, with what it means. The names of what happens to workers are those of `pyipc.cluster.EVENTS`.
STEPS: Final[dict[StepKind, str]] = {
    "begin": "the cluster starts",
    "fork": "a process was started",
    "online": "its program begins",
    "listening": "a server of it listens",
    "ready": "it can do its work",
    "unhealthy": "something is wrong with it",
    "disconnect": "it has left its primary",
    "exit": "the process has ended",
    "restart": "the worker is started again after a pause",
    "error": "the worker failed",
    "running": "all workers are ready",
    "watching": "source files are watched",
    "changed": "some of them have changed",
    "reload": "new processes are started beside the old",
    "reloaded": "they have taken their places",
    "reload-failed": "they did not become ready, and the old ones go on",
    "scale": "there is to be another number of workers",
    "scale-failed": "a further worker did not become ready",
    "waiting": "no worker is left, and a change of the source files is waited for",
    "table": "how a worker is",
    "drain": "the workers are to finish and leave",
    "kill": "they are ended at once",
    "end": "the cluster has ended",
    "left-out": "so many steps were not written, as the writer was behind",
}

_PROBLEMS: Final = frozenset({"unhealthy", "error", "reload-failed", "scale-failed"})

# Steps that may wait to be written. More than that, and nobody reads them.
_MAX_WAITING: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Something that happened to a cluster or to one of its workers.

    Attributes:
        kind: What; one of `STEPS`.
        time: When, with the time zone of here.
        worker: The id of the worker; empty if it happened to the cluster.
        role: Its role.
        pid: The process: that of the worker, or of the primary.
        generation: Which of its worker's processes it is, from 1 on.
        address: ``listening``: where.
        code: ``exit``: the exit code.
        signal: ``exit``: the number of the signal that ended it.
        voluntary: ``exit`` and ``disconnect``: whether that was asked for.
        delay: ``restart``: seconds until it is started again.
        text: Why, or what more is known, for people.
        is_problem: Whether somebody should look into it.
    """

    kind: StepKind
    time: datetime.datetime = field(default_factory=lambda: datetime.datetime.now().astimezone())
    worker: str = ""
    role: str = ""
    pid: int | None = None
    generation: int | None = None
    address: str = ""
    code: int | None = None
    signal: int | None = None
    voluntary: bool | None = None
    delay: float | None = None
    text: str = ""
    is_problem: bool = False

    def facts(self) -> dict[str, Any]:
        """What is known of it, for a record: all but the kind and the time, which every step has."""
        names = ("worker", "role", "pid", "generation", "address", "code", "signal", "voluntary", "delay", "text")
        return {name: value for name in names if (value := getattr(self, name)) not in (None, "")}


def step_of(event: WorkerEvent) -> Step | None:
    """The step that an event is; ``None`` for ``setup`` and ``message``, which are none."""
    worker = event.worker
    if worker is None or event.type == "message" or event.type == "setup":
        return None
    is_crash = event.type == "exit" and not event.voluntary and (event.code != 0 or bool(event.reason))
    return Step(
        kind=event.type,
        worker=worker.id,
        role=worker.role,
        pid=event.pid,
        generation=event.generation,
        address="" if event.address is None else str(event.address),
        code=event.code,
        signal=event.signal,
        voluntary=event.voluntary,
        delay=event.delay,
        text=event.reason.removeprefix(f"worker {worker.id!r} "),  # which the step tells already
        is_problem=is_crash or event.type in _PROBLEMS,
    )


def table_step(info: WorkerInfo) -> Step:
    """A row of the table of workers."""
    parts = [info.state, f"up {info.uptime:.0f} s", _count(info.restarts, "restart"), f"{info.in_flight} in flight"]
    if info.connections:
        parts.append(_count(info.connections, "connection"))
    if info.memory is not None:
        parts.append(f"{info.memory / 1_000_000:.0f} MB")
    if info.lag is not None:
        parts.append(f"{info.lag * 1000:.1f} ms late")
    return Step(
        kind="table", worker=info.id, role=info.role, pid=info.pid, generation=info.generation, text=", ".join(parts)
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


class Reporter(Protocol):
    """Writes down what happens. It may take its time: the cluster does not wait for it."""

    async def report(self, step: Step) -> None:
        """Write one step.

        Cancellation: it may be written in part; nothing follows.
        """


class LineReporter:
    """Writes a line for each step.

    Args:
        stream: Where to; by default ``sys.stderr``. It is colored if it is a terminal, unless ``NO_COLOR`` is set.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._colored = (
            self._stream is not None  # a program may have been started without it
            and self._stream.isatty()
            and not os.environ.get("NO_COLOR")
            and os.environ.get("TERM") != "dumb"
        )

    async def report(self, step: Step) -> None:
        """Write one step. Who does not read the lines holds up a thread, and nothing else.

        Cancellation: the thread is left to itself.
        """
        line = step_line(step)
        if self._colored:
            line = f"\x1b[{31 if step.is_problem else 2}m{line[:12]}\x1b[0m{line[12:]}"
        await trio.to_thread.run_sync(self._write, line, abandon_on_cancel=True)

    def _write(self, line: str) -> None:
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError, AttributeError):
            pass  # nobody is there to read it, which is no reason to end


def step_line(step: Step) -> str:
    """A step as one line for people, without a line end."""
    who = f"worker {step.worker}" if step.worker else "cluster"
    who += f" ({step.role})" if step.role else ""
    pid = "" if step.pid is None else str(step.pid)
    time = f"{step.time:%H:%M:%S}.{step.time.microsecond // 1000:03}"
    line = f"{time}  {who:<10} {pid:>7}  {step.kind:<13} {step_words(step)}"
    # A worker may have said it, and a role may be anything.
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in line.rstrip())


def step_words(step: Step) -> str:
    """What is known of a step, in words."""
    words = step.address
    if step.kind == "exit" and step.signal is not None:
        try:
            words = signal.Signals(step.signal).name
        except ValueError:
            words = f"signal {step.signal}"
    elif step.kind == "exit" and step.code is not None:
        words = f"code {step.code}"
    elif step.kind == "restart" and step.delay is not None:
        words = f"in {step.delay:.2g} s"
    return ": ".join(filter(None, [words, step.text]))


class Story:
    """Passes steps on to a reporter, one after the other, without anybody waiting for it.

    Args:
        reporter: The one that writes.
    """

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._send, self._receive = trio.open_memory_channel[Step](_MAX_WAITING)
        self._left_out = 0
        self._idle = trio.Event()

    def tell(self, step: Step) -> None:
        """Something happened."""
        try:
            self._send.send_nowait(step)
        except trio.WouldBlock:
            self._left_out += 1
        else:
            if self._idle.is_set():
                self._idle = trio.Event()

    async def run(self) -> None:
        """Have the steps written, until cancelled.

        Cancellation: what was not written yet is not written.
        """
        async for step in self._receive:
            await self._reporter.report(step)
            if not self._receive.statistics().current_buffer_used:
                if self._left_out:
                    count, self._left_out = self._left_out, 0
                    await self._reporter.report(Step(kind="left-out", text=f"{count:,} steps were not written here"))
                self._idle.set()

    async def drain(self, timeout: float) -> None:
        """Wait until all is written, but not for ever: nobody may read it.

        Args:
            timeout: Seconds to wait.

        Cancellation: what was not written yet is not written.
        """
        if self._receive.statistics().current_buffer_used or not self._idle.is_set():
            with trio.move_on_after(timeout):
                await self._idle.wait()
