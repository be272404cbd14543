"""The links that most rows run over: what is local on this system, and tcp."""

from __future__ import annotations

import secrets
import sys
from typing import TYPE_CHECKING

import pytest

from tests.conformance.sides import Stage
from tests.conformance.subjects import Pipe, Tcp, Unix

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["fresh_address", "over_local_and_tcp", "stage_of"]

_SUBJECTS = {each.name: each for each in (Unix, Pipe, Tcp)}

#: Gives a test the parameter ``transport``, for `stage_of`.
over_local_and_tcp = pytest.mark.parametrize(
    "transport", [name for name, each in _SUBJECTS.items() if sys.platform in each.platforms]
)


def fresh_address(transport: str, folder: Path) -> str:
    """Where nobody listens yet.

    Args:
        transport: Over which transport.
        folder: A directory for sockets.
    """
    match transport:
        case "tcp":
            return "tcp://127.0.0.1:0"
        case "pipe":
            return f"pipe:pyipc-{secrets.token_hex(16)}"
        case _:
            return f"unix:{folder / secrets.token_hex(4)}"


def stage_of(transport: str, folder: Path) -> Stage:
    """Where a server and a client meet; ``ours`` is the client.

    Args:
        transport: Over which transport.
        folder: An empty directory for its socket.
    """
    return Stage(_SUBJECTS[transport](folder), "client")
