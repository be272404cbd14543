"""A peer is killed in the middle of a message."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

from scenarios.bystander import Bystander
from scenarios.half import TORN
from scenarios.scenario import Facts, Scenario, counted
from scenarios.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scenarios.libraries import Library

__all__ = ["TORN_SEND"]

PATIENCE = 3.0
#: Seconds that a server gets to notice.
NOTICING = 0.5


def play(library: Library, size: Mapping[str, float]) -> Facts:
    kills = int(size["kills"])
    length = len(library.wire.message(TORN))
    # From its first byte to its last but one.
    offsets = [1 + (length - 2) * kill // (kills - 1) for kill in range(kills)]
    with Stage(library) as stage:
        server = stage.serve()
        with Bystander(stage, PATIENCE) as bystander:
            for offset in offsets:
                peer = stage.start_half(offset)
                peer.expect("half")
                peer.signal(signal.SIGKILL)
                peer.wait()
            time.sleep(NOTICING)
        handled = stage.journal("handled")
        noticed = [str(what) for what in stage.journal("noticed")]
        alive = server.is_alive
    whole, torn = handled.count(1), handled.count(2)
    return Facts(
        [
            f"{whole} of {kills}" if library.wire.is_job else "not seen: they are pings",
            f"{torn} of {kills}",
            counted(noticed),
            "answered" if alive and not bystander.errors else f"not answered: {counted(bystander.errors)}",
        ],
        {
            "kills": kills,
            "whole_handled": whole,
            "torn_handled": torn,
            "noticed": noticed,
            "alive": alive,
            "errors": bystander.errors,
        },
    )


TORN_SEND = Scenario(
    key="torn-send",
    title="Killed while sending",
    about="{kills} peers, one after the other, send a message and a part of the next, of 3 KB, from its first byte to "
    "its last but one, and are then killed (SIGKILL).",
    columns=("whole messages handled", "parts taken for a message", "what the server is told", "others meanwhile"),
    play=play,
    size={"kills": 8},
    quick={"kills": 3},
)
