"""The ceiling of one-way events: as many as msgspec encodes or decodes, whichever is fewer.

The role ``alone`` measures the one after the other. The role ``together`` measures both at once in two
processes, as a sender and a receiver work: on processors that share a core, this is all there is to have.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import msgspec

from common import DATA, EVENT, LIFETIME, arguments, ready, report

if TYPE_CHECKING:
    from collections.abc import Callable


class Envelope(msgspec.Struct, gc=False):
    type: str
    data: Any = None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Envelope).decode
FRAME = _encode(Envelope(EVENT, DATA))
assert len(FRAME) == 64, len(FRAME)


def encode() -> object:
    return _encode(Envelope(EVENT, DATA))


def decode() -> object:
    return _decode(FRAME)


def seconds_per_call(work: Callable[[], object], count: int) -> float:
    began = time.perf_counter()
    for _ in range(count):
        work()
    return (time.perf_counter() - began) / count


def together(count: int) -> tuple[float, float]:
    """Seconds to encode here while another process decodes, and to decode there."""
    command = [sys.executable, __file__, "decode", "-", str(count)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdin is not None
            assert other.stdout is not None
            other.stdout.readline()  # "ready"
            other.stdin.write("go\n")
            other.stdin.flush()
            encoding = seconds_per_call(encode, count)
            output, _ = other.communicate(timeout=LIFETIME)
        finally:
            other.kill()
    return encoding, float(json.loads(output)["seconds"])


def main() -> None:
    role, _, count = arguments()
    if role == "decode":
        ready()
        sys.stdin.readline()
        report({"seconds": seconds_per_call(decode, count)})
        return
    if role == "together":
        encoding, decoding = together(count)
    else:
        encoding, decoding = seconds_per_call(encode, count), seconds_per_call(decode, count)
    report(
        {
            "count": count,
            "per_second": 1 / max(encoding, decoding),
            "encode_us": encoding * 1e6,
            "decode_us": decoding * 1e6,
        }
    )


if __name__ == "__main__":
    main()
