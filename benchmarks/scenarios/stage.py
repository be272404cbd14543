"""The processes of one scenario: starting, watching and ending them."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from harness.contender import ROOT, NotMeasured, node_modules
from harness.processes import Usage, forget_peak

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from scenarios.libraries import Library

__all__ = ["MARGIN", "MIB", "Actor", "Stage"]

MIB = 1024**2
VICTIMS = Path(__file__).resolve().parent.parent / "victims"
#: Seconds in which a process starts, connects and says so.
STARTING = 30.0
#: Seconds beyond its patience in which a client says that it had no answer, unless it hangs.
MARGIN = 2.0
#: Seconds that a process gets to end after Ctrl-C.
ENDING = 5.0
#: Memory that no process may take: beyond it, it is ended.
MOST_MEMORY = 2 * 1024**3
#: Seconds between two looks at that.
LOOK = 0.1


class Actor:
    """One process.

    Args:
        command: What it runs.
        directory: Where.
        environment: With what.
    """

    def __init__(self, command: Sequence[str], directory: Path, environment: dict[str, str]) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `end`
        self._process = subprocess.Popen(
            command,
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
        self._before = 0

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def tell(self, data: object = None) -> None:
        """Send it a line."""
        with contextlib.suppress(BrokenPipeError):  # who has ended says nothing either, which `hear` tells
            self._stdin.write(json.dumps(data).encode() + b"\n")

    def hear(self, patience: float = STARTING) -> dict[str, Any] | None:
        """What it says next; ``None`` if it says nothing within so many seconds, or has ended."""
        deadline = time.monotonic() + patience
        while b"\n" not in self._said:
            ready, _, _ = select.select([self._stdout], [], [], max(0.0, deadline - time.monotonic()))
            chunk = self._stdout.read(65_536) if ready else b""
            if not chunk:
                return None
            self._said += chunk
        line, _, self._said = self._said.partition(b"\n")
        said: dict[str, Any] = json.loads(line)
        return said

    def expect(self, word: str) -> None:
        """Wait until it says that it is so far.

        Raises:
            NotMeasured: It does not.
        """
        said = self.hear()
        if said is None or word not in said:
            raise NotMeasured(f"it did not say that it is {word}, but {said or self.last_words()}")

    def ask(self, job: dict[str, Any], patience: float) -> tuple[dict[str, Any], float]:
        """Have it ask its server; its answer, and how many seconds that took."""
        began = time.monotonic()
        self.tell(job)
        said = self.hear(patience)
        return {"error": "no answer in time"} if said is None else said, time.monotonic() - began

    @property
    def memory(self) -> int:
        """Bytes of memory that it has now.

        Raises:
            NotMeasured: It has ended, or the system does not tell.
        """
        usage = Usage.of(self.pid)
        if usage is None:
            raise NotMeasured("only Linux tells how much memory a process has")
        return usage.memory

    def remember_memory(self) -> None:
        """From now on `grown` is to be known."""
        forget_peak(self.pid)
        self._before = self.memory

    @property
    def grown(self) -> int:
        """By how many bytes its memory has grown at most since `remember_memory`; 0 where it has ended."""
        with contextlib.suppress(NotMeasured):
            usage = Usage.of(self.pid)
            return 0 if usage is None else max(0, usage.peak - self._before)
        return 0

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; what has ended is past it."""
        self._process.send_signal(number)

    def wait(self, patience: float = ENDING) -> bool:
        """Wait until it has ended; whether it has."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(patience)
        return not self.is_alive

    def last_words(self) -> str:
        """The last line of its errors."""
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else "nothing"

    def end(self) -> None:
        """End it, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        self._stdin.close()
        self._stdout.close()
        self._errors.close()


class Stage:
    """A directory with a socket, and the processes around it, which end with it.

    Args:
        library: Whose programs run.
    """

    def __init__(self, library: Library) -> None:
        self.library = library
        self._stack = contextlib.ExitStack()
        self._actors: list[Actor] = []
        self._over = threading.Event()

    def __enter__(self) -> Self:
        # Not where TMPDIR says: the path of a socket has to be short.
        self.directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(dir="/tmp", prefix="pyipc-")))
        self.place = str(self.directory / "socket")
        watchdog = threading.Thread(target=self._watch_memory)
        watchdog.start()
        self._stack.callback(watchdog.join)
        self._stack.callback(self._over.set)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def start(self, role: str, **params: object) -> Actor:
        """Start a program of the library; see ``victims/victim.py``."""
        library = self.library
        environment = dict(os.environ)
        if library.node:
            command = ["node", "--max-old-space-size=2048"]
            environment["NODE_PATH"] = str(node_modules(library.node))
        else:
            command = [sys.executable]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), environment.get("PYTHONPATH", "")]))
        file = str(VICTIMS / library.program)
        return self._add([*command, file, role, self.place, json.dumps(params)], environment)

    def start_half(self, offset: int) -> Actor:
        """Start a peer that sends a whole message and so many bytes of the next; see ``half.py``."""
        command = [sys.executable, "-m", "scenarios.half", self.library.wire.key, self.place, str(offset)]
        return self._add(command, {**os.environ, "PYTHONPATH": str(VICTIMS.parent)})

    def _add(self, command: Sequence[str], environment: dict[str, str]) -> Actor:
        actor = Actor(command, self.directory, environment)
        self._stack.callback(actor.end)
        self._actors.append(actor)
        return actor

    def serve(self, **params: object) -> Actor:
        """Start a server, and wait until it listens.

        Raises:
            NotMeasured: It does not.
        """
        return self._so_far(self.start("serve", **params))

    def _so_far(self, actor: Actor) -> Actor:
        actor.expect("ready")
        return actor

    def ask(self, **params: object) -> Actor:
        """Start a client that asks, and wait until it could.

        Raises:
            NotMeasured: It could not.
        """
        return self._so_far(self.start("ask", **params))

    def journal(self, kind: str) -> list[Any]:
        """What servers have noted."""
        with contextlib.suppress(FileNotFoundError):
            lines = (self.directory / "journal").read_text("utf-8").splitlines()
            return [what for noted, what in map(json.loads, lines) if noted == kind]
        return []

    def _watch_memory(self) -> None:
        while not self._over.wait(LOOK):
            for actor in list(self._actors):
                with contextlib.suppress(NotMeasured):
                    if actor.memory > MOST_MEMORY:
                        actor.signal(signal.SIGKILL)
