"""A peer that sends one message and the beginning of the next, says so, and waits to be killed.

python -m scenarios.half WIRE PLACE OFFSET
"""

from __future__ import annotations

import signal
import sys

from scenarios.wires import WIRES

#: Seconds after which a forgotten process ends.
LIFETIME = 30
#: The message that arrives, and the one that does not.
WHOLE = b'{"n": 1}'
TORN = b'{"n": 2, "s": "' + b"x" * 3_000 + b'"}'


def main() -> None:
    key, place, offset = sys.argv[1:4]
    signal.alarm(LIFETIME)
    wire = WIRES[key]
    sock = wire.connect(place)
    sock.sendall(wire.message(WHOLE))
    sock.sendall(wire.message(TORN)[: int(offset)])
    print('{"half": true}', flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
