"""Workers, and primaries, that do as little as shows that a cluster works; on every system."""

import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import trio

import pyipc
from pyipc import cluster

ROOT = Path(__file__).parents[3]


async def nesting(worker: cluster.Worker) -> None:
    """A worker that is the primary of another cluster, and needs that to the end."""
    async with cluster.Cluster("tests.cluster.programs.basic:main", workers=1) as primary:
        inner = primary.worker("1")
        worker.on("inner", lambda message: inner.request("kept"))
        await worker.ready()
        await worker.wait_draining()
        async with worker.busy():
            await worker.send(await inner.request("kept"))


async def main(worker: cluster.Worker) -> None:
    worker.on("message", lambda message: worker.send(["echo", message.data]))
    kept: list[object] = []
    worker.on("keep", lambda message: kept.append(message.data))
    worker.on("kept", lambda message: kept)

    def who(message: pyipc.Message[object]) -> dict[str, object]:
        return {
            "id": worker.id,
            "role": worker.role,
            "generation": worker.generation,
            "pid": os.getpid(),
            "env": os.environ.get("BASIC"),
            "arguments": sys.argv[1:],
        }

    def child(message: pyipc.Message[object]) -> str:
        ask = "from pyipc import cluster; print(cluster.is_worker)"
        return subprocess.run([sys.executable, "-c", ask], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()

    async def ask(message: pyipc.Message[list[int]]) -> object:
        return await worker.request("add", message.data)

    def end(message: pyipc.Message[int]) -> None:
        os._exit(message.data)

    def leave(message: pyipc.Message[object]) -> None:
        worker.disconnect()

    def hang(message: pyipc.Message[object]) -> None:
        while True:
            time.sleep(0.1)

    worker.on("who", who)
    worker.on("child", child)
    worker.on("sum", ask)
    worker.on("end", end)
    worker.on("return", leave)
    worker.on("hang", hang)
    await worker.run()


async def last_words(worker: cluster.Worker) -> None:
    """Says something, and is gone: most of it is heard only when it has ended."""
    for number in range(100):
        await worker.send([number, "x" * 1_000])


async def failing(worker: cluster.Worker) -> None:
    raise ValueError("this worker does not like it here")


async def serving(worker: cluster.Worker) -> None:
    """Serves ``ADDRESS``, with pyipc or with streams of trio."""
    address = os.environ["ADDRESS"]
    if os.environ.get("SERVE") == "streams":
        listeners = await worker.open_listeners(address)
        await worker.ready()
        await trio.serve_listeners(partial(answer, worker), listeners)
    server = pyipc.Server(address)
    server.on("who", lambda message: worker.id)
    server.on("end", lambda message: os._exit(3))
    server.on("echo", lambda message: message.data)
    await server.run()


async def answer(worker: cluster.Worker, stream: trio.abc.Stream) -> None:
    async with stream:
        said = await stream.receive_some()
        await stream.send_all(f"{worker.id} heard ".encode() + bytes(said))


async def lead() -> None:
    """A primary: tells the process ids of its workers, of which one never comes to its event loop again, and stays."""
    async with cluster.Cluster("tests.cluster.programs.basic:main", cwd=str(ROOT), workers=2) as primary:
        busy, _ = primary.workers.values()
        await busy.emit("hang")
        print(*(each.pid for each in primary.workers.values()), flush=True)
        await trio.sleep_forever()


async def both() -> None:
    """The same script as primary and worker."""
    async with cluster.default():
        worker = await cluster.fork(id="one", env={"BASIC": "forked"})
        print((await worker.request("who"))["env"], cluster.is_primary, flush=True)


if __name__ == "__main__":
    if cluster.is_worker:
        cluster.run_worker(main)
    else:
        trio.run(lead if "lead" in sys.argv else both)
