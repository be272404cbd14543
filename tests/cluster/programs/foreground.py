"""Workers for the tests of what runs in the foreground. The module is found in the directory that they run in."""

import os
import signal
import sys

import trio

from pyipc import cluster


async def steady(worker: cluster.Worker) -> None:
    """Is there until it is to leave."""
    await worker.run()


async def stubborn(worker: cluster.Worker) -> None:
    """Has always something to finish."""
    async with worker.busy():
        await worker.run()


async def deaf(worker: cluster.Worker) -> None:
    """Leaves neither when it is asked to nor after SIGTERM."""
    with trio.CancelScope(shield=True):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        await worker.ready()
        await trio.sleep_forever()


async def brief(worker: cluster.Worker) -> None:
    """Has nothing to do."""


async def ready_and_gone(worker: cluster.Worker) -> None:
    """Is ready, and has nothing to do."""
    await worker.ready()


async def slow(worker: cluster.Worker) -> None:
    """Is never ready."""
    await trio.sleep_forever()


async def failing(worker: cluster.Worker) -> None:
    """Fails at once."""
    raise ValueError("\x1b[31mred")


async def failing_later(worker: cluster.Worker) -> None:
    """Is ready, and fails."""
    await worker.ready()
    raise ValueError("as it is written")


async def telling(worker: cluster.Worker) -> None:
    """Says how it was started, and is there until it is to leave."""
    print("arguments:", sys.argv[1:], "role:", worker.role, "color:", os.environ.get("COLOR"), flush=True)
    print("told:", os.environ.get("NOTIFY_SOCKET"), "in:", os.path.basename(os.getcwd()), flush=True)
    await worker.run()


async def starting_a_cluster(worker: cluster.Worker) -> None:
    """Does what a program does that forgets that its workers run it as well."""
    await cluster.Runner("foreground:steady", workers=1).run()
