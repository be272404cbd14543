"""The ceiling of one-way events: as many as msgspec encodes or decodes, whichever is fewer.

Sender and receiver are two processes that work at the same time, so the slower of the two decides.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec
from common import DATA, EVENT, arguments, report

if TYPE_CHECKING:
    from collections.abc import Callable


class Envelope(msgspec.Struct, gc=False):
    type: str
    data: Any = None


def seconds_per_call(work: Callable[[], object], count: int) -> float:
    began = time.perf_counter()
    for _ in range(count):
        work()
    return (time.perf_counter() - began) / count


def main() -> None:
    _, _, count = arguments()
    encode = msgspec.json.Encoder().encode
    decode = msgspec.json.Decoder(Envelope).decode
    frame = encode(Envelope(EVENT, DATA))
    assert len(frame) == 64, len(frame)
    encoding = seconds_per_call(lambda: encode(Envelope(EVENT, DATA)), count)
    decoding = seconds_per_call(lambda: decode(frame), count)
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
