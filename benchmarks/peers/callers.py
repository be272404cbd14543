"""Who calls workers that serve one address: plain sockets, each for one question and its answer.

What it does itself is cheap, so that the workers and whoever hands over to them are what is measured.
"""

from __future__ import annotations

import selectors
import time

from common import DELIMITER, EVENT, arguments, begin, connect, encode, payload, report_rate

#: More than any answer.
BUFFER_SIZE = 65_536


def call(address: str, count: int, tasks: int, frame: bytes) -> None:
    """Make so many connections, so many of them at a time, and compare what comes back."""
    left = count
    with selectors.DefaultSelector() as selector:

        def dial() -> None:
            nonlocal left
            if left:
                left -= 1
                sock = connect(address)
                sock.sendall(frame)
                selector.register(sock, selectors.EVENT_READ, bytearray())

        for _ in range(tasks):
            dial()
        while selector.get_map():
            for key, _ in selector.select():
                sock, answer = key.fileobj, key.data
                chunk = sock.recv(BUFFER_SIZE)  # type: ignore[union-attr]
                assert chunk, "a connection was ended before its answer"
                answer += chunk
                if answer.endswith(DELIMITER):
                    assert answer == frame, "a wrong answer"
                    selector.unregister(sock)
                    sock.close()  # type: ignore[union-attr]
                    dial()


def main() -> None:
    asked = arguments()
    params = asked.params
    frame = encode(EVENT, payload(params.size)) + DELIMITER
    call(asked.address, params.tasks, params.tasks, frame)  # every worker has had one before it counts
    begin()
    began = time.perf_counter()
    call(asked.address, params.count, params.tasks, frame)
    report_rate(params.count, time.perf_counter() - began)


if __name__ == "__main__":
    main()
