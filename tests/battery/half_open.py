"""Both sides of confirmed events, that say when they lose a connection.

``python -m tests.battery.half_open serve|emit|unplug ...``: a server, a client, or both of them in one process that
pulls the plug of its network between them. Times are those of the clock that all processes of a host share.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import trio

import pyipc
from tests.battery.ledger import Entry, Ledger, digest_of
from tests.battery.program import tell, told
from tests.conformance.sides import until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

#: Is told what happens to a connection, and when.
Note: TypeAlias = "Callable[[dict[str, Any]], object]"
#: How many events of a client are under way at once.
AT_ONCE = 8


def payload(entry: Entry) -> str:
    return f"{entry.sender} says {entry.place}"


class Receiver:
    """A server that notes what it handles.

    Args:
        address: Where to listen.
        ledger: Where to note it.
        heartbeat: Seconds after which it wants a sign of life.
        note: Is told what happens to its connections.
    """

    def __init__(self, address: str | pyipc.Endpoint, ledger: Ledger, heartbeat: float, note: Note) -> None:
        self.ledger = ledger
        self.server = pyipc.Server(address, heartbeat_interval=heartbeat, close_timeout=0.5)
        self.server.on("say", self.handle)
        self.server.on_disconnect(lambda reason: note({"what": reason.code, "at": time.monotonic()}))

    def handle(self, message: pyipc.Message[list[Any]]) -> None:
        sender, place, text = message.data
        self.ledger.note_handled("server", Entry(sender, place), digest_of(text), redelivered=message.redelivered)


class Emitter:
    """A client that emits confirmed events without a pause, until it is told to stop.

    Args:
        address: Of the server.
        ledger: Where to note what it sends.
        heartbeat: Seconds after which it wants a sign of life.
        note: Is told what happens to its connections.
    """

    def __init__(self, address: str | pyipc.Endpoint, ledger: Ledger, heartbeat: float, note: Note) -> None:
        self.ledger = ledger
        self.confirmed = 0
        self.stopped = False
        self._connecting = pyipc.connect(
            address,
            heartbeat_interval=heartbeat,
            handshake_timeout=1,
            connect_timeout=30,
            reconnect_interval=0.01,
            reconnect_max_interval=0.1,
            close_timeout=0.5,
        )
        self._note = note

    async def run(self) -> None:
        async with self._connecting as client, trio.open_nursery() as nursery:
            client.on_disconnect(lambda reason: self._note({"what": reason.code, "at": time.monotonic()}))
            for number in range(AT_ONCE):
                nursery.start_soon(self._emit_all, client, f"sender-{number}")

    async def _emit_all(self, client: pyipc.Client, sender: str) -> None:
        place = 0
        while not self.stopped:
            entry = Entry(sender, place)
            self.ledger.note_sent(entry, digest_of(payload(entry)))
            await client.emit("say", [*entry, payload(entry)], confirm=True)
            self.ledger.note_confirmed(entry)
            self.confirmed += 1
            place += 1
            await trio.sleep(0.005)


async def serve(address: str, ledger: str, heartbeat: str) -> None:
    receiver = Receiver(address, Ledger(Path(ledger)), float(heartbeat), tell)
    async with receiver.server:
        tell(str(receiver.server.addresses[0]))
        async for _ in told():
            pass


async def emit(address: str, ledger: str, heartbeat: str) -> None:
    emitter = Emitter(address, Ledger(Path(ledger)), float(heartbeat), tell)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(emitter.run)
        async for _ in told():
            before = emitter.confirmed
            await until(lambda: emitter.confirmed >= before + 5 * AT_ONCE)  # noqa: B023 - it is over when this is
            tell({"what": "confirmed"})
        emitter.stopped = True


async def unplug(heartbeat: str, times: str) -> None:
    """In a network of its own, of which only loopback is there: pull the plug of that."""
    plug("up")
    ledger = Ledger()
    events: dict[str, list[dict[str, Any]]] = {"server": [], "client": []}
    receiver = Receiver("tcp://127.0.0.1:0", ledger, float(heartbeat), events["server"].append)
    async with receiver.server:
        emitter = Emitter(str(receiver.server.addresses[0]), ledger, float(heartbeat), events["client"].append)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(emitter.run)
            for _ in range(int(times)):
                before = emitter.confirmed
                await until(lambda: emitter.confirmed >= before + 5 * AT_ONCE)  # noqa: B023 - it is over when this is
                for each in events.values():
                    each.clear()
                pulled = time.monotonic()
                plug("down")
                tell({who: at - pulled for who, at in (await silences(events)).items()})
                plug("up")
            before = emitter.confirmed
            await until(lambda: emitter.confirmed >= before + 5 * AT_ONCE)
            emitter.stopped = True
    tell(ledger.check(duplicates="never").confirmed)


async def silences(events: dict[str, list[dict[str, Any]]]) -> dict[str, float]:
    """When each side noticed that the other is silent, once both have."""

    def found() -> dict[str, float]:
        return {who: each["at"] for who, all_of_it in events.items() for each in all_of_it if each["what"] == "silent"}

    await until(lambda: len(found()) == len(events))
    return found()


def plug(state: str) -> None:
    subprocess.run(["ip", "link", "set", "lo", state], check=True, timeout=10)


if __name__ == "__main__":
    role, *words = sys.argv[1:]
    programs: dict[str, Callable[..., Awaitable[None]]] = {"serve": serve, "emit": emit, "unplug": unplug}
    trio.run(programs[role], *words)
