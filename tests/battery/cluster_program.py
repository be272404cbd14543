"""A worker that does jobs and notes each, and that starts as the mood of the moment has it; see test_r16_cluster."""

from __future__ import annotations

import contextlib
import os
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from tests.battery.ledger import Entry, Ledger, digest_of

if TYPE_CHECKING:
    import pyipc
    from pyipc import cluster

__all__ = ["FOLDER", "MOODS", "main", "set_mood"]

#: The variable that says where ledgers and moods are kept.
FOLDER = "PYIPC_TEST_FOLDER"
#: What may be wrong with the next worker that starts.
MOODS = ("unimportable", "slow")


def set_mood(folder: Path, mood: str) -> None:
    """Let one of the next workers that start be in this mood."""
    (folder / f"{mood}.mood").touch()


def _take_mood(folder: Path) -> str:
    """The mood of this worker, which nobody else has then."""
    for mood in MOODS:
        with contextlib.suppress(FileNotFoundError):
            (folder / f"{mood}.mood").unlink()
            return mood
    return ""


async def main(worker: cluster.Worker) -> None:
    """Work, until the worst."""
    folder = Path(os.environ[FOLDER])
    match _take_mood(folder):
        case "unimportable":
            import tests.cluster.programs.unimportable  # noqa: F401
        case "slow":
            time.sleep(1)  # noqa: ASYNC251 - as a program that computes
    life = f"worker{worker.id}.{worker.generation}"
    ledger = Ledger(folder / f"{life}.ledger")

    @worker.on("work")
    async def work(message: pyipc.Message[tuple[str, int, str]]) -> int:
        sender, place, text = message.data
        if random.random() < 0.5:
            await trio.sleep(0.002)
        # No job is told to be one that was given to somebody before.
        ledger.note_handled(life, Entry(sender, place), digest_of(text), redelivered=True)
        if random.random() < 0.5:
            await trio.sleep(0.002)
        return digest_of(text)

    @worker.on("exit")
    def leave(message: pyipc.Message[None]) -> None:
        os._exit(1)

    await worker.run()
