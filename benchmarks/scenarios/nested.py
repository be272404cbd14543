"""JSON that is nested deeply, and JSON that is small and becomes large."""

from __future__ import annotations

import contextlib
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
                outcome = _send(stage, library.wire.message(b'{"n": 1, "more": ' + text + b"}"))
            alive = server.is_alive
            handled = 1 in stage.journal("handled")
            grown = server.grown
        figures |= {
            f"{name}_alive": alive,
            f"{name}_handled": handled,
            f"{name}_longest": bystander.longest,
            f"{name}_errors": bystander.errors,
            f"{name}_grown": grown,
            f"{name}_outcome": outcome,
        }
        if not alive:
            cells.append("**the server has ended**")
        else:
            what = "handled" if handled else outcome
            cells.append(f"{what}; others {bystander.waited}, +{grown / MIB:,.0f} MiB")
    return Facts(cells, figures)


def _bomb(size: int) -> bytes:
    """A list of empty lists, in so many bytes."""
    return b"[" + b"[]," * (size // 3) + b"[]]"


def _send(stage: Stage, message: bytes) -> str:
    """Send it, and wait for what becomes of it."""
    with stage.library.wire.connect(stage.place) as sock, contextlib.suppress(TimeoutError):
        sock.settimeout(PATIENCE)
        try:
            sock.sendall(message)
            deadline = time.monotonic() + PATIENCE
            said = b""
            while time.monotonic() < deadline:
                sock.settimeout(0.3 if said else PATIENCE)
                try:
                    chunk = sock.recv(65_536)
                except TimeoutError:
                    return "answered with an error" if said else "no answer"
                if not chunk:
                    break
                said += chunk
        except ConnectionError:
            pass
        return "refused, its connection closed"
    return "not taken"


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
