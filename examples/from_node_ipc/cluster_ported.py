"""Workers that share one listener, with node-ipc's interface: PROGRAM world ADDRESS.

In Node the workers open the socket through their primary, behind the scenes; here the primary opens it, and what they
serve is the descriptor that they inherit. Nobody deletes the socket under another's feet: ``unlink`` is off.
"""

from __future__ import annotations

import functools
import socket
import sys

import trio

from pyipc.node_ipc import IPC, Socket

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
                ipc = IPC()
                client(ipc, path, name)
                await ipc.run()
            nursery.cancel_scope.cancel()  # which ends the workers
        await trio.Path(path).unlink()  # nobody else does: to the workers it is a descriptor


def client(ipc: IPC, path: str, name: str) -> None:
    def set_up() -> None:
        ipc.of.world.on("connect", lambda: ipc.of.world.emit("message", name))
        ipc.of.world.on("message", answered)

    def answered(data: str) -> None:
        print(data)
        ipc.disconnect("world")

    ipc.connect_to("world", path, set_up)


def worker(ipc: IPC, descriptor: str) -> None:
    def answer(data: str, socket: Socket) -> None:
        ipc.server.emit(socket, "message", data + " world!")

    ipc.config.unlink = False
    ipc.serve(descriptor, lambda: ipc.server.on("message", answer))
    ipc.server.start()


if __name__ == "__main__":
    where = sys.argv[-1]
    if where.startswith("fd:"):
        ipc = IPC()
        worker(ipc, where)
        trio.run(ipc.run)
    else:
        trio.run(primary, where.removeprefix("unix:"))
