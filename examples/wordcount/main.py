"""Count the words of Python's standard library: workers serve one address, clients send them files, one worker is killed.

Run it as ``python examples/wordcount/main.py [--workers 4] [--clients 2] [--limit FILES]``.

This program is the primary. It starts the workers and the clients, shows how far they are, kills a worker when a third
of the files is counted, and at the end compares what the clients were answered with a count of its own. It exits with 1
if they differ.
"""

from __future__ import annotations

import argparse
import functools
import os
import signal
import sys
from collections.abc import Callable
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
    # A bare name is a local server that only this user can reach; the number keeps two runs apart.
    address = f"wordcount-{os.getpid()}"
    print(f"{workers} workers serve {address!r}; {clients} clients send them {len(files):,} files.", flush=True)
    primary = cluster.Cluster(
        str(HERE / "server.py"), workers=workers, role="server", env={"WORDCOUNT_ADDRESS": address}, restart_interval=0
    )
    progress = Progress(primary, len(files))
    tally = Tally()
    lost = 0

    async def send_share(number: int) -> None:
        nonlocal lost
        client = await primary.fork(f"client-{number + 1}", role="client", exec=str(HERE / "client.py"))
        share = {"address": address, "number": number, "clients": clients, "limit": len(files)}
        sent = await client.request("send-files", share)
        tally.add(sent["count"])
        lost += sent["lost"]

    async with primary:
        async with trio.open_nursery() as background:
            background.start_soon(progress.show)
            background.start_soon(kill_one, primary, progress)
            async with trio.open_nursery() as nursery:
                for number in range(clients):
                    nursery.start_soon(send_share, number)
            background.cancel_scope.cancel()
        progress.draw(progress.table())

    same = report(tally.totals(), await trio.to_thread.run_sync(count_here, files))
    favorites = ", ".join(f"{word} ({times:,})" for word, times in tally.words.most_common(5))
    again = progress.files.total() - len(files)
    print(f"\nThe most common words: {favorites}.")
    print(f"With the worker {lost} connections were lost, ...{again}")
    print("Nothing was lost, and nothing counted twice." if same else "THE COUNTS DIFFER.")
    return 0 if same else 1


async def kill_one(primary: cluster.Cluster, progress: Progress) -> None:
    """When a third is done kill a server, as a crash would: whatever it has at hand is gone."""
    await progress.until(progress.total // 3)
    victim = next(worker for worker in primary.workers.values() if worker.role == "server")
    assert victim.pid is not None
    progress.tell(f"worker {victim.id} is killed: process {victim.pid}")
    os.kill(victim.pid, signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)


def count_here(files: list[Path]) -> Tally:
    tally = Tally()
    for path in files:
        tally.add(count(read(path)))
    return tally
