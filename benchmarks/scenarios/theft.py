"""A second server starts at the place of the first."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from harness.contender import NotMeasured
from scenarios.scenario import Facts, Scenario
from scenarios.stage import MARGIN, Stage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scenarios.libraries import Library
    from scenarios.stage import Actor

__all__ = ["THEFT"]

PATIENCE = 3.0


def play(library: Library, size: Mapping[str, float]) -> Facts:
    with Stage(library) as stage:
        first = stage.serve(name="first")
        early = stage.ask(patience=PATIENCE)
        if (reached := _asks(early, 1)) != "first":
            raise NotMeasured(f"the first server does not answer: {reached}")
        second = stage.start("serve", name="second")
        listens = second.hear(size["wait"]) is not None
        why = "" if listens else _last_error(second)
        early_reaches = _asks(early, 2)
        new_reaches = _asks(stage.ask(patience=PATIENCE), 3)
        inode = _inode(stage.place)
        first.signal(signal.SIGINT)
        ended = first.wait()
        after = _inode(stage.place)
    if after is None:
        left = "nothing: the second's is deleted" if listens else "nothing"
    elif after == inode:
        left = "the second's socket" if new_reaches == "second" else "its socket, which nobody listens to"
    else:
        left = "a new socket of the second"
    figures = {
        "second_listens": listens,
        "why": why,
        "early_reaches": early_reaches,
        "new_reaches": new_reaches,
        "ended": ended,
        "path_left": after is not None,
        "stolen": new_reaches == "second",
    }
    outcome = "starts, and nobody is told" if listens else f"does not start: {why}"
    return Facts([outcome, _who(early_reaches), _who(new_reaches), left], figures)


def _asks(client: Actor, number: int) -> str:
    said, _ = client.ask({"n": number}, PATIENCE + MARGIN)
    return str(said.get("by") or said["error"])


def _who(reached: str) -> str:
    return f"the {reached}" if reached in ("first", "second") else f"nobody: {reached}"


def _last_error(server: Actor) -> str:
    """Why it does not listen: the name of the error that has ended it."""
    if not server.wait():
        return "it says nothing, and goes on"
    kind, _, text = server.last_words().partition(": ")
    return f"{kind}: {text}" if kind == "OSError" else kind.rpartition(".")[2]


def _inode(place: str) -> int | None:
    return os.stat(place).st_ino if Path(place).exists() else None


THEFT = Scenario(
    key="theft",
    title="Theft of a live socket",
    about="A second server of the same program is started at the path of the first, which is at work. Then the first "
    "is ended in good order (Ctrl-C).",
    columns=("the second", "clients of before reach", "new clients reach", "what the first leaves at the path"),
    play=play,
    size={"wait": 8},
    quick={"wait": 8},
)
