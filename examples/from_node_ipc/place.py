"""Where the programs of an example meet, from the command line: PROGRAM ROLE ADDRESS [--cert ... --key ...].

What a program of yours would have in one line is chosen here, so that every example runs over every transport.
"""

from __future__ import annotations

import argparse
import dataclasses
from typing import TYPE_CHECKING

import pyipc
from pyipc.node_ipc import IPC

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Place", "read_command_line"]


@dataclasses.dataclass(frozen=True)
class Place:
    """An address, and whom to trust there."""

    address: str
    cert: str | None
    key: str | None
    ca: str | None
    insecure: bool
    allow: str | None

    # --- in the idiomatic form: an endpoint says it all ---

    def endpoint(self, framing: pyipc.Json | pyipc.Raw | None = None, *, listens: bool = False) -> pyipc.Endpoint:
        """The address with its options."""
        tls = None
        if self.address.startswith("tls:") and listens:
            tls = pyipc.TLS(cert=self.cert, key=self.key, client_ca=self.ca)
        elif self.address.startswith("tls:"):
            tls = pyipc.TLS(cert=self.cert, key=self.key, ca=self.ca, insecure=self.insecure)
        allow = None if self.allow is None else {self.allow}
        return pyipc.Endpoint(self.address, framing=framing or pyipc.Json(), tls=tls, allow=allow)

    # --- in the ported form: options, and one of the methods of node-ipc ---

    def ipc(self) -> IPC:
        """A node-ipc with its options."""
        ipc = IPC()
        ipc.config.silent = True
        ipc.config.retry = 50
        if self.allow is not None:
            ipc.config.allow = {self.allow}
        if self.address.startswith("tls:"):
            tls = {
                "private": self.key,
                "public": self.cert,
                "trusted_connections": self.ca,
                "request_cert": self.ca is not None,  # which only means something to a server
                "reject_unauthorized": not self.insecure,
            }
            ipc.config.tls = {name: value for name, value in tls.items() if value is not None}
        return ipc

    def serve(self, ipc: IPC, started: Callable[..., object]) -> None:
        """``ipc.serve`` or ``ipc.serve_net``."""
        address = pyipc.parse_address(self.address)
        if address.scheme == "unix":
            ipc.serve(address.name, started)
        elif address.scheme == "udp":
            ipc.serve_net(address.host, address.port, "udp6" if ":" in address.host else "udp4", started)
        else:
            ipc.serve_net(address.host, address.port, started)

    def connect_to(self, ipc: IPC, id: str, callback: Callable[..., object]) -> None:
        """``ipc.connect_to`` or ``ipc.connect_to_net``."""
        address = pyipc.parse_address(self.address)
        if address.scheme == "unix":
            ipc.connect_to(id, address.name, callback)
        else:
            ipc.connect_to_net(id, address.host, address.port, callback)

    def say(self, port: int) -> None:
        """Print where the server really listens, if it took any free port."""
        address = pyipc.parse_address(self.address)
        print("listening on", dataclasses.replace(address, port=port), flush=True)


def read_command_line() -> tuple[str, Place]:
    """The role of this process, and the place."""
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["world", "hello", "goodbye"])
    parser.add_argument("address")
    parser.add_argument("--cert", help="certificate of this side")
    parser.add_argument("--key", help="its private key")
    parser.add_argument("--ca", help="certificate authority that vouches for the other side")
    parser.add_argument("--insecure", action="store_true", help="take any certificate")
    parser.add_argument("--allow", help="fingerprint of the one certificate to accept, sha256:...")
    arguments = vars(parser.parse_args())
    return arguments.pop("role"), Place(**arguments)
