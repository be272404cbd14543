"""A worker process for tests of handing over: ``handing_program.py ID MODE DESCRIPTOR``.

``serve``: answers each connection with its id, and says when the peer is gone. ``idle``: takes connections, and keeps
them. ``deaf``: takes in what is handed to it, tells of each on its output, and takes none of it. ``blocked``: blocks
its event loop for ever once the first has come. ``slow``: as ``serve``, but has each connection for ten times as long.
"""

from __future__ import annotations

import socket
import sys
import time

import trio

from pyipc.cluster.courier import SocketMailbox
from pyipc.cluster.listeners import HandedStream, TrioListener
from pyipc.cluster.receiving import Inlet, Receiving


async def main(worker: str, mode: str, descriptor: int) -> None:
    receiving = Receiving(SocketMailbox(socket.socket(fileno=descriptor)))
    inlet = receiving.open("a")
    delay = {"serve": 0.005, "slow": 0.05}.get(mode, 0.0)

    async def serve(stream: HandedStream) -> None:
        if delay:
            await trio.sleep(delay)
        await stream.send_all(worker.encode() + b"\n")
        if not delay or mode == "idle":
            await stream.receive_some()

    if mode in ("deaf", "blocked"):
        put = inlet.put

        def tell(number: int, carrier: socket.socket) -> None:
            put(number, carrier)
            print(number, flush=True)
            if mode == "blocked":
                time.sleep(3600)

        Inlet.put = lambda self, number, carrier: tell(number, carrier)  # type: ignore[method-assign]
    async with trio.open_nursery() as nursery:
        await nursery.start(receiving.run)
        print("ready", flush=True)
        if mode not in ("deaf", "blocked"):
            nursery.start_soon(trio.serve_listeners, serve, [TrioListener(inlet)])


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2], int(sys.argv[3]))
