"""A worker process for tests of handing over: ``handing_program.py ID MODE DESCRIPTOR``.

``serve``: answers each connection with its id. ``fast``: the same, but it takes 0.03 s. ``deaf``: tells of each that
arrives on its output, and takes none.
"""

from __future__ import annotations

import contextlib
import socket
import sys
from typing import TYPE_CHECKING

import trio

from pyipc.cluster.courier import SocketMailbox
from pyipc.cluster.listeners import HandedStream, TrioListener
from pyipc.cluster.receiving import Inlet, Receiving

if TYPE_CHECKING:
    from pyipc.transports import Carrier


async def main(worker: str, mode: str, descriptor: int) -> None:
    receiving = Receiving(SocketMailbox(socket.socket(fileno=descriptor)))
    inlet = receiving.open("a")
    delay = {"serve": 0.005, "fast": 0.03}.get(mode, 0.0)

    async def serve(stream: HandedStream) -> None:
        await trio.sleep(delay)
        with contextlib.suppress(trio.BrokenResourceError):  # the peer may be gone at any time
            await stream.send_all(worker.encode() + b"\n")

    if mode == "deaf":
        put = inlet.put

        def tell(number: int, carrier: Carrier) -> None:
            put(number, carrier)
            print(number, flush=True)

        Inlet.put = lambda self, number, carrier: tell(number, carrier)  # type: ignore[method-assign]
    async with trio.open_nursery() as nursery:
        await nursery.start(receiving.run)
        print("ready", flush=True)
        if mode != "deaf":
            nursery.start_soon(trio.serve_listeners, serve, [TrioListener(inlet)])


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2], int(sys.argv[3]))
