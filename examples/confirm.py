"""Nothing is lost when the server is killed in the middle of its work: ``python examples/confirm.py``.

The client sends orders, each of which it wants to be confirmed. The server is ended with ``kill -9`` when it has the
third in its book, and started again. The order comes again, and its handler is told that it may be for the second
time. A handler that must not do its work twice, such as this one, looks into what it has written down.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from pathlib import Path

import trio

import pyipc


async def serve(address: str, book: Path) -> None:
    server = pyipc.Server(address)

    @server.on("order")
    def order(message: pyipc.Message[int]) -> None:
        seen = book.read_text().split() if book.exists() else []
        if message.redelivered and str(message.data) in seen:
            print(f"order {message.data} came again, and is in the book already", flush=True)
            return
        with book.open("a") as file:
            file.write(f"{message.data}\n")
        print(f"order {message.data} is in the book", flush=True)
        if len(seen) == 2:
            os.kill(os.getpid(), signal.SIGKILL)  # before anybody hears of it

    await server.run()


async def keep_up(address: str, book: Path) -> None:
    while True:
        await trio.run_process([sys.executable, __file__, address, str(book)], check=False)
        print("the server is gone, and started again", flush=True)


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        book = Path(folder, "book")
        address = f"unix:{folder}/socket"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_up, address, book)
            async with pyipc.connect(address, connect_timeout=30) as client:
                for number in range(1, 6):
                    await client.emit("order", number, confirm=True)
                    print(f"order {number} is confirmed", flush=True)
            nursery.cancel_scope.cancel()
        print("in the book:", *(await trio.Path(book).read_text()).split())


if __name__ == "__main__":
    if len(sys.argv) > 1:
        trio.run(serve, sys.argv[1], Path(sys.argv[2]))
    else:
        trio.run(main)
