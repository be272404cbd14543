"""Connections that say nothing, and then somebody who has something to ask."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import TYPE_CHECKING

from scenarios.scenario import Facts, Scenario, seconds
from scenarios.stage import MARGIN, Stage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scenarios.libraries import Library
    from scenarios.stage import Actor

__all__ = ["SILENT"]

#: Seconds until a client that had an error asks again.
PAUSE = 0.2
#: Seconds between two looks at the connections.
LOOK = 0.1


def play(library: Library, size: Mapping[str, float]) -> Facts:
    few, many, patience, wait = int(size["few"]), int(size["many"]), size["patience"], size["wait"]
    cells: list[str] = []
    figures: dict[str, object] = {}
    for count in (few, many):
        with Stage(library) as stage, contextlib.ExitStack() as stack:
            stage.serve(variant=library.server)
            silent = _connect(stage.place, count, stack)
            client = stage.ask(patience=patience)
            why, took = _ask(client, patience)
            answered = not why
            cells.append(f"yes, {seconds(took)}" if answered else f"no: {why}")
            figures[f"answered_{count}"] = answered
            figures[f"seconds_{count}"] = took
            figures[f"connected_{count}"] = len(silent)
            if count == few:
                closed = _closed(silent, wait)
    figures["closed"] = closed
    return Facts([*cells, f"{closed:,}"], figures)


def _ask(client: Actor, patience: float) -> tuple[str, float]:
    """Ask until there is an answer, for so many seconds; why there is none, and how long it took."""
    began = time.monotonic()
    while True:
        left = began + patience - time.monotonic()
        said, _ = client.ask({"n": 1}, left + MARGIN)
        took = time.monotonic() - began
        if "by" in said:
            return "", took
        if took + PAUSE > patience:
            return str(said["error"]), took
        time.sleep(PAUSE)


def _connect(place: str, count: int, stack: contextlib.ExitStack) -> list[socket.socket]:
    """As many connections as the server's queue of those who wait has room for."""
    connected = []
    for _ in range(count):
        sock = stack.enter_context(socket.socket(socket.AF_UNIX))
        sock.settimeout(1.0)
        try:
            sock.connect(place)
        except OSError:
            break
        connected.append(sock)
    return connected


def _closed(silent: list[socket.socket], wait: float) -> int:
    """How many of them the server closes within so many seconds."""
    deadline = time.monotonic() + wait
    closed = 0
    while closed < len(silent) and time.monotonic() < deadline:
        time.sleep(LOOK)
        closed = sum(map(_is_closed, silent))
    return closed


def _is_closed(sock: socket.socket) -> bool:
    """Whether the server has closed it, whatever it may have said before."""
    sock.setblocking(False)
    try:
        while sock.recv(65_536):
            pass
    except BlockingIOError:
        return False
    except ConnectionError:
        pass
    return True


SILENT = Scenario(
    key="silent",
    title="Silent connections",
    about="{few:,} connections of one user are opened and say nothing. After that a new client of the same user asks, "
    "again and again for {patience:g} s if need be. The same with {many:,}.",
    columns=("an answer with {few:,}", "an answer with {many:,}", "of {few:,} closed within {wait:g} s"),
    play=play,
    size={"few": 90, "many": 600, "patience": 15, "wait": 35},
    quick={"few": 90, "many": 300, "patience": 2, "wait": 1},
)
