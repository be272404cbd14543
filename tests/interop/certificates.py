"""Certificates for one run of the tests, as files that both sides read."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import trustme

import pyipc

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Certificates", "make_certificates"]


@dataclasses.dataclass(frozen=True)
class Certificates:
    """An authority, a server and a client that it vouches for, and another authority that nobody trusts."""

    ca: str
    other_ca: str
    server: tuple[str, str]
    client: tuple[str, str]

    # --- as pyipc says it ---

    def server_tls(self, *, mutual: bool = False) -> pyipc.TLS:
        cert, key = self.server
        return pyipc.TLS(cert=cert, key=key, client_ca=self.ca if mutual else None)

    def client_tls(self, *, mutual: bool = False) -> pyipc.TLS:
        cert, key = self.client if mutual else (None, None)
        return pyipc.TLS(cert=cert, key=key, ca=self.ca)

    # --- as node-ipc says it, in its spelling or in ours ---

    def node_server(self, *, mutual: bool = False) -> dict[str, Any]:
        cert, key = self.server
        tls: dict[str, Any] = {"public": cert, "private": key}
        if mutual:
            tls |= {"requestCert": True, "rejectUnauthorized": True, "trustedConnections": [self.ca]}
        return tls

    def node_client(self, *, mutual: bool = False) -> dict[str, Any]:
        tls: dict[str, Any] = {"rejectUnauthorized": True, "trustedConnections": [self.ca]}
        if mutual:
            cert, key = self.client
            tls |= {"public": cert, "private": key}
        return tls

    @staticmethod
    def ported(tls: dict[str, Any]) -> dict[str, Any]:
        """The same options as a ported program spells them."""
        spelled = {
            "requestCert": "request_cert",
            "rejectUnauthorized": "reject_unauthorized",
            "trustedConnections": "trusted_connections",
        }
        return {spelled.get(name, name): value for name, value in tls.items()}


def make_certificates(directory: Path) -> Certificates:
    """Write them into a directory."""
    authority, other = trustme.CA(), trustme.CA()
    for name, one in (("ca", authority), ("other_ca", other)):
        one.cert_pem.write_to_path(directory / f"{name}.pem")

    def issue(name: str, host: str) -> tuple[str, str]:
        made = authority.issue_cert(host, common_name=name)
        cert, key = directory / f"{name}.pem", directory / f"{name}.key"
        made.cert_chain_pems[0].write_to_path(cert)
        made.private_key_pem.write_to_path(key)
        key.chmod(0o600)
        return str(cert), str(key)

    return Certificates(
        ca=str(directory / "ca.pem"),
        other_ca=str(directory / "other_ca.pem"),
        server=issue("server", "localhost"),
        client=issue("client", "client.example"),
    )
