"""What happens on connections, as records and as lines: who came, what was said, who went and why."""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING, Any

from pyipc.cli.showing.figures import size
from pyipc.cli.showing.text import now, payload, payload_text

if TYPE_CHECKING:
    import pyipc
    from pyipc.cli.showing.console import Console

__all__ = ["Journal", "peer_record", "peer_text"]


class Journal:
    """Writes down what happens, with the time and a number for each connection.

    The number is what tells connections apart: all clients of a local socket have the same address.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._numbers: dict[object, int] = {}
        self._count = itertools.count(1)

    def number(self, connection: object) -> int:
        """The number of a connection, from one on in the order in which they came."""
        if connection not in self._numbers:
            self._numbers[connection] = next(self._count)
        return self._numbers[connection]

    async def connected(self, connection: pyipc.Connection) -> None:
        """Write that a connection was made.

        Cancellation: nothing was written.
        """
        peer = connection.peer
        await self._write("connected", connection, {"peer": peer_record(peer)}, (peer_text(peer), "green"))

    async def disconnected(self, ending: pyipc.Disconnected) -> None:
        """Write that a connection ended, and why.

        Cancellation: nothing was written.
        """
        reason = {"code": ending.code, "message": ending.message, "by_peer": ending.by_peer}
        await self._write("disconnected", ending.connection, reason, (f"{ending.message} ({ending.code})", "yellow"))
        self._numbers.pop(ending.connection, None)

    async def message(self, kind: str, message: pyipc.Message[Any]) -> None:
        """Write what a peer sent: an ``"event"`` or a ``"request"``.

        Cancellation: nothing was written.
        """
        record = {"event": message.event, **payload(message.data)}
        pieces = [(message.event, "bold"), ("  ", ""), (payload_text(message.data), "json")]
        if message.attachments:
            sizes = [len(each) for each in message.attachments]
            record["attachments"] = sizes
            pieces.append((f"  with attachments of {', '.join(map(size, sizes))}", "dim"))
        await self._write(kind, message.connection, record, *pieces)

    async def _write(self, kind: str, connection: object, record: dict[str, Any], *pieces: tuple[str, str]) -> None:
        number = self.number(connection)
        time = now()
        await self._console.record(
            {"time": time.isoformat(timespec="milliseconds"), "kind": kind, "connection": number, **record},
            [(f"{time:%H:%M:%S}.{time.microsecond // 1000:03}", "dim"), (f"  #{number}  {kind:<12}  ", ""), *pieces],
        )


def peer_record(peer: pyipc.Peer) -> dict[str, Any]:
    """Who somebody is, as far as it is known."""
    known: dict[str, Any] = {
        "address": peer.address,
        "pid": peer.pid,
        "uid": peer.uid,
        "gid": peer.gid,
        "sid": peer.sid,
        "certificate": peer.certificate and dataclasses.asdict(peer.certificate),
    }
    return {name: value for name, value in known.items() if value is not None}


def peer_text(peer: pyipc.Peer) -> str:
    """The same for people."""
    if peer.certificate is not None:
        return f"{peer.certificate.holder} at {peer.address}"
    known = {"process": peer.pid, "user": peer.uid if peer.sid is None else peer.sid}
    who = ", ".join(f"{name} {value}" for name, value in known.items() if value is not None)
    return who or peer.address
