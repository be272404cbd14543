"""For how long one large frame keeps everybody else waiting: the figures of docs/explanation/large-frames.md.

    python benchmarks/stalls.py            # frames of 1 MiB
    python benchmarks/stalls.py 16         # of so many MiB

Each kind of frame is decoded at once; at once in a thread, while the main thread looks at the clock; and in blocks,
with Python's garbage collector and without. The longest time without a turn for others counts, in processor time of
this process, so that other processes do not count, and of several tries the shortest.
"""

from __future__ import annotations

import gc
import sys
import threading
import time
from typing import TYPE_CHECKING

from pyipc.protocol import codec, nesting
from pyipc.protocol.blocks import BLOCK_SIZE, LargeFrame

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 2**20
MAX_DEPTH = 64
TRIES = 3


def event(data: bytes) -> bytes:
    """An event with this data."""
    return b'{"type":"e","data":%b}' % data


def many(unit: bytes, size: int) -> bytes:
    """An event with a list of about so many bytes."""
    return event(b"[%b]" % b",".join([unit] * (size // (len(unit) + 1))))


def kinds(size: int) -> dict[str, bytes]:
    """A frame of about so many bytes of each kind."""
    members = b",".join(b'"%d":1' % number for number in range(size // 11))
    return {
        "records, as programs send them": many(b'{"id":123,"name":"some name","tags":["a","b"],"x":1.25}', size),
        "whole numbers": many(b"1234567", size),
        "short texts": many(b'"abcdefg"', size),
        "empty lists": many(b"[]", size),
        "lists 60 deep": many(b"[" * 60 + b"]" * 60, size),
        "numbers of 36 digits": many(b"8.988465674311579538646525953945123e307", size),
        "one object": event(b"{%b}" % members),
        "one text": event(b'"%b"' % (b"x" * size)),
        "one text, all escapes": event(b'"%b"' % (b'\\"' * (size // 2))),
    }


def at_once(frame: bytes) -> codec.Event:
    """What is done with a small frame."""
    if nesting.too_deep(frame, MAX_DEPTH):
        raise nesting.nested_too_deep(MAX_DEPTH)
    return codec.decode(frame)


def time_at_once(frame: bytes) -> float:
    """Processor seconds that it takes."""
    began = time.process_time()
    event = at_once(frame)
    took = time.process_time() - began
    del event  # to free what is large takes time too, and is not counted anywhere here
    return took


def stall_by_thread(frame: bytes) -> float:
    """The longest time in seconds for which this thread stands still while another one decodes."""
    other = threading.Thread(target=at_once, args=[frame])
    longest = 0.0
    last = time.process_time()
    other.start()
    while other.is_alive():
        now = time.process_time()
        longest = max(longest, now - last)
        last = now
    other.join()
    return max(longest, time.process_time() - last)


def longest_block(frame: bytes) -> float:
    """The longest time in seconds that one block takes."""
    large = LargeFrame(frame, len(frame), MAX_DEPTH, BLOCK_SIZE)
    longest, event = 0.0, None
    while event is None:
        began = time.process_time()
        event = large.go_on()
        longest = max(longest, time.process_time() - began)
    return longest


def without_collector(frame: bytes) -> float:
    """The same, where Python's garbage collector does not run."""
    gc.disable()
    try:
        return longest_block(frame)
    finally:
        gc.enable()


def measured(what: Callable[[bytes], float], frame: bytes) -> str:
    """The smallest of several tries, in milliseconds."""
    best = float("inf")
    for _ in range(TRIES):
        gc.collect()
        best = min(best, what(frame))
    return f"{best * 1_000:,.1f}"


def main() -> None:
    """Print the table."""
    size = int(sys.argv[1]) * MIB if sys.argv[1:] else MIB
    print(f"| {size // MIB} MiB of | at once, ms | in a thread | in blocks | in blocks, no collector |")
    print("|---|---:|---:|---:|---:|")
    for name, frame in kinds(size).items():
        figures = [measured(what, frame) for what in (time_at_once, stall_by_thread, longest_block, without_collector)]
        print(f"| {name} | {' | '.join(figures)} |", flush=True)


if __name__ == "__main__":
    main()
