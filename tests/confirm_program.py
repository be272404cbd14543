"""One side of a confirmed event, which ends itself with SIGKILL at a step: ``python -m tests.confirm_program``.

What its handler does is written to a file, so that it can be read when nobody is left to ask.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

import pyipc
from pyipc.transports import Link, Listener, Transport, transport_for

if TYPE_CHECKING:
    from collections.abc import Mapping

DELIVER, OUTCOME = b'"pyipc.deliver"', b'"pyipc.outcome"'


def die() -> None:
    """End at once, as with ``kill -9``: nothing is flushed, said or closed by this program."""
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))


class DeadlyLink(Link):
    """Passes everything on, and ends the program before or after certain bytes."""

    def __init__(self, link: Link, step: str) -> None:
        self._link = link
        self._step = step

    @property
    def peer(self) -> pyipc.Peer:
        return self._link.peer

    def _dies(self, step: str, data: bytes | bytearray | memoryview, mark: bytes) -> None:
        if self._step == step and mark in bytes(data):
            die()

    def _before(self, data: bytes | bytearray | memoryview) -> None:
        self._dies("before it is sent", data, DELIVER)
        self._dies("before the outcome is sent", data, OUTCOME)

    def _after(self, data: bytes | bytearray | memoryview) -> None:
        self._dies("after it was sent", data, DELIVER)
        self._dies("after the outcome was sent", data, OUTCOME)

    def send_nowait(self, data: bytes | bytearray | memoryview) -> int:
        self._before(data)
        sent = self._link.send_nowait(data)
        if sent == len(data):
            self._after(data)
        return sent

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        self._before(data)
        await self._link.send(data)
        self._after(data)

    async def receive(self) -> bytes:
        chunk = await self._link.receive()
        self._dies("before it is read", chunk, DELIVER)
        self._dies("before the outcome is read", chunk, OUTCOME)
        return chunk

    def send_eof(self) -> bool:
        return self._link.send_eof()

    async def aclose(self) -> None:
        await self._link.aclose()


class DeadlyTransport(Transport):
    """Has such links."""

    def __init__(self, scheme: str, step: str) -> None:
        self._transport = transport_for(scheme)
        self._step = step

    async def connect(self, address: pyipc.Address, options: Mapping[str, object]) -> Link:
        return DeadlyLink(await self._transport.connect(address, options), self._step)

    async def listen(self, address: pyipc.Address, options: Mapping[str, object]) -> Listener:
        return DeadlyListener(await self._transport.listen(address, options), self._step)


class DeadlyListener(Listener):
    """Accepts such links."""

    def __init__(self, listener: Listener, step: str) -> None:
        self._listener = listener
        self._step = step

    @property
    def address(self) -> pyipc.Address:
        return self._listener.address

    async def accept(self) -> Link:
        return DeadlyLink(await self._listener.accept(), self._step)

    async def aclose(self) -> None:
        await self._listener.aclose()


async def serve(endpoint: pyipc.Endpoint, step: str, folder: Path) -> None:
    """Handle events, and write down which, until killed."""
    router = pyipc.Router()
    log = os.open(folder / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(what: str, message: pyipc.Message[Any]) -> None:
        os.write(log, f"{what} {'again' if message.redelivered else 'first'}\n".encode())

    @router.on("work")
    async def work(message: pyipc.Message[Any]) -> None:
        note("begun", message)
        if step == "while it is handled":
            die()
        while message.data == "wait" and not (folder / "release").exists():  # noqa: ASYNC110 - another process makes it
            await trio.sleep(0.01)
        note("done", message)
        if step == "when it is handled":
            die()

    async with pyipc.Server(endpoint, router=router) as server:
        print(server.addresses[0], flush=True)
        await trio.sleep_forever()


async def emit(endpoint: pyipc.Endpoint, step: str, data: str) -> None:
    """Emit one event and say how that ended."""
    async with pyipc.connect(endpoint, reconnect_interval=0.02, reconnect_max_interval=0.1) as client:
        print("connected", flush=True)
        try:
            await client.emit("work", data, confirm=True, timeout=20)
        except pyipc.IPCError as error:
            print(type(error).__name__, flush=True)
        else:
            print("confirmed", flush=True)
        if step == "when it is confirmed":
            die()


def main() -> None:
    role, address, step, rest = sys.argv[1:]
    parsed = pyipc.parse_address(address)
    endpoint = pyipc.Endpoint(parsed, transport=DeadlyTransport(parsed.scheme, step))
    if role == "server":
        trio.run(serve, endpoint, step, Path(rest))
    else:
        trio.run(emit, endpoint, step, rest)


if __name__ == "__main__":
    main()
