"""What was sent, confirmed and handled, message by message, and whether it adds up.

Whoever sends or handles notes it in a `Ledger`; one that has a file appends each note with a single write, so that it
is still there when the process is killed in the next instant. `Ledger.read` puts the files of many processes together.
"""

from __future__ import annotations

import collections
import dataclasses
import os
import zlib
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["Balance", "Entry", "Handling", "Ledger", "digest_of"]


class Entry(NamedTuple):
    """One message: who sent it, and which of theirs it is, counted from 0."""

    sender: str
    place: int


class Handling(NamedTuple):
    """One time that a message was handled.

    Attributes:
        entry: Which.
        digest: Of what arrived, to be that of what was sent.
        redelivered: Whether the handler was told that it may not be the first time.
    """

    entry: Entry
    digest: int
    redelivered: bool


def digest_of(payload: bytes | str) -> int:
    """What to note of the content of a message, so that one that was changed on its way is noticed."""
    return zlib.crc32(payload.encode() if isinstance(payload, str) else payload)


@dataclasses.dataclass(frozen=True)
class Balance:
    """What a ledger comes to.

    Attributes:
        sent: Messages that were sent.
        confirmed: Those of which the sender was told that they had been handled.
        handled: Those that were handled, however often.
        lost: Confirmed, and handled by nobody.
        invented: Handled, and sent by nobody.
        denied: Handled, although the sender was told that they surely had not been.
        changed: Handled with other content than was sent.
        doubled: Handled twice in one life of a receiver.
        unmarked: Handled in a later life of a receiver, and not marked as redelivered.
        disordered: Handled for the first time in this life after a later one of the same sender.
        again: Handled in more than one life; no fault.
    """

    sent: int
    confirmed: int
    handled: int
    lost: list[Entry]
    invented: list[Entry]
    denied: list[Entry]
    changed: list[Entry]
    doubled: list[Entry]
    unmarked: list[Entry]
    disordered: list[Entry]
    again: int

    def faults(self) -> dict[str, list[Entry]]:
        """What does not add up, with the first few of each kind."""
        kinds = ("lost", "invented", "denied", "changed", "doubled", "unmarked", "disordered")
        return {kind: getattr(self, kind)[:10] for kind in kinds if getattr(self, kind)}


class Ledger:
    """Notes of one process, or of many that were put together.

    Args:
        path: A file to append each note to, for others to read; in memory alone if left out.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._file = None if path is None else os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self.sent: dict[Entry, int] = {}
        self.confirmed: set[Entry] = set()
        self.denied: set[Entry] = set()
        #: What each life of a receiver handled, in order.
        self.handled: dict[str, list[Handling]] = {}

    @classmethod
    def read(cls, paths: Iterable[Path]) -> Ledger:
        """The notes of many files, of which the last line may be cut off."""
        ledger = cls()
        for path in sorted(paths):
            for line in path.read_bytes().splitlines(keepends=True):
                if line.endswith(b"\n"):
                    ledger._take(line.decode().split())
        return ledger

    def close(self) -> None:
        """Take no more notes into the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def note_sent(self, entry: Entry, digest: int) -> None:
        """The message is about to be sent."""
        self._note("sent", *entry, digest)

    def note_confirmed(self, entry: Entry) -> None:
        """The sender was told that it has been handled."""
        self._note("confirmed", *entry)

    def note_failed(self, entry: Entry, *, maybe_handled: bool) -> None:
        """The sender was told that it may not have been handled, or surely has not."""
        if not maybe_handled:
            self._note("denied", *entry)

    def note_handled(self, life: str, entry: Entry, digest: int, *, redelivered: bool = False) -> None:
        """A receiver has handled it.

        Args:
            life: The receiver, under a name of its own each time that it starts.
            entry: Which message.
            digest: Of what arrived.
            redelivered: What the message says of itself.
        """
        self._note("handled", *entry, digest, int(redelivered), life)

    def _note(self, *words: object) -> None:
        text = [str(word) for word in words]
        self._take(text)
        if self._file is not None:
            os.write(self._file, (" ".join(text) + "\n").encode())

    def _take(self, words: list[str]) -> None:
        kind, sender, place, *rest = words
        entry = Entry(sender, int(place))
        match kind, rest:
            case "sent", [digest]:
                self.sent[entry] = int(digest)
            case "confirmed", []:
                self.confirmed.add(entry)
            case "denied", []:
                self.denied.add(entry)
            case "handled", [digest, redelivered, life]:
                self.handled.setdefault(life, []).append(Handling(entry, int(digest), redelivered == "1"))
            case _:
                raise ValueError(f"this is no note of a ledger: {' '.join(words)!r}")

    def balance(self) -> Balance:
        """What it comes to."""
        lives = collections.Counter(entry for life in self.handled.values() for entry in {each.entry for each in life})
        every = [each for life in self.handled.values() for each in life]
        doubled, disordered = [], []
        for life in self.handled.values():
            seen: set[Entry] = set()
            last: dict[str, int] = {}
            for each in life:
                if each.entry in seen:
                    doubled.append(each.entry)
                elif each.entry.place < last.get(each.entry.sender, -1):
                    disordered.append(each.entry)
                seen.add(each.entry)
                last[each.entry.sender] = max(each.entry.place, last.get(each.entry.sender, -1))
        marked = collections.Counter(each.entry for each in every if each.redelivered)
        return Balance(
            sent=len(self.sent),
            confirmed=len(self.confirmed),
            handled=len(lives),
            lost=sorted(self.confirmed - set(lives)),
            invented=sorted(set(lives) - set(self.sent)),
            denied=sorted(self.denied & set(lives)),
            changed=sorted({e.entry for e in every if self.sent.get(e.entry, e.digest) != e.digest}),
            doubled=sorted(doubled),
            unmarked=sorted(entry for entry, count in lives.items() if count - 1 > marked[entry]),
            disordered=sorted(disordered),
            again=sum(count > 1 for count in lives.values()),
        )

    def check(self, *, order: bool = True, duplicates: Literal["never", "marked"] = "marked") -> Balance:
        """The balance, which must be even.

        Args:
            order: Whether each sender's messages are to be handled in order.
            duplicates: Whether a message may be handled in more than one life of a receiver, and is then marked.

        Raises:
            AssertionError: It is not, and how.
        """
        balance = self.balance()
        faults = balance.faults()
        if not order:
            faults.pop("disordered", None)
        assert not faults, f"of {balance.sent} messages, {balance.confirmed} of them confirmed: {faults}"
        assert duplicates == "marked" or not balance.again, f"{balance.again} messages were handled more than once"
        return balance
