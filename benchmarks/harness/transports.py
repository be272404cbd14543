"""What the bytes of a measurement move over."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["CHANNEL", "FD", "MEMORY", "MUTUAL_TLS", "TCP", "TLS", "TRANSPORTS", "UDP", "UNIX", "Transport"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Transport:
    """One of the ways that ``peers/common.py`` has addresses for.

    Args:
        name: What it is called in names of workloads and contenders, and in JSON.
        title: What it is called in tables.
        address: Where a server is asked to listen; ``{directory}`` stands for the directory of the run.
        has_certificates: Whether both sides need certificates.
    """

    name: str
    title: str
    address: str
    has_certificates: bool = False

    def prepare(self, directory: Path) -> str:
        """Put what both sides need into the directory in which they run; return where the server is to listen."""
        if self.has_certificates:
            # It takes longer to import than the rest of the harness together.
            from harness.certificates import make_certificates

            make_certificates(directory)
        return self.address.format(directory=directory)


UNIX = Transport(name="unix", title="a Unix socket", address="unix:{directory}/socket")
FD = Transport(name="fd", title="an inherited Unix socket", address="fd:{directory}/socket")
MEMORY = Transport(name="memory", title="memory", address="memory:bench")
TCP = Transport(name="tcp", title="TCP", address="tcp:127.0.0.1:0")
TLS = Transport(name="tls", title="TLS", address="tls:127.0.0.1:0", has_certificates=True)
MUTUAL_TLS = Transport(name="mtls", title="mutual TLS", address="mtls:127.0.0.1:0", has_certificates=True)
UDP = Transport(name="udp", title="UDP", address="udp:127.0.0.1:0")

#: What a program and the workers that it has started have between them: each has a way of its own.
CHANNEL = Transport(name="channel", title="a channel of its own", address="channel:")

TRANSPORTS = (UNIX, FD, MEMORY, TCP, TLS, MUTUAL_TLS, UDP)
