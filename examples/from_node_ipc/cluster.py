"""Workers that share one listener, which the primary opens and they inherit: PROGRAM world ADDRESS."""

from __future__ import annotations

import functools
import socket
import sys

import trio

import pyipc

WORKERS = 2


async def primary(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        number = listener.fileno()
        work = functools.partial(
            trio.run_process, [sys.executable, __file__, f"fd:{number}"], pass_fds=[number], check=False
        )
        async with trio.open_nursery() as nursery:
            for _ in range(WORKERS):
                nursery.start_soon(work)
            for name in ("hello", "goodbye"):
                await client(path, name)
            nursery.cancel_scope.cancel()  # which ends the workers
        await trio.Path(path).unlink()  # nobody else does: to the workers it is a descriptor


async def client(path: str, name: str) -> None:
    async with pyipc.connect(f"unix:{path}") as client:
        print(await client.request("greet", name))


async def worker(address: str) -> None:
    server = pyipc.Server(address)

    @server.on("greet")
    def greet(message: pyipc.Message[str]) -> str:
        return f"{message.data} world!"

    await server.run()


if __name__ == "__main__":
    where = sys.argv[-1]
    if where.startswith("fd:"):
        trio.run(worker, where)
    else:
        trio.run(primary, where.removeprefix("unix:"))
