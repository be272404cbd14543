"""A server is replaced while a client goes on asking: every request is answered, by the one or the other.

The old server is told to end with SIGTERM, as systemd does it. It asks its client to go elsewhere, answers what it was
asked, and ends. Run it without arguments; it starts the servers as processes of their own.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections import Counter
from functools import partial

import trio

import pyipc


async def serve(address: str) -> None:
    """One server, which drains when it is told to end."""
    server = pyipc.Server(address)

    @server.on("work")
    async def work(message: pyipc.Message[None]) -> str:
        await trio.sleep(0.01)
        return address.rpartition("/")[2]

    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            await nursery.start(server.run)
            print("ready", flush=True)
            async for _ in signals:
                print(await server.drain(timeout=20, message="there is a new version"), flush=True)
                return


class Process:
    """A server in a process of its own."""

    def __init__(self, address: str) -> None:
        self.command = [sys.executable, __file__, address]
        self.ready = trio.Event()
        self.report = ""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Start it, tell when it is there, and wait for its end."""
        process: trio.Process
        async with trio.open_nursery() as nursery:
            process = await nursery.start(partial(trio.run_process, self.command, stdout=subprocess.PIPE))
            self.terminate = process.terminate  # which is SIGTERM
            assert process.stdout is not None
            async for chunk in process.stdout:
                self.report += chunk.decode()
                if not self.ready.is_set():
                    self.ready.set()
                    task_status.started()


async def main() -> None:
    """The old server, its client, and the new one."""
    answers: Counter[str] = Counter()
    enough = trio.Event()
    with tempfile.TemporaryDirectory() as folder:
        blue, green = f"unix:{folder}/blue", f"unix:{folder}/green"
        old, new = Process(blue), Process(green)

        async with trio.open_nursery() as servers:
            await servers.start(old.run)
            async with pyipc.connect(blue, green) as client:

                async def ask() -> None:
                    while not (answers["blue"] >= 50 and answers["green"] >= 50):
                        answers[await client.request("work")] += 1
                        if answers["blue"] >= 50:
                            enough.set()

                async with trio.open_nursery() as nursery:
                    for _ in range(10):
                        nursery.start_soon(ask)
                    await servers.start(new.run)
                    await enough.wait()
                    old.terminate()
                print("both have answered:", answers["blue"] >= 50 and answers["green"] >= 50)
                print("the client has moved:", client.statistics().moves)
            new.terminate()
    print("the old server:", old.report.removeprefix("ready\n").strip())
    print("the new server:", new.report.removeprefix("ready\n").strip())


if sys.argv[1:]:
    trio.run(serve, sys.argv[1])
else:
    trio.run(main)
