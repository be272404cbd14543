"""The ledger and the gate notice what they are there for."""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING

import pytest
import trio

from tests.battery.leaks import LeakGate, leak_gate
from tests.battery.ledger import Entry, Ledger, digest_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FIRST, SECOND = Entry("ada", 0), Entry("ada", 1)
DIGEST = digest_of("data")


def even() -> Ledger:
    """Two messages of which all is well."""
    ledger = Ledger()
    for entry in (FIRST, SECOND):
        ledger.note_sent(entry, DIGEST)
        ledger.note_handled("one", entry, DIGEST)
        ledger.note_confirmed(entry)
    return ledger


def test_an_even_balance() -> None:
    balance = even().check(duplicates="never")
    assert (balance.sent, balance.confirmed, balance.handled, balance.again) == (2, 2, 2, 0)


def test_what_comes_again_in_another_life_is_marked() -> None:
    ledger = even()
    ledger.note_handled("two", FIRST, DIGEST, redelivered=True)
    assert ledger.check().again == 1
    with pytest.raises(AssertionError, match="more than once"):
        ledger.check(duplicates="never")


@pytest.mark.parametrize(
    ("kind", "spoil"),
    [
        ("lost", lambda ledger: ledger.note_confirmed(Entry("ada", 2))),
        ("invented", lambda ledger: ledger.note_handled("one", Entry("eve", 0), DIGEST)),
        ("denied", lambda ledger: ledger.note_failed(FIRST, maybe_handled=False)),
        ("changed", lambda ledger: ledger.note_handled("two", FIRST, DIGEST + 1, redelivered=True)),
        ("doubled", lambda ledger: ledger.note_handled("one", SECOND, DIGEST, redelivered=True)),
        ("unmarked", lambda ledger: ledger.note_handled("two", FIRST, DIGEST)),
        (
            "disordered",
            lambda ledger: [ledger.note_handled("two", each, DIGEST, redelivered=True) for each in (SECOND, FIRST)],
        ),
    ],
)
def test_what_does_not_add_up_is_told(kind: str, spoil: Callable[[Ledger], object]) -> None:
    ledger = even()
    spoil(ledger)
    assert list(ledger.balance().faults()) == [kind]
    with pytest.raises(AssertionError, match=kind):
        ledger.check()


def test_a_failure_that_may_have_been_handled_is_none() -> None:
    ledger = even()
    ledger.note_failed(FIRST, maybe_handled=True)
    ledger.check()


def test_notes_survive_their_process(tmp_path: Path) -> None:
    sender, receiver = Ledger(tmp_path / "sender"), Ledger(tmp_path / "receiver")
    sender.note_sent(FIRST, DIGEST)
    receiver.note_handled("one", FIRST, DIGEST)
    sender.note_confirmed(FIRST)
    sender.note_sent(SECOND, DIGEST)
    with (tmp_path / "receiver").open("ab") as file:
        file.write(b"handled ada 1")  # killed in the middle
    balance = Ledger.read(tmp_path.iterdir()).check()
    assert (balance.sent, balance.confirmed, balance.handled) == (2, 1, 1)
    sender.close()
    receiver.close()


async def test_nothing_is_left_behind(tmp_path: Path) -> None:
    async with leak_gate(tmp_path), trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep, 0)
        (tmp_path / "file").touch()
        (tmp_path / "file").unlink()


@pytest.mark.parametrize("what", ["files", "tasks", "threads"])
async def test_what_is_left_behind_is_told(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.battery.leaks._PATIENCE", 0.1)
    done = threading.Event()
    thread = threading.Thread(target=done.wait, name="left")
    async with trio.open_nursery() as nursery:
        with pytest.raises(AssertionError, match=what):
            async with leak_gate(tmp_path):
                match what:
                    case "files":
                        (tmp_path / "left").touch()
                    case "tasks":
                        nursery.start_soon(trio.sleep_forever)
                    case "threads":
                        thread.start()
        nursery.cancel_scope.cancel()
    done.set()
    if what == "threads":
        thread.join()


@pytest.mark.skipif(sys.platform != "linux", reason="cannot run here: the system does not tell")
@pytest.mark.parametrize("what", ["descriptors", "children"])
async def test_what_the_system_holds_is_told(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.battery.leaks._PATIENCE", 0.1)
    end, other_end = os.pipe()
    async with trio.open_nursery() as nursery:
        with pytest.raises(AssertionError, match=what):
            async with leak_gate():
                if what == "descriptors":
                    number = os.dup(end)
                else:
                    child = await nursery.start(trio.run_process, ["sleep", "60"])
        if what == "descriptors":
            os.close(number)
        else:
            child.kill()
            nursery.cancel_scope.cancel()
    os.close(end)
    os.close(other_end)


def test_memory_that_grows_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    size = 100 << 20
    monkeypatch.setattr("tests.battery.leaks.resident_size", lambda: size)
    gate = LeakGate()
    gate.check_memory()  # nobody has asked
    gate.warmed_up()
    size += 9 << 20
    gate.check_memory()
    size += 2 << 20
    with pytest.raises(AssertionError, match="grew by 11,534,336 bytes"):
        gate.check_memory()
