"""``config.tls``: node-ipc's own keys, or what pyipc takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import pyipc

if TYPE_CHECKING:
    import ssl
    from typing import TypeAlias

    Settings: TypeAlias = "Mapping[str, object] | pyipc.TLS | ssl.SSLContext"

__all__ = ["client_tls", "server_tls"]

_KEYS: Final = ("private", "public", "trusted_connections", "request_cert", "reject_unauthorized", "dhparam")


def server_tls(tls: Settings) -> pyipc.TLS | ssl.SSLContext:
    """What a server shows, and whom it asks for a certificate.

    Raises:
        ValueError: Something is missing, or means nothing.
    """
    if not isinstance(tls, Mapping):
        return tls
    _check_keys(tls)
    if not tls.get("private") or not tls.get("public"):
        raise ValueError(
            "config.tls needs 'private' and 'public', the files of the server's key and certificate; unlike node-ipc, "
            "pyipc brings none that everybody has. `pyipc cert` makes them"
        )
    ca = _trusted(tls)
    if ca is not None and tls.get("reject_unauthorized") and not tls.get("request_cert"):
        raise ValueError(
            "config.tls says whom to reject, but asks for no certificates, so everybody would get in; add "
            "'request_cert': True, or leave out 'reject_unauthorized'"
        )
    if tls.get("request_cert") and not tls.get("reject_unauthorized", True):
        raise ValueError(
            "config.tls asks for certificates and then takes everybody; leave out 'request_cert', or "
            "'reject_unauthorized'"
        )
    if tls.get("request_cert") and ca is None:
        raise ValueError("config.tls needs 'trusted_connections', the file by which client certificates are checked")
    client_ca = ca if tls.get("request_cert") else None
    return pyipc.TLS(cert=_path(tls, "public"), key=_path(tls, "private"), client_ca=client_ca)


def client_tls(tls: Settings) -> pyipc.TLS | ssl.SSLContext:
    """Whom a client trusts, and what it shows.

    Raises:
        ValueError: Something means nothing.
    """
    if not isinstance(tls, Mapping):
        return tls
    _check_keys(tls)
    insecure = not tls.get("reject_unauthorized", True)
    own: dict[str, Any] = {}
    if tls.get("public"):
        own = {"cert": _path(tls, "public"), "key": _path(tls, "private") if tls.get("private") else None}
    return pyipc.TLS(**own, ca=None if insecure else _trusted(tls), insecure=insecure)


def _check_keys(tls: Mapping[str, object]) -> None:
    unknown = sorted(set(tls) - set(_KEYS))
    if unknown:
        raise ValueError(
            f"config.tls has no {unknown[0]!r}, only {', '.join(map(repr, _KEYS))}; for anything else give an "
            "ssl.SSLContext"
        )


def _path(tls: Mapping[str, object], name: str) -> str:
    path = tls[name]
    if not isinstance(path, str):
        raise ValueError(f"config.tls[{name!r}] must be the path of a file, not {path!r}")
    return path


def _trusted(tls: Mapping[str, object]) -> str | None:
    trusted = tls.get("trusted_connections")
    if not trusted:
        return None
    paths = [trusted] if isinstance(trusted, str) else trusted
    if not isinstance(paths, list | tuple) or len(paths) != 1 or not isinstance(paths[0], str):
        raise ValueError(
            "config.tls['trusted_connections'] must be the path of one file; put several certificates one after the "
            "other into it"
        )
    return paths[0]
