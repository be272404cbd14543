"""A message that claims to be huge, and one that really is."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from scenarios.bystander import Bystander
from scenarios.scenario import Facts, Scenario
from scenarios.stage import MIB, Stage

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from scenarios.libraries import Library

__all__ = ["HUGE_FRAME"]

PATIENCE = 8.0
#: Seconds in which the server may take what it is sent.
SENDING = 8.0
CHUNK = b"x" * 65_536


def play(library: Library, size: Mapping[str, float]) -> Facts:
    wire = library.wire
    figures: dict[str, object] = {}
    cells = []
    for name, opening, mebibytes in (
        ("claim", wire.claim, 0.0),
        ("endless", wire.endless or wire.claim, size["mebibytes"]),
    ):
        if opening is None:
            cells.append("messages have no lengths")
            continue
        with Stage(library) as stage:
            server = stage.serve()
            with Bystander(stage, PATIENCE) as bystander:
                server.remember_memory()
                with wire.connect(stage.place) as hostile:
                    took, closed = _send(hostile, opening, int(mebibytes * MIB))
                    alive = server.is_alive
                    grown = server.grown
            figures |= {
                f"{name}_grown": grown,
                f"{name}_taken": took,
                f"{name}_closed": closed,
                f"{name}_alive": alive,
                f"{name}_longest": bystander.longest,
                f"{name}_errors": bystander.errors,
            }
            end = "closed" if closed else "kept"
            cells.append(
                f"+{grown / MIB:,.0f} MiB, {end}"
                + ("" if name == "claim" else f" after {took / MIB:,.0f} MiB")
                + ("" if alive else ", **the server has ended**")
            )
            if name == "endless":
                cells.append(bystander.waited)
    return Facts(cells, figures)


def _send(sock: socket.socket, opening: bytes, size: int) -> tuple[int, bool]:
    """Send the beginning of a message and so many bytes of it; how many were taken, and whether the server closes."""
    sock.settimeout(0.5)
    taken, deadline = 0, time.monotonic() + SENDING
    with contextlib.suppress(TimeoutError):
        try:
            sock.sendall(opening)
            sock.sendall(CHUNK[:1_024])
            while taken < size and time.monotonic() < deadline:
                taken += sock.send(CHUNK)
            while sock.recv(65_536):  # what it says before it closes
                pass
        except ConnectionError:
            pass
        return taken, True
    return taken, False


HUGE_FRAME = Scenario(
    key="huge-frame",
    title="A huge message",
    about="A peer claims a message of 4 GiB and sends 1 KiB of it (pyipc's frames have no lengths: there it is an "
    "attachment). Another sends a message without an end, or one that claims 4 GiB, until it has sent {mebibytes:g} "
    "MiB or is refused.",
    columns=("4 GiB claimed", "{mebibytes:g} MiB sent", "others meanwhile"),
    play=play,
    size={"mebibytes": 64},
    quick={"mebibytes": 8},
)
