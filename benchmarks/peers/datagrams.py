"""The floor over UDP: blocking sockets and msgspec, a message a datagram, and nothing that could be left out.

Nobody notices a lost datagram, other than by waiting for ever.
"""

from __future__ import annotations

from common import Arguments, Envelope, arguments, connect, decode, encode, listen, ready
from conversation import converse, handlers

#: What a datagram may have.
DATAGRAM_SIZE = 65_536


def serve(asked: Arguments) -> None:
    handle = handlers(asked.workload, asked.params)
    with listen(asked.address) as sock:
        ready(asked.address, sock)
        while True:
            datagram, sender = sock.recvfrom(DATAGRAM_SIZE)
            message = decode(datagram)
            if (answer := handle[message.type](message)) is not None:
                sock.sendto(encode(*answer), sender)


def drive(asked: Arguments) -> None:
    sock = connect(asked.address)

    def send(event: str, data: object = None, call: int = 0) -> None:
        sock.send(encode(event, data, call))

    def receive() -> Envelope:
        return decode(sock.recv(DATAGRAM_SIZE))

    converse(asked.workload, asked.params, send, receive)


def main() -> None:
    asked = arguments()
    (serve if asked.role == "serve" else drive)(asked)


if __name__ == "__main__":
    main()
