"""Pyro5: a method of a remote object, Pyro's JSON serializer, every limit as it is. Its server calls nobody back."""

from __future__ import annotations

import time
from typing import Any

import Pyro5.api
import Pyro5.errors

from victim import Arguments, Params, arguments, ask_lines, begin, handle, note, say

Pyro5.config.SERIALIZER = "json"


@Pyro5.api.expose
class Desk:
    """What the server offers."""

    def __init__(self, params: Params) -> None:
        self._params = params

    def job(self, job: Any) -> dict[str, Any]:
        time.sleep(begin(self._params, job))
        return handle(self._params, job)

    @Pyro5.api.oneway  # type: ignore[untyped-decorator]
    def told(self, job: Any) -> None:
        self.job(job)


class Daemon(Pyro5.api.Daemon):  # type: ignore[misc]
    """One that notes who has left."""

    def clientDisconnect(self, conn: Any) -> None:
        note("noticed", "the end")


def serve(asked: Arguments) -> None:
    with Daemon(unixsocket=asked.place) as daemon:
        daemon.register(Desk(asked.params), "desk")
        say(ready=True)
        daemon.requestLoop()


class Proxy:
    """A connected proxy, which is closed by another name than others."""

    def __init__(self, asked: Arguments) -> None:
        self.remote = Pyro5.api.Proxy(f"PYRO:desk@./u:{asked.place}")
        self.remote._pyroTimeout = asked.params.patience
        try:
            self.remote._pyroBind()
        except Pyro5.errors.CommunicationError as error:  # which is no OSError
            raise ConnectionError from error

    def close(self) -> None:
        self.remote._pyroRelease()


def ask(asked: Arguments) -> None:
    def call(proxy: Proxy, job: Any) -> Any:
        return proxy.remote.told(job) if asked.role == "tell" else proxy.remote.job(job)

    ask_lines(asked.params, lambda: Proxy(asked), call)


ROLES = {"serve": serve, "ask": ask, "tell": ask}

if __name__ == "__main__":
    asked = arguments()
    ROLES[asked.role](asked)
