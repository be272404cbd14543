"""Connections that say nothing, and then somebody who has something to ask."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import TYPE_CHECKING

from scenarios.scenario import Facts, Scenario, seconds
from scenarios.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scenarios.libraries import Library

__all__ = ["SILENT"]


def play(library: Library, size: Mapping[str, float]) -> Facts:
    few, many, patience = int(size["few"]), int(size["many"]), size["patience"]
    cells: list[str] = []
    figures: dict[str, object] = {}
    for count in (few, many):
        with Stage(library) as stage, contextlib.ExitStack() as stack:
            stage.serve(variant=library.server)
            silent = _connect(stage.place, count, stack)
            client = stage.ask(patience=patience)
            began = time.monotonic()
            said, took = client.ask({"n": 1}, patience + 5)
            answered = "by" in said
            cells.append(f"yes, {seconds(took)}" if answered else f"no: {said['error']}")
            figures[f"answered_{count}"] = answered
            figures[f"seconds_{count}"] = took
            figures[f"connected_{count}"] = len(silent)
            if count == few:
                time.sleep(max(0.0, patience - (time.monotonic() - began)))
                closed = _closed(silent)
    figures["closed"] = closed
    return Facts([*cells, f"{closed:,}"], figures)


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


def _closed(silent: list[socket.socket]) -> int:
    """How many of them the server has closed; what it may have said before does not count."""
    closed = 0
    for sock in silent:
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            try:
                while sock.recv(65_536):
                    pass
                closed += 1
            except ConnectionError:
                closed += 1
    return closed


SILENT = Scenario(
    key="silent",
    title="Silent connections",
    about="{few:,} connections of one user are opened and say nothing. After that a new client of the same user asks, "
    "and waits for {patience:g} s. The same with {many:,}.",
    columns=("an answer with {few:,}", "an answer with {many:,}", "of {few:,} closed after {patience:g} s"),
    play=play,
    size={"few": 90, "many": 600, "patience": 8},
    quick={"few": 90, "many": 300, "patience": 2},
)
