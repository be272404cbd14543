"""Count the words of Python's standard library with one server and several clients, each in a process of its own.

Run it as ``python examples/wordcount/main.py [--clients 3] [--limit FILES]``.

This program starts the others, follows the server's progress over the same socket, and at the end compares the
server's totals with a count of its own. It exits with 1 if they differ.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import trio

import pyipc
from corpus import Tally, read, source_files

HERE = Path(__file__).parent


class ProgressBar:
    """A bar on a terminal; elsewhere, such as in a log, a line for every tenth."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.first = self.started = 0.0
        self.speed = 0.0
        self.tenths = 0

    def show(self, done: int) -> None:
        # Measured from the first news on: how long interpreters take to start says nothing about messages.
        if not self.started:
            self.first, self.started = done, time.monotonic()
        self.speed = (done - self.first) / max(time.monotonic() - self.started, 0.001)
        self._draw(done, f"{done:>5,} of {self.total:,} files  {self.speed:,.0f} messages/s")

    def _draw(self, done: int, text: str) -> None:
        if sys.stdout.isatty():
            filled = 40 * done // self.total
            print(f"\r[{'#' * filled}{'.' * (40 - filled)}] {text}", end="\n" if done == self.total else "", flush=True)
        elif 10 * done // self.total > self.tenths:
            self.tenths = 10 * done // self.total
            print(f"{100 * done // self.total:>3} %  {text}", flush=True)


def count_here(files: list[Path]) -> dict[str, int]:
    tally = Tally()
    for path in files:
        tally.add(read(path))
    return tally.totals()


def report(counted: dict[str, int], expected: dict[str, int]) -> bool:
    """Print both counts side by side; say whether they are the same."""
    print(f"\n{'':16} {'by the server':>15} {'counted here':>15}")
    for name, value in expected.items():
        print(
            f"{name:16} {counted[name]:>15,} {value:>15,} {'' if counted[name] == value else '  <- differs'}".rstrip()
        )
    return counted == expected


async def main(clients: int, limit: int | None) -> int:
    files = source_files(limit)
    if not files:
        print("This Python has no source files of its standard library.")
        return 1
    # A bare name is a local socket that only this user can reach; the number keeps two runs apart.
    address = f"wordcount-{os.getpid()}"
    bar = ProgressBar(len(files))
    all_counted = trio.Event()

    def show_progress(message: pyipc.Message[dict[str, int]]) -> None:
        if not all_counted.is_set():
            bar.show(message.data["files"])
        if message.data["files"] == len(files):
            all_counted.set()

    print(f"{clients} clients send {len(files):,} files to one server at {address!r}.", flush=True)
    async with trio.open_nursery() as nursery:
        # A process that fails raises here and ends the others.
        nursery.start_soon(trio.run_process, [sys.executable, str(HERE / "server.py"), address])
        async with pyipc.connect(address) as observer:
            observer.on("progress", show_progress)
            for share in range(clients):
                command = [sys.executable, str(HERE / "client.py"), address, str(share), str(clients), str(len(files))]
                nursery.start_soon(trio.run_process, command)
            await all_counted.wait()
            counted = await observer.request("totals")
            favorites = await observer.request("most-common", 5)
            await observer.emit("stop")

    same = report(counted, await trio.to_thread.run_sync(count_here, files))
    print(f"\nThe most common words: {', '.join(f'{word} ({times:,})' for word, times in favorites)}.")
    size = bar.speed * counted["characters"] / len(files) / 1e6
    print(f"The files came at {bar.speed:,.0f} messages or {size:,.1f} million characters a second, counting included.")
    print("Every word arrived." if same else "THE COUNTS DIFFER.")
    return 0 if same else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Count the words of Python's standard library.")
    parser.add_argument("--clients", type=int, default=3, help="how many clients share the work (3)")
    parser.add_argument("--limit", type=int, help="count only the first so many files")
    arguments = parser.parse_args()
    sys.exit(trio.run(main, arguments.clients, arguments.limit))
