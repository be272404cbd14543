"""Large frames in a conversation: begun by the bytes that complete them, and read when there is time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pyipc.protocol.codec import Event, Reply, Request, control_frame
from pyipc.protocol.conversation import Role
from pyipc.protocol.features import Deliver, Item, OpenStream, Publish, Published, ReceivedItem, TracedEvent
from pyipc.protocol.framed import _LARGE
from pyipc.protocol.messages import Failure, Goodbye, Introduced, StreamHello
from pyipc.protocol.parcels import RECORD
from pyipc.protocol.raw import RawConversation
from pyipc.protocol.records import WithAttachments
from tests.protocol.helpers import FF, code, conversation, cut, frame, one_of_each, receive, received, told

if TYPE_CHECKING:
    from pyipc.protocol.conversation import Inbound
    from pyipc.protocol.framed import JsonConversation

both_roles = pytest.mark.parametrize("role", Role)

DATA = [[number, "x" * 20] for number in range(20_000)]
LARGE = frame(b"[" + b",".join(b'[%d,"%b"]' % (number, b"x" * 20) for number in range(20_000)) + b"]")
SMALL = frame(b"1", b'"small"') + FF
READ = [Event("e", DATA), Event("small", 1)]


def of_size(size: int) -> bytes:
    """A frame of so many bytes."""
    return frame(b'["' + b"x" * (size - len(frame(b'[""]'))) + b'"]')


def record(content: bytes) -> bytes:
    return RECORD + len(content).to_bytes(8, "big") + content


def go_on(side: JsonConversation) -> tuple[int, list[Inbound]]:
    """In how many steps a large frame was read, and what came of it."""
    steps = 0
    items: list[Inbound] = []
    while side.is_busy and not items:
        items = side.go_on()
        steps += 1
    return steps, items


@both_roles
def test_it_is_begun_by_the_bytes_that_complete_it(role: Role) -> None:
    side = conversation(role)
    assert side.receive_data(SMALL + LARGE) == [Event("small", 1)]
    assert not side.is_busy
    assert side.go_on() == []
    completed = side.frames_completed
    assert side.receive_data(FF) == []
    assert side.is_busy
    assert (side.partial_size, side.frames_completed) == (len(LARGE) + 1, completed)
    steps, items = go_on(side)
    assert steps > 20
    assert items == [Event("e", DATA)]
    assert not side.is_busy
    assert (side.partial_size, side.frames_completed) == (0, completed + 1)
    assert side.receive_data(SMALL) == [Event("small", 1)]


@both_roles
def test_what_is_before_and_behind_keeps_its_place(role: Role) -> None:
    side = conversation(role)
    assert side.receive_data((SMALL + LARGE + FF) * 2 + SMALL + b'{"type"') == [Event("small", 1)]
    waiting = 2 * (len(LARGE) + 1) + 2 * len(SMALL) + len(b'{"type"')
    assert side.partial_size == waiting
    assert go_on(side)[1] == [*READ]
    assert side.is_busy
    assert side.partial_size == waiting - len(LARGE + FF + SMALL)
    assert go_on(side)[1] == [*READ]
    assert (side.is_busy, side.partial_size) == (False, len(b'{"type"'))
    assert side.receive_data(b':"e"}' + FF) == [Event("e")]


@both_roles
@pytest.mark.parametrize("size", [997, 65_536, 262_144, 10**7])
def test_however_cut(role: Role, size: int) -> None:
    stream = SMALL * 3 + LARGE + FF + SMALL * 5_000 + LARGE + FF + SMALL
    items = receive(conversation(role), cut(stream, size))
    assert items == [Event("small", 1)] * 3 + READ[:1] + [Event("small", 1)] * 5_000 + READ


@both_roles
@pytest.mark.parametrize("behind", [b"", SMALL, SMALL * 30_000])
@pytest.mark.parametrize("before", [b"", SMALL, SMALL * 30_000])
def test_what_is_large(role: Role, before: bytes, behind: bytes) -> None:
    for size, is_large in [(_LARGE - 1, False), (_LARGE, False), (_LARGE + 1, True)]:
        side = conversation(role)
        count = len(side.receive_data(before + of_size(size) + FF + behind))
        assert side.is_busy is is_large
        while side.is_busy:
            count += len(side.go_on())
        assert count == before.count(FF) + 1 + behind.count(FF)


@both_roles
def test_a_frame_that_is_too_large_is_not_begun(role: Role) -> None:
    side = conversation(role, max_frame_size=100_000)
    assert len(received(side, of_size(100_000) + FF)) == 1
    assert code(side.receive_data(of_size(100_001) + FF + SMALL)) == "size"
    assert not side.is_busy
    side = conversation(role, max_frame_size=100_000)
    items = received(side, of_size(100_000) + FF + of_size(100_001))
    assert told(items)[1:] == ["size (fatal)"]


@pytest.mark.parametrize(
    ("data", "error"),
    [(b"[1,]", "json"), (b'["\xff"]', "utf8"), (b"[" * 64, "depth"), (b'1,"type":5', "envelope")],
)
def test_a_wrong_one_ends_the_conversation_or_is_skipped(data: bytes, error: str) -> None:
    wrong = LARGE[:-1] + b',"data":' + data + b"}"
    side = conversation()
    assert told(received(side, SMALL + wrong + FF + SMALL)) == [repr(Event("small", 1)), f"{error} (fatal)"]
    assert (side.is_busy, side.partial_size, side.receive_data(SMALL)) == (False, 0, [])
    side = conversation(malformed="skip")
    assert told(received(side, SMALL + wrong + FF + SMALL)) == [repr(Event("small", 1)), error, repr(Event("small", 1))]


@both_roles
def test_giving_up(role: Role) -> None:
    side, _ = one_of_each(role)
    side.receive_data(record(b"x") + LARGE + FF + SMALL)
    side.go_on()
    assert side.is_busy
    side.give_up()
    assert (side.is_busy, side.partial_size, side.go_on()) == (False, 0, [])
    assert received(side, LARGE + FF) == READ[:1]  # nothing is left of the record either


def test_without_frames_there_is_nothing_to_go_on_with() -> None:
    side = RawConversation()
    assert side.receive_data(LARGE) == [Event("data", LARGE)]
    side.give_up()
    assert (side.is_busy, side.go_on()) == (False, [])


# --- all kinds of frames ---

FROM_CLIENT: list[Any] = [
    Request(1, "e", DATA),
    TracedEvent("e", DATA, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    Deliver(1, "e", DATA, 1),
    OpenStream(1, "e", DATA, 1, 1),
    Publish("e", DATA),
]
FROM_SERVER: list[Any] = [Reply(1, DATA), Failure(1, "code", "why", DATA), Item(1, DATA), Published("e", DATA, None)]


@pytest.mark.parametrize("records", [0, 2])
@pytest.mark.parametrize("body", FROM_CLIENT + FROM_SERVER, ids=lambda body: body.type)
def test_a_frame_of_our_own(body: Any, records: int) -> None:
    side, _ = one_of_each(Role.SERVER if body in FROM_CLIENT else Role.CLIENT)
    side.next_call()
    wire = control_frame(body) + FF
    said: Any = ReceivedItem(1, DATA, len(wire) - 1) if isinstance(body, Item) else body
    steps, items = 0, side.receive_data(record(b"abc") * records + wire + SMALL)
    assert side.is_busy
    assert side.partial_size == len(wire + SMALL) + records * len(record(b"abc"))
    while side.is_busy:
        items += side.go_on()
        steps += 1
    assert steps > 20
    told_of, *rest = items
    if records and isinstance(body, Failure):
        assert (code([told_of]), rest) == ("control", [])
        return
    assert rest == [Event("small", 1)]
    if not records:
        assert told_of == said
    else:
        assert isinstance(told_of, WithAttachments)
        assert (told_of.item, told_of.attachments) == (said, (b"abc",) * 2)
    assert side.partial_size == 0


@pytest.mark.parametrize("size", [13, 5_000, 10**7])
def test_records_before_and_behind(size: int) -> None:
    side, _ = one_of_each(Role.SERVER)
    attached = record(b"a\fb") + LARGE + FF
    stream = SMALL + attached + record(b"\x01") + SMALL + LARGE + FF + attached + SMALL
    items = receive(side, cut(stream, size))
    assert [type(item) for item in items] == [Event, WithAttachments, WithAttachments, Event, WithAttachments, Event]
    assert [item.attachments for item in items if isinstance(item, WithAttachments)] == [
        (b"a\fb",),
        (b"\x01",),
        (b"a\fb",),
    ]


def test_a_large_hello_brings_records() -> None:
    """From where records may come, what waits is looked at for them, as behind a small one."""
    side = conversation(Role.SERVER)
    hello = control_frame(StreamHello([1], ["attachments", "x" * 100_000])) + FF
    met, attached = received(side, hello + record(b"\f") + SMALL)
    assert isinstance(met, Introduced)
    assert isinstance(attached, WithAttachments)
    assert attached.attachments == (b"\f",)


def test_a_record_inside_of_a_large_frame() -> None:
    side, _ = one_of_each(Role.SERVER)
    wrong = LARGE[:-1].replace(b"x", RECORD, 1) + b"}" + FF
    assert told(received(side, wrong + SMALL)) == ["json (fatal)"]
    side, _ = one_of_each(Role.SERVER)
    assert told(received(side, record(b"x") + wrong + SMALL)) == ["json (fatal)"]
    assert side.partial_size == 0


def test_before_the_hello() -> None:
    side = conversation(Role.SERVER, require_hello=True)
    assert told(received(side, LARGE + FF)) == ["hello (fatal)"]


def test_records_before_what_takes_none() -> None:
    side, _ = one_of_each(Role.SERVER)
    goodbye = control_frame(Goodbye("code", "why")).replace(b"{", b"{" + b" " * 100_000, 1) + FF
    assert received(side, goodbye) == [Goodbye("code", "why")]
    assert code(received(side, record(b"x") + goodbye)) == "control"
