"""Workers in which something goes wrong, at the start or when they are asked to."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    import pyipc
    from pyipc import cluster


async def main(worker: cluster.Worker) -> None:
    """Do what the primary says, also what no program should."""
    kept: list[Any] = []

    @worker.on("who")
    def who(message: pyipc.Message[None]) -> list[int]:
        return [os.getpid(), worker.generation]

    @worker.on("environment")
    def environment(message: pyipc.Message[str]) -> str | None:
        return os.environ.get(message.data)

    @worker.on("exit")
    async def leave(message: pyipc.Message[int]) -> None:
        sys.exit(message.data)

    @worker.on("die")
    def die(message: pyipc.Message[int]) -> None:
        os._exit(message.data)

    @worker.on("crash")
    def crash(message: pyipc.Message[None]) -> None:
        ctypes.string_at(0)

    @worker.on("stop")
    def stop(message: pyipc.Message[None]) -> None:
        os.kill(os.getpid(), signal.SIGSTOP)

    @worker.on("block")
    def block(message: pyipc.Message[float]) -> None:
        time.sleep(message.data)

    @worker.on("spin")
    def spin(message: pyipc.Message[None]) -> None:
        while True:
            pass

    @worker.on("grow")
    def grow(message: pyipc.Message[int]) -> None:
        kept.append(bytearray(os.urandom(1)) * message.data)

    @worker.on("deafen")
    def deafen(message: pyipc.Message[None]) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    @worker.on("beget")
    def beget(message: pyipc.Message[None]) -> int:
        # It has all descriptors that this process has.
        return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"], close_fds=False).pid

    @worker.on("wait")
    async def wait(message: pyipc.Message[float]) -> None:
        await trio.sleep(message.data)

    await worker.run()


async def stubborn(worker: cluster.Worker) -> None:
    """Wait for ever, whoever is to leave."""
    with trio.CancelScope(shield=True):
        await worker.ready()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        await trio.sleep_forever()


async def tidy(worker: cluster.Worker) -> None:
    """Take a moment to leave, whatever the reason."""
    try:
        await worker.run()
    finally:
        with trio.CancelScope(shield=True):
            await trio.sleep(0.5)
            await trio.Path(os.environ["TIDIED"]).touch()


async def failing(worker: cluster.Worker) -> None:
    """Fail at the start, with an error that has a message."""
    raise LookupError("the sea is empty")


async def not_ready_but_the_second_fails(worker: cluster.Worker) -> None:
    """Fail at the start, or never be ready."""
    if worker.id == "2":
        raise LookupError("the sea is empty")
    await trio.sleep_forever()


async def the_second_fails_later(worker: cluster.Worker) -> None:
    """Fail when the other one is ready for a while, or be well."""
    if worker.id == "2":
        await trio.sleep(3)
        raise LookupError("the sea is empty")
    await main(worker)


async def exiting(worker: cluster.Worker) -> None:
    """Exit at the start, with the code that the environment says."""
    sys.exit(int(os.environ["CODE"]))


async def never_ready(worker: cluster.Worker) -> None:
    """Come up, and never be ready."""
    await trio.sleep_forever()


async def first_is_never_ready(worker: cluster.Worker) -> None:
    """Come up, and be ready only from the second time on."""
    if worker.generation == 1:
        await trio.sleep_forever()
    await main(worker)


async def second_is_never_ready(worker: cluster.Worker) -> None:
    """Be well the first time, and never ready after that."""
    if worker.generation > 1:
        await trio.sleep_forever()
    await main(worker)


async def stubborn_listener(worker: cluster.Worker) -> None:
    """Listen, and do what the primary says."""
    await worker.open_listeners(os.environ["ADDRESS"])
    await main(worker)


async def second_fails(worker: cluster.Worker) -> None:
    """Be well the first time, and fail each time after that."""
    if worker.generation > 1:
        raise LookupError("once was enough")
    await main(worker)


async def second_is_slow(worker: cluster.Worker) -> None:
    """Take a second to be ready, but not the first time."""
    if worker.generation > 1:
        await trio.sleep(1)
    await main(worker)


async def ready_then_exit(worker: cluster.Worker) -> None:
    """Be ready, and end at once with a code."""
    await worker.ready()
    sys.exit(int(os.environ.get("CODE", "1")))


async def ready_and_dead(worker: cluster.Worker) -> None:
    """Say that it is ready, and give nothing the time to send that."""
    await worker.ready()
    os._exit(3)


async def returning(worker: cluster.Worker) -> None:
    """Be ready, and return."""
    await worker.ready()


async def saying_enough(worker: cluster.Worker) -> None:
    """Tell the primary that it may let this worker go, which it does while it handles that."""
    await worker.ready()
    await worker.emit("enough")
    await worker.run()


async def second_fails_late(worker: cluster.Worker) -> None:
    """Be well the first time, and later fail each time when others are ready for long."""
    if worker.generation > 1:
        await trio.sleep(2)
        raise LookupError("once was enough")
    await main(worker)
