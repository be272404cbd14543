"""How far everybody is: a table on a terminal, drawn again and again; elsewhere, as in a log, a line per tenth."""

from __future__ import annotations

import sys
import time
from collections import Counter

import trio

import pyipc
from pyipc import cluster

HEAD = f"{'worker':8} {'role':8} {'state':9} {'pid':>7} {'files':>6} {'words/s':>10} {'restarts':>8}"


class Progress:
    """Follows what workers tell of themselves with ``counted`` and ``answered``.

    Attributes:
        files: Files that servers have counted, by the ids of the servers.
        answered: Files that clients have the answer for, likewise.
    """

    def __init__(self, primary: cluster.Cluster, total: int) -> None:
        self.primary = primary
        self.total = total
        self.files: Counter[str] = Counter()
        self.words: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.started = 0.0
        self.tenths = 0
        self.height = 0
        self.news = ""
        self.goals: list[tuple[int, trio.Event]] = []
        primary.router.on("counted", self.on_counted)
        primary.router.on("answered", self.on_answered)

    def on_counted(self, message: pyipc.Message[int]) -> None:
        # Measured from the first file on: how long interpreters take to start says nothing about messages.
        self.started = self.started or time.monotonic()
        worker = self.primary.worker_of(message)
        self.files[worker.id] += 1
        self.words[worker.id] += message.data

    def on_answered(self, message: pyipc.Message[None]) -> None:
        self.answered[self.primary.worker_of(message).id] += 1
        for goal, reached in self.goals:
            if self.done >= goal:
                reached.set()
        tenths = 10 * self.done // self.total
        if tenths > self.tenths and not sys.stdout.isatty():
            self.tenths = tenths
            states = [worker.state for worker in self.primary.workers.values() if worker.role == "server"]
            servers = f"{states.count('ready')} of {len(states)} servers ready"
            print(f"{10 * tenths:>3} %  {self.line()}  {servers}", flush=True)

    @property
    def done(self) -> int:
        """How many files were answered."""
        return self.answered.total()

    async def wait_done(self, files: int) -> None:
        """Wait until so many files were answered."""
        reached = trio.Event()
        self.goals.append((files, reached))
        await reached.wait()

    def tell(self, news: str) -> None:
        """Say something that stays below the table, or in the log."""
        self.news = news
        if not sys.stdout.isatty():
            print(news, flush=True)

    def speed(self, words: float) -> float:
        return words / max(time.monotonic() - self.started, 0.001) if self.started else 0

    def line(self) -> str:
        return f"{self.done:>5,} of {self.total:,} files  {self.speed(self.words.total()):>10,.0f} words/s"

    def table(self) -> list[str]:
        """A line for everybody."""
        lines = [HEAD]
        for worker in self.primary.workers.values():
            info = worker.info()
            files = self.files[info.id] or self.answered[info.id]
            speed = f"{self.speed(self.words[info.id]):,.0f}" if info.role == "server" else ""
            lines.append(
                f"{info.id:8} {info.role:8} {info.state:9} {info.pid or '-':>7} {files:>6,} {speed:>10} "
                f"{info.restarts:>8}"
            )
        return lines

    async def show(self) -> None:
        """Draw the table on the terminal, ten times a second, until cancelled."""
        while sys.stdout.isatty():
            filled = 30 * self.done // self.total
            self.draw([*self.table(), "", f"[{'#' * filled}{'.' * (30 - filled)}] {self.line()}", self.news])
            await trio.sleep(0.1)

    def draw(self, lines: list[str]) -> None:
        """Put lines where the ones before were."""
        if sys.stdout.isatty():
            back = f"\033[{self.height}F" if self.height else ""
            print(back + "".join(f"\033[K{line}\n" for line in lines) + "\033[J", end="", flush=True)
            self.height = len(lines)
        else:
            print("", *lines, sep="\n", flush=True)
