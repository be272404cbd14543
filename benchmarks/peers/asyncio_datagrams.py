"""asyncio's datagram endpoints: JSON by msgspec, a message a datagram. The variant ``uvloop`` runs them on uvloop.

A server answers right where a datagram arrives; a client's come through a queue to the task that waits for them. Nobody
notices a lost one, other than by waiting for ever.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from common import Arguments, Envelope, arguments, connect, decode, encode, listen, ready
from conversation import converse_async, handlers

if TYPE_CHECKING:
    from collections.abc import Callable


class Endpoint(asyncio.DatagramProtocol):
    """Hands what arrives to a function, with who sent it."""

    def __init__(self, take: Callable[[Envelope, Any], object]) -> None:
        self._take = take

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._take(decode(data), addr)

    def error_received(self, exc: Exception) -> None:
        raise exc


async def serve(asked: Arguments) -> None:
    handle = handlers(asked.workload, asked.params)

    def take(message: Envelope, sender: Any) -> None:
        if (answer := handle[message.type](message)) is not None:
            transport.sendto(encode(*answer), sender)

    sock = listen(asked.address)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: Endpoint(take), sock=sock)
    ready(asked.address, sock)
    await asyncio.Event().wait()


async def drive(asked: Arguments) -> None:
    received: asyncio.Queue[Envelope] = asyncio.Queue()

    def take(message: Envelope, _sender: Any) -> None:
        received.put_nowait(message)

    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: Endpoint(take), sock=connect(asked.address))

    async def send(event: str, data: object = None, call: int = 0) -> None:
        transport.sendto(encode(event, data, call))

    await converse_async(asked.workload, asked.params, send, received.get)


def main() -> None:
    asked = arguments()
    run = asyncio.run
    if asked.params.variant == "uvloop":
        import uvloop

        run = uvloop.run
    run((serve if asked.role == "serve" else drive)(asked))


if __name__ == "__main__":
    main()
