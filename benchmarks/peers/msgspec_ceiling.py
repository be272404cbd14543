"""The ceiling of one-way events: as many as msgspec encodes or decodes, whichever is fewer.

By default the driver measures the one after the other, and the server sleeps. In the variant ``together`` the server
decodes while the driver encodes, as a receiver and a sender work: on processors that share a core, or clocks that
depend on load, this is all there is to have.
"""

from __future__ import annotations

import json
import signal
import time
from typing import TYPE_CHECKING, Any

import msgspec

from common import (
    EVENT,
    Envelope,
    Params,
    arguments,
    begin,
    connect,
    encode,
    listen,
    payload,
    ready,
    report_rate,
)

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable


def seconds(work: Callable[[Any], object], argument: object, count: int) -> float:
    began = time.perf_counter()
    for _ in range(count):
        work(argument)
    return time.perf_counter() - began


def encoding(params: Params) -> float:
    # The encoder itself, without the making of an envelope for each event.
    return seconds(msgspec.json.Encoder().encode, Envelope(EVENT, payload(params.size)), params.count)


def decoding(params: Params) -> float:
    frame = encode(EVENT, payload(params.size))
    assert len(frame) == params.size
    return seconds(msgspec.json.Decoder(Envelope).decode, frame, params.count)


def decode_when_told(listener: socket.socket, params: Params) -> None:
    sock, _ = listener.accept()
    while sock.recv(1):
        sock.sendall(json.dumps(decoding(params)).encode())


def together(address: str, params: Params) -> tuple[float, float]:
    with connect(address) as sock:
        sock.sendall(b"1")
        here = encoding(params)
        return here, json.loads(sock.recv(4_096))


def main() -> None:
    args = arguments()
    if args.role == "serve":
        with listen(args.address) as listener:
            ready(args.address, listener)
            if args.params.variant == "together":
                decode_when_told(listener, args.params)
            signal.pause()
    begin()
    both = (
        together(args.address, args.params)
        if args.params.variant == "together"
        else (encoding(args.params), decoding(args.params))
    )
    report_rate(args.params.count, max(both))


if __name__ == "__main__":
    main()
