"""A consumer or a producer of messages, which may be killed at any time: ``python -m tests.battery.kill_program``.

All that one life of it does is in a ledger of its own; its next life begins another, and sends under names that nobody
had before. It says when it is "ready" for SIGTERM, which ends it in peace, and when it is "working".
"""

from __future__ import annotations

import itertools
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

import pyipc
from tests.battery.ledger import Entry, Ledger, digest_of

if TYPE_CHECKING:
    from collections.abc import Sequence

# Of so many messages of a sender one is a request, one a plain event, one takes the handler a moment before it is
# noted, one after that, and one has an attachment: which, is said by what is left over.
_ROUND, _ASK, _PLAIN, _BEFORE, _AFTER, _ATTACHED = 16, 3, 7, 9, 10, 13
_MOMENT = 0.002
_SENDERS = 8
_REPORT_EVERY = 32
_PATIENT: dict[str, Any] = {
    "connect_timeout": 60,
    "confirm_timeout": 60,
    "reconnect_interval": 0.02,
    "reconnect_max_interval": 0.2,
}


def is_plain(place: int) -> bool:
    """Whether a sender's message at this place is one that nobody confirms."""
    return place % _ROUND == _PLAIN


def text_of(sender: str, place: int) -> str:
    """What is in a message: of many sizes, and another for each."""
    return f"{sender} says {place}. " * (1 + place * 7 % 60)


# --- consumers --------------------------------------------------------------------------------------------------


async def consume(life: str, ledger: Ledger, address: str) -> None:
    """Handle what comes, until SIGTERM; from then on whatever is begun takes for ever."""
    server = pyipc.Server(address)
    reports = itertools.count()
    handled = itertools.count(1)

    async def pause(is_long: bool) -> None:
        if server.draining:
            await trio.sleep_forever()
        if is_long:
            await trio.sleep(_MOMENT)

    @server.on("work")
    async def work(message: pyipc.Message[list[Any]]) -> None:
        sender, place, text = message.data
        # Killed here it was not handled, although it was received;
        if place % 2:
            await pause(place % _ROUND == _BEFORE)
        digest = digest_of(text.encode() + b"".join(message.attachments))
        ledger.note_handled(life, Entry(sender, place), digest, redelivered=message.redelivered)
        # and here it was, although nobody was told.
        if not place % 2:
            await pause(place % _ROUND == _AFTER)
        count = next(handled)
        if count == 1:
            print("working", flush=True)
        if count % _REPORT_EVERY == 0:
            report(sender.partition(".")[0])

    def report(producer: str) -> None:
        entry = Entry(life, next(reports))
        text = text_of(*entry)
        ledger.note_sent(entry, digest_of(text))
        server.publish_nowait(f"report.{producer}", [*entry, text])

    @server.on("ask")
    def ask(message: pyipc.Message[list[Any]]) -> list[Any]:
        return message.data

    @server.on("hold")
    async def hold(message: pyipc.Message[None]) -> None:
        await trio.sleep_forever()

    async def drain(nursery: trio.Nursery) -> None:
        await server.drain()
        nursery.cancel_scope.cancel()

    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            addresses = await nursery.start(server.run)
            print("ready", addresses[0], flush=True)
            await anext(aiter(signals))
            nursery.start_soon(drain, nursery)
            while not server.draining:  # noqa: ASYNC110 - nothing tells but this
                await trio.sleep(0.001)
            print("draining", flush=True)


# --- producers --------------------------------------------------------------------------------------------------


class Producer:
    """Sends messages until SIGTERM, and waits for those that it has in hand then.

    Args:
        life: Under which name; no other process ever had the same.
        ledger: For what is sent and confirmed.
    """

    def __init__(self, life: str, ledger: Ledger) -> None:
        self._life = life
        self._ledger = ledger
        self._stopping = False
        self._begun = trio.Event()

    async def run(self, addresses: Sequence[str]) -> None:
        """Send half of it to whatever is at the first address, half to any that is there."""
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            print("ready", flush=True)
            async with (
                pyipc.connect(addresses[0], **_PATIENT) as faithful,
                pyipc.connect(*addresses[1:], addresses[0], **_PATIENT) as roaming,
                trio.open_nursery() as beside,
            ):
                beside.start_soon(self._listen, faithful)
                beside.start_soon(self._keep_asking, faithful)
                beside.start_soon(self._keep_asking, roaming)
                async with trio.open_nursery() as senders:
                    for number in range(_SENDERS):
                        senders.start_soon(self._send, faithful, f"{self._life}-faithful{number}")
                        senders.start_soon(self._send, roaming, f"{self._life}-roaming{number}")
                    await self._begun.wait()
                    print("working", flush=True)
                    await anext(aiter(signals))
                    self._stopping = True
                beside.cancel_scope.cancel()

    async def _send(self, client: pyipc.Client, sender: str) -> None:
        for place in itertools.count():
            if self._stopping:
                return
            text = text_of(sender, place)
            if place % _ROUND == _ASK:
                answer = await client.request("ask", [sender, place, text], idempotent=True, timeout=60)
                assert answer == [sender, place, text], f"{sender} got another's answer: {answer}"
                continue
            entry = Entry(sender, place)
            attachments = (text[::-1].encode(),) if place % _ROUND == _ATTACHED else ()
            self._ledger.note_sent(entry, digest_of(text.encode() + b"".join(attachments)))
            confirm = not is_plain(place)
            await client.emit("work", [*entry, text], attachments=attachments, confirm=confirm)
            if confirm:
                self._ledger.note_confirmed(entry)
                self._begun.set()

    async def _listen(self, client: pyipc.Client) -> None:
        async with client.subscribe(f"report.{self._life.partition('.')[0]}") as reports:
            async for report in reports:
                sender, place, text = report.data
                self._ledger.note_handled(self._life, Entry(sender, place), digest_of(text))

    async def _keep_asking(self, client: pyipc.Client) -> None:
        """Ask what is never answered, so that no server is done with draining while somebody uses it."""
        await client.request("hold", idempotent=True, timeout=None)


def main() -> None:
    role, life, folder, *addresses = sys.argv[1:]
    ledger = Ledger(Path(folder) / life)
    if role == "consumer":
        trio.run(consume, life, ledger, addresses[0])
    else:
        trio.run(Producer(life, ledger).run, addresses)


if __name__ == "__main__":
    main()
