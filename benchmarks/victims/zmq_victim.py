"""pyzmq: REQ to REP, PUSH to PULL, XPUB to SUB, with ``send_json`` and ``recv_json``, and every limit as it is.

An XPUB is a PUB that tells who has subscribed. A REQ that has had no answer is thrown away, as the guide says: it would
wait for that answer for ever.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import zmq

from victim import Arguments, arguments, ask_lines, begin, error_name, handle, note, paced, payload, say

context = zmq.Context()


def serve(asked: Arguments) -> None:
    params = asked.params
    told = params.variant == "told"
    socket = context.socket(zmq.PULL if told else zmq.REP)
    socket.bind(f"ipc://{asked.place}")
    say(ready=True)
    while True:
        try:
            job = socket.recv_json()
            time.sleep(begin(params, job))
            answer = handle(params, job)
        except Exception as error:
            note("noticed", error_name(error))
            answer = {"error": error_name(error)}
        if not told:
            socket.send_json(answer)


def ask(asked: Arguments) -> None:
    told = asked.role == "tell"
    milliseconds = round(asked.params.patience * 1000)

    def connect() -> Any:
        socket: Any = context.socket(zmq.PUSH if told else zmq.REQ)
        socket.linger = 0
        socket.sndtimeo = socket.rcvtimeo = milliseconds
        socket.connect(f"ipc://{asked.place}")
        return socket

    def call(socket: Any, job: Any) -> Any:
        socket.send_json(job)
        return None if told else socket.recv_json()

    ask_lines(asked.params, connect, call, comes_back=told)


def publish(asked: Arguments) -> None:
    params = asked.params
    socket = context.socket(zmq.XPUB)
    socket.setsockopt(zmq.XPUB_VERBOSE, 1)
    socket.bind(f"ipc://{asked.place}")
    say(ready=True)
    for _ in range(params.clients):
        socket.recv()
    say(full=True)
    input()
    for pause in paced(params):
        time.sleep(pause)
        socket.send_json(payload(params))
    say(sent=params.count)
    while input():
        say(told={})


def subscribe(asked: Arguments) -> None:
    got = 0
    socket = context.socket(zmq.SUB)
    socket.subscribe(b"")
    socket.connect(f"ipc://{asked.place}")

    def listen() -> None:
        nonlocal got
        while True:
            socket.recv_json()
            got += 1

    threading.Thread(target=listen, daemon=True).start()
    say(ready=True)
    while input():
        say(got=got)


ROLES = {"serve": serve, "ask": ask, "tell": ask, "publish": publish, "subscribe": subscribe}

if __name__ == "__main__":
    asked = arguments()
    ROLES[asked.role](asked)
