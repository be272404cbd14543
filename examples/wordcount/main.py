"""Count the words of Python's standard library: workers serve one address, clients send files, one worker is killed.

Run it as ``python examples/wordcount/main.py [--workers 4] [--clients 2] [--limit FILES]``.

This program is the primary. It starts the workers and the clients, shows how far they are, kills a worker when a third
of the files is done, and at the end compares what the clients were answered with a count of its own. It exits with 1 if
they differ.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import time
from pathlib import Path

import trio

from corpus import Tally, count, read, source_files
from progress import Progress
from pyipc import cluster

HERE = Path(__file__).parent


async def main(workers: int, clients: int, limit: int | None) -> int:
    files = source_files(limit)
    if not files:
        print("This Python has no source files of its standard library.")
        return 1
    logging.disable()  # that a worker is killed is logged as well, and here it is meant
    # A bare name is a local server that only this user can reach; the number keeps two runs apart.
    address = f"wordcount-{os.getpid()}"
    primary = cluster.Cluster(
        str(HERE / "server.py"), workers=workers, role="server", env={"WORDCOUNT_ADDRESS": address}
    )
    progress = Progress(primary, len(files))
    tally = Tally()
    lost = 0

    async def send_share(number: int, client: cluster.WorkerHandle) -> None:
        nonlocal lost
        share = {"address": address, "number": number, "clients": clients, "limit": len(files)}
        sent = await client.request("send-files", share)
        tally.add(sent["count"])
        lost += sent["lost"]

    print(f"{workers} workers serve {address!r}, {clients} clients send {len(files):,} files to them.", flush=True)
    async with primary, trio.open_nursery() as background:
        background.start_soon(progress.show)
        background.start_soon(kill_one, primary, progress)
        started = time.monotonic()
        async with trio.open_nursery() as nursery:
            for number in range(clients):
                client = await primary.fork(
                    f"client-{number + 1}", role="client", exec=str(HERE / "client.py"), wait=False
                )
                nursery.start_soon(send_share, number, client)
        seconds = time.monotonic() - started
        background.cancel_scope.cancel()
        progress.draw(progress.table())

    same = report(tally.totals(), await trio.to_thread.run_sync(count_here, files))
    favorites = ", ".join(f"{word} ({times:,})" for word, times in tally.words.most_common(5))
    print(f"\nThe most common words: {favorites}.")
    print(f"It took {seconds:.1f} s, {tally.characters / seconds / 1e6:,.1f} million characters a second.")
    print(f"Connections that broke with the killed worker: {lost}. What it had not answered was asked again.")
    print("Nothing was lost, and nothing counted twice." if same else "THE COUNTS DIFFER.")
    return 0 if same else 1


async def kill_one(primary: cluster.Cluster, progress: Progress) -> None:
    """When a third is done end a worker as a crash would: whatever it has at hand is gone."""
    await progress.wait_done(progress.total // 3)
    victim = next(worker for worker in primary.workers.values() if worker.role == "server")
    if victim.pid is not None:
        os.kill(victim.pid, signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)
        progress.tell(f"killed: worker {victim.id}, process {victim.pid}")


def count_here(files: list[Path]) -> dict[str, int]:
    tally = Tally()
    for path in files:
        tally.add(count(read(path)))
    return tally.totals()


def report(counted: dict[str, int], expected: dict[str, int]) -> bool:
    """Print both counts side by side; say whether they are the same."""
    print(f"\n{'':16} {'by the workers':>15} {'counted here':>15}")
    for name, value in expected.items():
        differs = "" if counted[name] == value else "   <- differs"
        print(f"{name:16} {counted[name]:>15,} {value:>15,}{differs}")
    return counted == expected


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Count the words of Python's standard library.")
    parser.add_argument("--workers", type=int, default=4, help="how many workers count (4)")
    parser.add_argument("--clients", type=int, default=2, help="how many clients share the files (2)")
    parser.add_argument("--limit", type=int, help="count only the first so many files")
    arguments = parser.parse_args()
    sys.exit(trio.run(main, arguments.workers, arguments.clients, arguments.limit))
