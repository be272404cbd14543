"""RPyC: a method of a remote service with a thread for each client, JSON as text, and every limit as it is.

What is told is a call whose result nobody waits for. Nothing is published: a call back is answered before anything
else goes on.
"""

from __future__ import annotations

import json
import time
from typing import Any

import rpyc
from rpyc.utils.factory import unix_connect
from rpyc.utils.server import ThreadedServer

from victim import Arguments, arguments, ask_lines, begin, handle, note, say


def serve(asked: Arguments) -> None:
    class Desk(rpyc.Service):  # type: ignore[misc]
        """What the server offers."""

        def on_disconnect(self, conn: Any) -> None:
            note("noticed", "the end")

        def exposed_job(self, job: str) -> str:
            data = json.loads(job)
            time.sleep(begin(asked.params, data))
            return json.dumps(handle(asked.params, data))

    server = ThreadedServer(Desk, socket_path=asked.place)
    server.listener.listen()  # else only when it starts, of which nobody is told
    say(ready=True)
    server.start()


def ask(asked: Arguments) -> None:
    def connect() -> Any:
        return unix_connect(asked.place, config={"sync_request_timeout": asked.params.patience})

    def call(connection: Any, job: Any) -> Any:
        if asked.role == "tell":
            rpyc.async_(connection.root.job)(json.dumps(job))
            return None
        return json.loads(connection.root.job(json.dumps(job)))

    ask_lines(asked.params, connect, call)


ROLES = {"serve": serve, "ask": ask, "tell": ask}

if __name__ == "__main__":
    asked = arguments()
    ROLES[asked.role](asked)
