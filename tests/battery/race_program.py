"""Servers that all want one address: ``python -m tests.battery.race_program THREADS``, told what to do by lines.

``["race", address, when]`` starts a server in each thread, with an event loop of its own, at a time of the monotonic
clock, which all processes share; the answer is how each start went. ``["stop"]`` ends the one that has won.
"""

from __future__ import annotations

import json
import queue
import sys
import threading
import time

import trio

import pyipc

Outcome = tuple[str, str]


def start(address: str, when: float, outcomes: queue.Queue[Outcome], stop: threading.Event) -> None:
    """One server: say whether it has won, and serve until it is stopped."""

    async def serve() -> None:
        async with pyipc.Server(address):
            outcomes.put(("won", ""))
            await trio.to_thread.run_sync(stop.wait)

    time.sleep(max(0.0, when - time.monotonic()))
    try:
        trio.run(serve)
    except Exception as error:
        outcomes.put((type(error).__name__, str(error)))


def main() -> None:
    """Do as told until there is nothing more to do."""
    count = int(sys.argv[1])
    threads: list[threading.Thread] = []
    stop = threading.Event()
    for line in sys.stdin:
        match json.loads(line):
            case ["race", address, when]:
                stop = threading.Event()
                outcomes: queue.Queue[Outcome] = queue.Queue()
                threads = [threading.Thread(target=start, args=(address, when, outcomes, stop)) for _ in range(count)]
                for thread in threads:
                    thread.start()
                print(json.dumps([outcomes.get() for _ in threads]), flush=True)
            case ["stop"]:
                stop.set()
                for thread in threads:
                    thread.join()
                print(json.dumps("stopped"), flush=True)
    stop.set()


if __name__ == "__main__":
    main()
