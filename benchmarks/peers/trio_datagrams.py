"""trio over UDP: non-blocking sockets, trio's readiness calls and msgspec, a message a datagram.

A task reads what is there before it waits for more. Nobody notices a lost datagram, other than by waiting for ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from common import Arguments, Envelope, arguments, connect, decode, encode, listen, ready
from conversation import converse_async, handlers

if TYPE_CHECKING:
    import socket

DATAGRAM_SIZE = 65_536


async def receive_from(sock: socket.socket) -> tuple[Envelope, Any]:
    """The next message, and who sent it."""
    while True:
        try:
            datagram, sender = sock.recvfrom(DATAGRAM_SIZE)
        except BlockingIOError:
            await trio.lowlevel.wait_readable(sock)
        else:
            return decode(datagram), sender


async def serve(asked: Arguments) -> None:
    handle = handlers(asked.workload, asked.params)
    with listen(asked.address) as sock:
        sock.setblocking(False)
        ready(asked.address, sock)
        while True:
            message, sender = await receive_from(sock)
            if (answer := handle[message.type](message)) is not None:
                sock.sendto(encode(*answer), sender)


async def drive(asked: Arguments) -> None:
    sock = connect(asked.address)
    sock.setblocking(False)

    async def send(event: str, data: object = None, call: int = 0) -> None:
        sock.send(encode(event, data, call))

    async def receive() -> Envelope:
        message, _ = await receive_from(sock)
        return message

    await converse_async(asked.workload, asked.params, send, receive)


async def main() -> None:
    asked = arguments()
    await (serve if asked.role == "serve" else drive)(asked)


if __name__ == "__main__":
    trio.run(main)
