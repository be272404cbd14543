"""JSON that is nested deeply, and JSON that is small and becomes large."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from scenarios.bystander import Bystander
from scenarios.scenario import Facts, Scenario
from scenarios.stage import MIB, Stage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scenarios.libraries import Library

__all__ = ["NESTED"]

PATIENCE = 15.0
#: Seconds that the server is listened to between two looks at what it has handled.
LOOK = 0.3
#: The number of the job that is sent.
JOB = 1
REFUSED = "refused, its connection closed"


def play(library: Library, size: Mapping[str, float]) -> Facts:
    levels = int(size["levels"])
    figures: dict[str, object] = {}
    cells = []
    for name, text in (
        ("deep", b"[" * levels + b"]" * levels),
        ("small_bomb", _bomb(int(size["small"]))),
        ("large_bomb", _bomb(int(size["large"]))),
    ):
        with Stage(library) as stage:
            server = stage.serve()
            server.remember_memory()
            with Bystander(stage, PATIENCE) as bystander:
                outcome = _send(stage, library.wire.message(b'{"n": %d, "more": %b}' % (JOB, text)))
            alive = server.is_alive
            grown = server.grown
        figures |= {
            f"{name}_alive": alive,
            f"{name}_handled": outcome == "handled",
            f"{name}_longest": bystander.longest,
            f"{name}_errors": bystander.errors,
            f"{name}_grown": grown,
            f"{name}_outcome": outcome,
        }
        if not alive:
            cells.append("**the server has ended**")
        else:
            cells.append(f"{outcome}; others {bystander.waited}, +{grown / MIB:,.0f} MiB")
    return Facts(cells, figures)


def _bomb(size: int) -> bytes:
    """A list of empty lists, in so many bytes."""
    return b"[" + b"[]," * (size // 3) + b"[]]"


def _send(stage: Stage, message: bytes) -> str:
    """Send it, and wait until it is handled, refused, or answered otherwise; what became of it."""
    with stage.library.wire.connect(stage.place) as sock:
        sock.settimeout(PATIENCE)
        try:
            sock.sendall(message)
        except TimeoutError:
            return "not taken"
        except ConnectionError:
            return REFUSED
        sock.settimeout(LOOK)
        deadline = time.monotonic() + PATIENCE
        has_said = False
        while time.monotonic() < deadline:
            if JOB in stage.journal("handled"):
                return "handled"
            try:
                if not sock.recv(65_536):
                    return REFUSED
                has_said = True
            except TimeoutError:
                if has_said:  # and does not close
                    return "answered with an error"
            except ConnectionError:
                return REFUSED
    return "no answer"


NESTED = Scenario(
    key="nested",
    title="Nested JSON",
    about="A peer sends a message with {levels:,} lists in each other; one of {small:,} bytes with as many empty lists "
    "as have room; and such a one of {large:,} bytes. What becomes of it, how long did the answers of another client "
    "take at most, and by how much did the server's memory grow?",
    columns=("{levels:,} levels", "a bomb of {small:,} bytes", "a bomb of {large:,} bytes"),
    play=play,
    size={"levels": 100_000, "small": 1_000_000, "large": 16_000_000},
    quick={"levels": 100_000, "small": 1_000_000, "large": 4_000_000},
)
