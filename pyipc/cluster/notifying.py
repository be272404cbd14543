"""Telling systemd, or whatever else has started this process and listens, how far a service has come.

It is the protocol of sd_notify(3): datagrams with lines such as ``READY=1``, to the socket that the environment names.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import MutableMapping

__all__ = ["Notifier"]


class Notifier:
    """Tells whoever has asked to be told; does nothing if nobody has.

    Args:
        environment: Where ``NOTIFY_SOCKET`` is taken from, so that workers do not speak for the service.
    """

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        self._address = environment.pop("NOTIFY_SOCKET", "")

    def ready(self, status: str) -> None:
        """The service is ready, or is so again after a reload."""
        self._say("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """A reload has begun; `ready` says that it is over."""
        self._say("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", "STATUS=reloading")

    def stopping(self) -> None:
        """The end has begun."""
        self._say("STOPPING=1", "STATUS=workers finish what is under way")

    def _say(self, *lines: str) -> None:
        if sys.platform == "win32" or self._address[:1] not in ("/", "@"):
            return
        address = f"\0{self._address[1:]}" if self._address[0] == "@" else self._address
        # Nobody may be there any more, or not take it: this is for information, and must not hold up the service.
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
            sock.setblocking(False)
            sock.sendto("\n".join(lines).encode(), address)
