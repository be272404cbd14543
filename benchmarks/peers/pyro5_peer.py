"""Pyro5: methods of a remote object, with Pyro's JSON serializer.

With serpent, its default, a call takes nearly twice as long; its marshal cannot do batches. Pyro looks up the name of
the method, which is the handler. A proxy belongs to a thread and has one call at a time, so that many requests are many
threads with a connection each, and as many threads in the server. For every one-way call the server starts a thread, so
events may change places; the variant ``batch`` puts a hundred calls into one message instead, which keeps them in
order. There is no ``echo`` and no ``broadcast``, as nobody calls back, and no ``idle``, as a connection is a thread.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import Pyro5.api

from common import Arguments, Params, arguments, begin, payload, ready, report_laps, report_rate, target, warm_up
from conversation import check

BATCH = 100


class Handlers:
    """What the server offers."""

    def __init__(self, count: int) -> None:
        self._seen = 0
        self._lock = threading.Lock()
        self._all_seen = threading.Event()
        self._count = count

    def ask(self, data: Any) -> Any:
        return data

    def take(self, data: Any) -> int:
        return len(data["s"])

    def tick(self, data: Any) -> None:
        with self._lock:
            self._seen += 1
            if self._seen == self._count:
                self._all_seen.set()

    def done(self) -> int:
        """Waits until all events have been handled, and tells how many."""
        self._all_seen.wait()
        return self._seen


def configure(params: Params) -> None:
    Pyro5.config.SERIALIZER = "json"
    Pyro5.config.SOCK_NODELAY = True
    Pyro5.config.THREADPOOL_SIZE = params.tasks + 10


def serve(asked: Arguments) -> None:
    configure(asked.params)
    where = target(asked.address)
    daemon = Pyro5.api.Daemon(unixsocket=where) if isinstance(where, str) else Pyro5.api.Daemon(*where)
    Pyro5.api.oneway(Handlers.tick)
    daemon.register(Pyro5.api.expose(Handlers)(asked.params.count), "handlers")
    ready(asked.address if isinstance(where, str) else f"tcp:{daemon.locationStr}")
    daemon.requestLoop()


def connect(address: str) -> Any:
    scheme, _, rest = address.partition(":")
    proxy = Pyro5.api.Proxy(f"PYRO:handlers@{'./u:' if scheme == 'unix' else ''}{rest}")
    proxy._pyroBind()
    return proxy


# --- driving -------------------------------------------------------------------------------------------------------


def drive(asked: Arguments) -> None:
    configure(asked.params)
    loops = {"request": request, "requests": requests, "events": events, "large": large}
    loops[asked.workload](asked.address, asked.params)


def request(address: str, params: Params) -> None:
    proxy = connect(address)
    data, laps = payload(params.size), []
    first = warm_up(params.count)
    for call in range(first + params.count):
        if call == first:
            begin()
        began = time.perf_counter()
        answer = proxy.ask(data)
        laps.append(time.perf_counter() - began)
        check(answer, data)
    report_laps(laps[first:])


def requests(address: str, params: Params) -> None:
    calls = iter(range(params.count))
    together = threading.Barrier(params.tasks + 1)
    answered: list[int] = []

    def ask(task: int) -> None:
        proxy = connect(address)
        data = payload(params.size, 100 + task)
        together.wait()  # all are connected
        together.wait()  # and begin
        for call in calls:
            check(proxy.ask(data), data)
            answered.append(call)

    threads = [threading.Thread(target=ask, args=(task,), daemon=True) for task in range(params.tasks)]
    for thread in threads:
        thread.start()
    together.wait()
    begin()
    together.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    check(len(answered), params.count)
    report_rate(params.count, seconds)


def events(address: str, params: Params) -> None:
    proxy = connect(address)
    data = payload(params.size)
    check(proxy.ask(data), data)
    begin()
    began = time.perf_counter()
    if params.variant == "batch":
        for sent in range(0, params.count, BATCH):
            batch = Pyro5.api.BatchProxy(proxy)
            for _ in range(min(BATCH, params.count - sent)):
                batch.tick(data)
            batch(oneway=True)
    else:
        for _ in range(params.count):
            proxy.tick(data)
    check(proxy.done(), params.count)
    report_rate(params.count, time.perf_counter() - began)


def large(address: str, params: Params) -> None:
    proxy = connect(address)
    data, laps = payload(params.size), []
    begin()
    for _ in range(params.count):
        began = time.perf_counter()
        taken = proxy.take(data)
        laps.append(time.perf_counter() - began)
        check(taken, len(data["s"]))
    report_laps(laps)


def main() -> None:
    asked = arguments()
    (serve if asked.role == "serve" else drive)(asked)


if __name__ == "__main__":
    main()
