"""R5: input made from good input by a mutator that knows the grammar. Only documented outcomes, in bounded memory."""

from __future__ import annotations

import logging
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import pyipc
from pyipc.errors import MessageTooLarge
from pyipc.options import Options
from pyipc.protocol.codec import Event
from pyipc.protocol.conversation import Role
from pyipc.protocol.framed import JsonConversation
from pyipc.protocol.framing import Json
from tests.battery import fuzzing
from tests.battery.fuzzing import FRAMES, HELLO, TARGETS, mutated, once_failed, try_input
from tests.battery.leaks import leak_gate
from tests.battery.sizes import sized
from tests.conformance.sides import until
from tests.protocol.helpers import receive
from tests.wire import join, request

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.battery.conftest import Tally

# 200,000 in all, with those that are sent to a whole server.
COUNTS = {"server": 60_000, "client": 60_000, "datagrams": 40_000, "decoding": 25_000, "texts": 10_000}
TO_A_SERVER = 5_000
MIB = 1024 * 1024

pytestmark = [pytest.mark.slow, pytest.mark.time_limit(300)]


@pytest.mark.parametrize("target", TARGETS)
def test_only_documented_outcomes(target: str, tally: Tally) -> None:
    count = sized(COUNTS[target])
    for seed in range(count):
        try_input(target, seed)
    tally.add(inputs=count)


@pytest.mark.parametrize("entry", once_failed(), ids=lambda entry: entry["why"])
def test_what_once_failed_does_not_any_more(entry: dict[str, Any], tally: Tally) -> None:
    try_input(entry["target"], entry["seed"], entry["text"].encode("utf-8", "surrogateescape"))
    tally.add(inputs=1)


def test_an_input_that_fails_is_told_and_can_be_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(seed: int, data: bytes) -> None:
        raise ZeroDivisionError

    make: Callable[[int], bytes] = TARGETS["texts"][0]
    monkeypatch.setitem(fuzzing.TARGETS, "texts", (make, fail))
    with pytest.raises(AssertionError) as caught:
        try_input("texts", 7)
    assert str(caught.value) == f"python -m tests.battery.fuzzing texts 7: {make(7)!r}"
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_the_same_seed_makes_the_same_input_and_others_make_others() -> None:
    for make, _ in TARGETS.values():
        inputs = [make(seed) for seed in range(1_000)]
        assert inputs == [make(seed) for seed in range(1_000)]
        assert len(set(inputs)) > 500


# --- a whole server ---------------------------------------------------------------------------------------------


async def test_a_server_bears_all_of_it(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture, tally: Tally
) -> None:
    """Each input to a connection of its own: none fails on this side, and others are served afterwards."""
    caplog.set_level(logging.ERROR, "pyipc")
    router = pyipc.Router()
    router.on("**", lambda message: None)

    @router.on("e")
    async def gives_way(message: pyipc.Message[Any]) -> None:
        await trio.lowlevel.checkpoint()

    @router.on("rows")
    async def rows(message: pyipc.Message[Any]) -> Any:
        yield message.data

    reasons: list[str] = []
    server = pyipc.Server(router=router, **fuzzing.LIMITS)
    server.on_disconnect(lambda reason: reasons.append(reason.code))
    count = sized(TO_A_SERVER)
    async with leak_gate(), server:
        for seed in range(count):
            peer = join(server)
            await peer.send(mutated(seed, FRAMES, HELLO) or b" ")
            peer.link.send_eof()
            await peer.read_all()
            await peer.link.aclose()
        await until(lambda: not server.connections)
        good = join(server)
        await good.send(request(1, "e"))
        assert await good.read_until("pyipc.reply") == {"call": 1, "data": None}
        await good.link.aclose()
        assert server.statistics().subscriptions == 0
    assert len(reasons) == count + 1
    assert "failed" not in reasons
    # Who says that it takes ten bytes a frame can have no answer; that is told once in a while.
    unexpected = [each for each in caplog.records if not isinstance((each.exc_info or ((), ()))[1], MessageTooLarge)]
    assert unexpected == []
    tally.add(inputs=count)


# --- memory -----------------------------------------------------------------------------------------------------


def _frame(data: bytes) -> bytes:
    return b'{"type":"e","data":%b}\f' % data


def _many(piece: bytes) -> bytes:
    """An array of so many that the frame is nearly as large as it may be."""
    return b"[%b]" % b",".join([piece] * ((MIB - 100) // (len(piece) + 1)))


TEXT = b'"%b"' % (b"x" * (MIB - 100))
# What an object takes is Python's choice: an empty list 56 bytes and 16 for the collector, where the wire has 2. So
# "8 times the frame" holds of text and small numbers alone. These are the figures of CPython 3.11, and a quarter more.
FACTORS = {
    "text": (TEXT, 2.5),
    "text with an escape": (b'"\\n%b"' % (b"x" * (MIB - 100)), 4.5),
    "text with a wide character": ('"😀%b"'.encode() % (b"x" * (MIB - 100)), 7.5),
    "small numbers": (_many(b"0"), 7),
    "numbers": (_many(b"999"), 13),
    "fractions": (_many(b"1.5"), 12),
    "short texts": (_many(b'"ab"'), 16),
    "empty arrays": (_many(b"[]"), 29),
    "empty objects": (_many(b"{}"), 32),
    "small objects": (_many(b'{"a":0}'), 36),
    "arrays in arrays": (_many(b"[" * 61 + b"]" * 61), 56),
    "objects in objects": (_many(b'{"":' * 61 + b"0" + b"}" * 61), 56),
    "keys": (b"{%b}" % b",".join(b'"%d":0' % number for number in range(10_000, 100_000)), 16),
    "a key again and again": (b"{%b}" % b",".join([b'"a":[]'] * 140_000), 25),
}
REFUSED = {
    "too deep": _frame(b"[" * (MIB - 100)),
    "not JSON at its end": _frame(_many(b"[]") + b"]"),
    "not UTF-8 at its end": _frame(TEXT[:-1] + b'\xff"'),
    "no end": _frame(TEXT)[:-1] + b"x" * 200,
}


def _peak(frame: bytes) -> tuple[list[Any], float]:
    """What a conversation says of a frame that comes in pieces, and memory at most, in times the frame."""
    size = 65_536
    side = JsonConversation(Role.SERVER, Json(), Options())
    pieces = [frame[start : start + size] for start in range(0, len(frame), size)]
    tracemalloc.start()
    try:
        items = receive(side, pieces)
        return items, tracemalloc.get_traced_memory()[1] / len(frame)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", FACTORS)
def test_memory_of_a_large_frame(kind: str, tally: Tally) -> None:
    data, factor = FACTORS[kind]
    items, peak = _peak(_frame(data))
    assert [type(item) for item in items] == [Event]
    print(f"{kind}: {peak:.1f} times the frame")
    assert peak < factor
    tally.add(inputs=1)


@pytest.mark.parametrize("kind", REFUSED)
def test_a_large_frame_that_is_refused_takes_little_memory(kind: str, tally: Tally) -> None:
    items, peak = _peak(REFUSED[kind])
    assert len(items) == 1
    print(f"{kind}: {peak:.1f} times the frame")
    assert peak < 8
    tally.add(inputs=1)
