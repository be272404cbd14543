"""Where node-ipc's paths, hosts and ports are, as endpoints of pyipc."""

from __future__ import annotations

import ipaddress
import posixpath
import sys
from typing import TYPE_CHECKING, Final

import pyipc
from pyipc.node_ipc.config import Interface, framing_of
from pyipc.node_ipc.tls import client_tls, server_tls

if TYPE_CHECKING:
    from pyipc.node_ipc.config import Config

__all__ = ["default_path", "local_endpoint", "network_endpoint", "udp_host"]

_PIPE_PREFIX: Final = "\\\\.\\pipe\\"
_LOOPBACK: Final = {"udp4": "127.0.0.1", "udp6": "::1"}
#: Everything of these is an address of pyipc, which serves a socket that it was given.
_INHERITED: Final = ("fd:", "systemd:")


def default_path(config: Config, id: str) -> str:
    """Where a server of this id is, unless a path is given."""
    return f"{config.socket_root}{config.appspace}{id}"


def local_endpoint(config: Config, path: str, *, listens: bool, platform: str = sys.platform) -> pyipc.Endpoint:
    """The endpoint of a socket at a path; on Windows, of the pipe that node-ipc makes of the path.

    Args:
        config: The options.
        path: The path; a relative one is relative to the working directory. ``fd:3`` and ``systemd:`` are sockets that
            this process was given.
        listens: Whether it is for a server.
        platform: The operating system, as in ``sys.platform``.

    Raises:
        AddressError: The path cannot be used.
        ValueError: An option cannot work.
    """
    if path.startswith(_INHERITED):
        return pyipc.Endpoint(path, allow=config.allow, framing=framing_of(config), hello=False)
    allow, mode = config.allow, None
    if config.writable_all and allow is None:
        allow = pyipc.ANYONE
    if listens and platform != "win32" and (config.readable_all or config.writable_all):
        mode = 0o600 | (0o044 if config.readable_all else 0) | (0o022 if config.writable_all else 0)
    return pyipc.Endpoint(
        _local_address(path, platform), allow=allow, mode=mode, framing=framing_of(config), hello=False
    )


def _local_address(path: str, platform: str) -> str:
    if platform == "win32":
        name = path.removeprefix(_PIPE_PREFIX)
        if name == path:
            name = path.removeprefix("/").replace("/", "-")
        return f"pipe:{name}"
    name = path.removeprefix("/tmp/app.")
    if name != path and name and "/" not in name:
        return f"node-ipc:{name}"  # which is where node-ipc's /tmp is, on macOS too
    path = posixpath.abspath(path)
    # There these are symbolic links of the system's own, and no link is followed to where a socket is.
    return f"unix:{'/private' if platform == 'darwin' and path.startswith(('/tmp/', '/var/')) else ''}{path}"


def network_endpoint(config: Config, host: str, port: int, *, udp: str | None = None, listens: bool) -> pyipc.Endpoint:
    """The endpoint of a host and a port: TCP, TLS if there is ``config.tls``, or UDP.

    Raises:
        AddressError: Host or port cannot be used, or an option asks for what pyipc does not have.
        InsecureAddress: Plain text would leave this host, and ``config.allow`` does not say that it may.
        ValueError: An option cannot work.
    """
    if not listens and config.interface != Interface():
        raise pyipc.AddressError(
            "config.interface cannot be used: the system chooses the address that a client calls from; leave it empty"
        )
    tls = None
    if config.tls is not None and config.tls is not False:  # an empty dictionary is TLS, as in Node
        if udp is not None:
            raise pyipc.AddressError("config.tls cannot be used: there is no TLS over UDP; make another IPC without it")
        tls = server_tls(config.tls) if listens else client_tls(config.tls)
    scheme = "udp" if udp is not None else "tcp" if tls is None else "tls"
    place = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
    return pyipc.Endpoint(place, allow=config.allow, framing=framing_of(config), hello=False, tls=tls)


def udp_host(udp: str, host: str) -> str:
    """The host for a family of UDP: a loopback address of the other family becomes that of this one."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return _LOOPBACK[udp] if host == "localhost" else host
    return _LOOPBACK[udp] if address.is_loopback and address.version != int(udp[-1]) else host
