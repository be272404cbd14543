"""pynng: Req0 to Rep0, Push0 to Pull0, Pub0 to Sub0, JSON in their messages, and every limit as it is."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from typing import Any

import pynng

from victim import Arguments, arguments, ask_lines, begin, error_name, handle, note, paced, payload, say

#: Milliseconds after which a server looks whether it was interrupted: nng's own threads do the waiting.
LOOK = 200


def serve(asked: Arguments) -> None:
    params = asked.params
    told = params.variant == "told"
    socket = (pynng.Pull0 if told else pynng.Rep0)(listen=f"ipc://{asked.place}", recv_timeout=LOOK)
    socket.add_post_pipe_remove_cb(lambda pipe: note("noticed", "a pipe was removed"))
    with socket:
        say(ready=True)
        while True:
            try:
                job = json.loads(socket.recv())
                time.sleep(begin(params, job))
                answer = handle(params, job)
            except pynng.Timeout:
                continue
            except Exception as error:
                note("noticed", error_name(error))
                answer = {"error": error_name(error)}
            if not told:
                socket.send(json.dumps(answer).encode())


def ask(asked: Arguments) -> None:
    told = asked.role == "tell"
    milliseconds = round(asked.params.patience * 1000)

    def connect() -> Any:
        kind = pynng.Push0 if told else pynng.Req0
        return kind(dial=f"ipc://{asked.place}", send_timeout=milliseconds, recv_timeout=milliseconds)

    def call(socket: Any, job: Any) -> Any:
        socket.send(json.dumps(job).encode())
        return None if told else json.loads(socket.recv())

    ask_lines(asked.params, connect, call, comes_back=True)


def publish(asked: Arguments) -> None:
    params, told, joined = asked.params, Counter[str](), threading.Semaphore(0)
    with pynng.Pub0() as socket:
        socket.add_post_pipe_connect_cb(lambda pipe: joined.release())
        socket.add_post_pipe_remove_cb(lambda pipe: told.update(["a pipe was removed"]))
        socket.listen(f"ipc://{asked.place}")
        say(ready=True)
        for _ in range(params.clients):
            joined.acquire()
        say(full=True)
        input()
        for pause in paced(params):
            time.sleep(pause)
            socket.send(json.dumps(payload(params)).encode())
        say(sent=params.count)
        while input():
            say(told=told)


def subscribe(asked: Arguments) -> None:
    got = 0
    socket = pynng.Sub0(dial=f"ipc://{asked.place}", topics=b"", block_on_dial=True)

    def listen() -> None:
        nonlocal got
        while True:
            json.loads(socket.recv())
            got += 1

    threading.Thread(target=listen, daemon=True).start()
    say(ready=True)
    while input():
        say(got=got)


ROLES = {"serve": serve, "ask": ask, "tell": ask, "publish": publish, "subscribe": subscribe}

if __name__ == "__main__":
    asked = arguments()
    ROLES[asked.role](asked)
