"""``multiprocessing.connection``: a key, as in its documentation, ``accept`` in a loop, a thread for each client."""

from __future__ import annotations

import threading
import time
from multiprocessing.connection import Client, Listener
from typing import Any

from victim import Arguments, arguments, ask_lines, begin, error_name, handle, note, paced, payload, say

KEY = b"secret password"


def serve(asked: Arguments) -> None:
    params = asked.params

    def talk(connection: Any) -> None:
        try:
            while True:
                job = connection.recv()
                time.sleep(begin(params, job))
                connection.send(handle(params, job))
        except Exception as error:
            note("noticed", error_name(error))
        finally:
            connection.close()

    with Listener(asked.place, authkey=KEY) as listener:
        say(ready=True)
        while True:
            try:
                connection = listener.accept()
            except Exception as error:
                note("noticed", error_name(error))
            else:
                threading.Thread(target=talk, args=(connection,), daemon=True).start()


def ask(asked: Arguments) -> None:
    def connect() -> Any:
        return Client(asked.place, authkey=KEY)

    def call(connection: Any, job: Any) -> Any:
        connection.send(job)
        if asked.role == "tell":
            return None
        if not connection.poll(asked.params.patience):
            raise TimeoutError
        return connection.recv()

    ask_lines(asked.params, connect, call)


def publish(asked: Arguments) -> None:
    params = asked.params
    with Listener(asked.place, authkey=KEY) as listener:
        say(ready=True)
        clients = [listener.accept() for _ in range(params.clients)]
        say(full=True)
        input()
        for pause in paced(params):
            time.sleep(pause)
            for client in clients:
                client.send(payload(params))
        say(sent=params.count)
        while input():
            say(told={})


def subscribe(asked: Arguments) -> None:
    got = 0
    connection = Client(asked.place, authkey=KEY)

    def listen() -> None:
        nonlocal got
        while True:
            connection.recv()
            got += 1

    threading.Thread(target=listen, daemon=True).start()
    say(ready=True)
    while input():
        say(got=got)


ROLES = {"serve": serve, "ask": ask, "tell": ask, "publish": publish, "subscribe": subscribe}

if __name__ == "__main__":
    asked = arguments()
    ROLES[asked.role](asked)
