"""One side of a conversation: who may say what to whom, and what happens to those who break the rules."""

from __future__ import annotations

import json
import re
import tracemalloc
from typing import Any

import pytest

from pyipc.errors import (
    InvalidEventName,
    MessageTooLarge,
    PeerLacksFeature,
    RemoteProtocolError,
    UnencodableData,
)
from pyipc.protocol.codec import Event, control_frame
from pyipc.protocol.conversation import Role
from pyipc.protocol.messages import (
    Hello,
    Malformed,
    Ping,
    Welcome,
)
from pyipc.protocol.names import UNSAFE_NAMES
from pyipc.protocol.raw import RawConversation
from tests.protocol.helpers import (
    FF,
    code,
    conversation,
    cut,
    frame,
    introduced,
    nested,
    one_of_each,
    other,
    receive,
    received,
    told,
)

both_roles = pytest.mark.parametrize("role", Role)
HELLO = control_frame(Hello([1])) + FF
WELCOME = control_frame(Welcome(1)) + FF
PING = control_frame(Ping()) + FF


@both_roles
@pytest.mark.parametrize("malformed", ["close", "skip"])
@pytest.mark.parametrize("hello_of_tls", [b"\x16\x03\x01\x02\x00\x01", b"\x15\x03\x03\x00\x02\x02\x0a", b"\x16"])
def test_tls_where_plain_text_belongs_is_told_at_once(role: Role, malformed: str, hello_of_tls: bytes) -> None:
    side = conversation(role, malformed=malformed)
    [told] = side.receive_data(hello_of_tls)
    assert isinstance(told, Malformed)
    assert (told.error.code, told.fatal) == ("tls", True)
    assert "tls://" in str(told.error)
    assert side.receive_data(frame(b"1") + FF) == []


@both_roles
def test_only_the_first_byte_says_that_it_is_tls(role: Role) -> None:
    side = conversation(role)
    assert code(receive(side, [frame(b"1") + FF, b"\x16\x03", FF])[1:]) == "json"
    side = conversation(role, delimiter=b"\x16", malformed="skip")  # an empty frame, then
    assert receive(side, [b"\x16" + frame(b"1") + b"\x16"])[-1] == Event("e", 1)


# --- plain events -------------------------------------------------------------------------------------------------


@both_roles
@pytest.mark.parametrize("delimiter", [b"\f", b"\n", b"\0"])
def test_an_event_is_what_node_ipc_sends(role: Role, delimiter: bytes) -> None:
    sender, receiver = conversation(role, delimiter=delimiter), conversation(other(role), delimiter=delimiter)
    sent = sender.event("message", {"a": 1, "id": "hello"})
    assert sent == b'{"type":"message","data":{"a":1,"id":"hello"}}' + delimiter
    for size in (1, 5, len(sent)):
        assert receive(receiver, cut(sent, size)) == [Event("message", {"a": 1, "id": "hello"})]
    assert receiver.protocol == "plain"
    assert receiver.data_to_send() == b""


@both_roles
def test_complete_frames_are_told_at_once_though_a_partial_one_follows(role: Role) -> None:
    side = conversation(role)
    assert side.receive_data(frame(b"1") + FF + frame(b"2") + FF + b'{"type"') == [Event("e", 1), Event("e", 2)]
    assert (side.partial_size, side.frames_completed) == (7, 1)
    assert side.receive_data(b':"e","data":3}' + FF) == [Event("e", 3)]
    assert (side.partial_size, side.frames_completed) == (0, 2)


@both_roles
def test_a_batch_of_known_names_and_of_new_ones(role: Role) -> None:
    side = conversation(role)
    stream = (frame(b"1") + FF) * 3
    assert side.receive_data(stream) == side.receive_data(stream) == [Event("e", 1)] * 3
    assert side.receive_data(stream + frame(b"2", b'"new"') + FF) == [*[Event("e", 1)] * 3, Event("new", 2)]


@both_roles
def test_more_names_than_are_remembered(role: Role) -> None:
    side, peer = one_of_each(role)
    for turn in range(2_500):
        assert peer.receive_data(side.event(f"name {turn}", turn)) == [Event(f"name {turn}", turn)]
    with pytest.raises(InvalidEventName):
        side.event("pyipc.new", 1)


# --- names --------------------------------------------------------------------------------------------------------


@both_roles
@pytest.mark.parametrize(
    "name", ["n" * 256, "\u00e9" * 128, "\u20ac" * 85 + "n", "\U0001f600" * 64, "\ud800" * 85 + "n"]
)
def test_a_name_of_256_bytes_passes_and_one_of_257_does_not(role: Role, name: str) -> None:
    sender, receiver = conversation(role), conversation(other(role))
    assert receiver.receive_data(sender.event(name, 1)) == [Event(name, 1)]
    with pytest.raises(InvalidEventName, match=re.escape("takes 257 bytes and the limit is 256 (max_event_name_size)")):
        sender.event(name + "n", 1)
    generous = conversation(role, max_event_name_size=1_000)
    assert code(receiver.receive_data(generous.event(name + "n", 1))) == "name"


@both_roles
@pytest.mark.parametrize("name", ["", "pyipc.hello", "pyipc.", "pyipc.of my own", None, 5, b"e"])
def test_names_that_nobody_may_send(role: Role, name: Any) -> None:
    for side in (conversation(role), one_of_each(role)[0], conversation(role, unsafe_names=True)):
        with pytest.raises(InvalidEventName) as caught:
            side.event(name, 1)
        assert caught.value.event == name
        with pytest.raises(InvalidEventName):
            side.check(name, b"{}" + FF)


def test_names_that_are_free() -> None:
    for name in ("pyipc", "pyipcs", "Pyipc.x", " ", "*", "\0", "message", "request"):
        assert conversation().event(name, 1).startswith(b'{"type":')


@both_roles
def test_an_empty_name_is_heard_as_node_ipc_may_send_it(role: Role) -> None:
    assert conversation(role).receive_data(b'{"type":"","data":1}\f') == [Event("", 1)]


@both_roles
@pytest.mark.parametrize("name", sorted(UNSAFE_NAMES))
def test_names_that_node_ipc_does_not_survive(role: Role, name: str) -> None:
    plain = conversation(role)
    assert plain.is_risky(name)
    with pytest.raises(InvalidEventName, match="unsafe_names=True"):
        plain.event(name, 1)
    bold = conversation(role, unsafe_names=True)
    assert not bold.is_risky(name)
    assert bold.event(name, 1) == frame(b"1", json.dumps(name).encode()) + FF
    side, peer = one_of_each(role)
    assert not side.is_risky(name)
    assert peer.receive_data(side.event(name, 1)) == [Event(name, 1)]
    # A request carries the name in its data, where nobody takes it for anything.
    assert conversation(Role.CLIENT).request(name, 1)[0] == 1


def test_the_names_that_node_ipc_9_and_10_cannot_take() -> None:
    assert {"toString", "constructor", "__proto__", "hasOwnProperty", "valueOf"} <= UNSAFE_NAMES
    assert {"connect", "disconnect", "destroy", "error", "data", "start", "close"} <= UNSAFE_NAMES
    assert not conversation().is_risky("message")


# --- sizes --------------------------------------------------------------------------------------------------------


def of_size(size: int) -> bytes:
    """A frame that takes this many bytes without its delimiter."""
    return frame(b'"' + b"a" * (size - len(frame(b'""'))) + b'"')


@both_roles
@pytest.mark.parametrize("malformed", ["close", "skip"])
@pytest.mark.parametrize("size", [1, 7, 1_000])
def test_a_frame_of_the_largest_size_passes_and_one_byte_more_does_not(role: Role, malformed: str, size: int) -> None:
    options: dict[str, Any] = {"max_frame_size": 500, "malformed": malformed}
    stream = frame(b"1") + FF + of_size(500) + FF
    assert len(receive(conversation(role, **options), cut(stream, size))) == 2
    stream = frame(b"1") + FF + of_size(501) + FF + frame(b"2") + FF
    items = receive(conversation(role, **options), cut(stream, size))
    assert told(items) == [repr(Event("e", 1)), "size (fatal)"]  # also where others are skipped: its end may never come


LARGE = "x" * 100_000


@both_roles
def test_a_large_frame_in_pieces_and_what_follows_it(role: Role) -> None:
    side = conversation(role)
    whole = frame(f'"{LARGE}"'.encode()) + FF
    assert side.receive_data(whole[:70_000]) == []
    assert received(side, whole[70_000:] + b'{"type"') == [Event("e", LARGE)]
    assert (side.partial_size, side.frames_completed) == (7, 1)
    assert side.receive_data(b':"e","data":3}' + FF) == [Event("e", 3)]


@both_roles
@pytest.mark.parametrize(
    ("data", "code"),
    [
        (f'"{LARGE}', "json"),
        (f'["{LARGE}",' + "[" * 64 + "]" * 64 + "]", "depth"),
        (f'"{LARGE}","type":1', "envelope"),
    ],
)
def test_a_large_frame_that_is_refused(role: Role, data: str, code: str) -> None:
    side = conversation(role)
    whole = frame(data.encode()) + FF + frame(b"2") + FF
    assert side.receive_data(whole[:70_000]) == []
    (refused,) = received(side, whole[70_000 : whole.index(FF) + 1])
    assert isinstance(refused, Malformed)
    assert (refused.error.code, refused.fatal) == (code, True)
    assert side.receive_data(whole[whole.index(FF) + 1 :]) == []


@both_roles
def test_a_partial_frame_over_the_limit(role: Role) -> None:
    side = conversation(role, max_frame_size=500)
    assert side.receive_data(frame(b"1") + FF + b"a" * 500) == [Event("e", 1)]
    assert code(side.receive_data(b"a")) == "size"
    assert side.receive_data(FF + frame(b"1") + FF) == []


@both_roles
def test_many_frames_may_be_larger_than_one(role: Role) -> None:
    side = conversation(role, max_frame_size=500)
    stream = (of_size(400) + FF) * 3
    assert len(side.receive_data(stream)) == len(side.receive_data(stream)) == 3
    assert code(side.receive_data(stream + of_size(501) + FF)) == "size"


@both_roles
def test_what_is_too_large_to_send(role: Role) -> None:
    side = conversation(role, max_frame_size=500)
    assert side.event("e", "a" * (500 - len(frame(b'""')))) == of_size(500) + FF
    with pytest.raises(MessageTooLarge) as caught:
        side.event("e", "a" * (501 - len(frame(b'""'))))
    assert (caught.value.size, caught.value.limit) == (501, 500)


@both_roles
@pytest.mark.parametrize(("ours", "theirs"), [(500, 900), (900, 500)])
def test_the_send_limit_is_the_smaller_of_both(role: Role, ours: int, theirs: int) -> None:
    limits = {role: ours, other(role): theirs}
    client, server = introduced(
        conversation(Role.CLIENT, max_frame_size=limits[Role.CLIENT]),
        conversation(Role.SERVER, max_frame_size=limits[Role.SERVER]),
    )
    side = client if role is Role.CLIENT else server
    assert side.event("e", "a" * (500 - len(frame(b'""')))) == of_size(500) + FF
    for attempt in (
        lambda: side.event("e", "a" * 500),
        lambda: side.request("e", "a" * 500),
        lambda: side.reply(1, "a" * 500),
        lambda: side.check("e", b"a" * 502),
    ):
        with pytest.raises(MessageTooLarge) as caught:
            attempt()
        assert caught.value.limit == 500
    side.check("e", b"a" * 501)  # the delimiter does not count


def test_a_peer_that_names_no_size_has_ours() -> None:
    server = conversation(max_frame_size=500)
    server.receive_data(HELLO)
    with pytest.raises(MessageTooLarge, match="limit is 500"):
        server.event("e", "a" * 500)


@pytest.mark.parametrize("size", [0, -1])
def test_a_peer_that_takes_nothing_is_refused(size: int) -> None:
    server = conversation()
    assert code(server.receive_data(control_frame(Hello([1], max_frame_size=size)) + FF)) == "control"
    assert server.data_to_send() == b""
    client = conversation(Role.CLIENT)
    assert code(client.receive_data(control_frame(Welcome(1, max_frame_size=size)) + FF)) == "control"


# --- errors of the peer -------------------------------------------------------------------------------------------

WRONG = {
    "json": b"{",
    "utf8": b'"\xff"',
    "envelope": b"[]",
    "depth": frame(nested(64)),
    "name": frame(b"1", b'"' + b"n" * 257 + b'"'),
}


@both_roles
@pytest.mark.parametrize("wrong", WRONG)
def test_nothing_is_heard_after_a_fatal_error(role: Role, wrong: str) -> None:
    side = conversation(role)
    items = side.receive_data(frame(b"1") + FF + WRONG[wrong] + FF + frame(b"2") + FF)
    assert told(items) == [repr(Event("e", 1)), f"{wrong} (fatal)"]
    assert side.receive_data(frame(b"3") + FF) == []
    assert not side.awaits_welcome


@both_roles
def test_a_wrong_name_among_good_ones(role: Role) -> None:
    side = conversation(role)
    stream = frame(b"1") + FF + WRONG["name"] + FF + frame(b"2") + FF
    assert told(side.receive_data(stream)) == [repr(Event("e", 1)), "name (fatal)"]
    side = conversation(role, malformed="skip")
    assert told(side.receive_data(stream)) == [repr(Event("e", 1)), "name", repr(Event("e", 2))]


@both_roles
@pytest.mark.parametrize("size", [1, 10_000])
def test_skip_goes_on_after_each(role: Role, size: int) -> None:
    side = conversation(role, malformed="skip")
    stream = b"".join(text + FF + frame(b"1") + FF for text in [*WRONG.values(), b"", b"\n", b"\x01", frame(b"1") * 2])
    items = receive(side, cut(stream, size))
    codes = [*WRONG, "json", "json", "json", "json"]
    assert told(items) == [text for wrong in codes for text in (wrong, repr(Event("e", 1)))]


@both_roles
def test_skip_is_for_plain_peers(role: Role) -> None:
    client, server = introduced(conversation(Role.CLIENT, malformed="skip"), conversation(malformed="skip"))
    side = client if role is Role.CLIENT else server
    assert code(side.receive_data(b"{\f")) == "json"


def test_skip_is_not_for_a_peer_that_must_introduce_itself() -> None:
    assert code(conversation(malformed="skip", require_hello=True).receive_data(b"{\f")) == "json"


@both_roles
def test_skip_does_not_excuse_wrong_frames_of_our_own(role: Role) -> None:
    side = conversation(role, malformed="skip")
    assert code(side.receive_data(b'{"type":"pyipc.request","data":{}}\f')) == "control"


# --- raw bytes ----------------------------------------------------------------------------------------------------


def test_raw_bytes_are_events_named_data() -> None:
    side = RawConversation()
    assert (side.open(), side.data_to_send(), side.protocol, side.partial_size, side.frames_completed) == (
        b"",
        b"",
        "plain",
        0,
        0,
    )
    assert not side.awaits_welcome
    assert not side.is_risky("data")
    for value in (b"\x00\f\xff", bytearray(b"\x00\f\xff"), memoryview(b"\x00\f\xff")):
        sent = side.event("data", value)
        assert sent == b"\x00\f\xff"
        assert side.receive_data(sent) == [Event("data", b"\x00\f\xff")]
    assert side.ping() == side.goaway("x") == side.goodbye("x", "y") == b""


def test_raw_bytes_have_no_more() -> None:
    side = RawConversation()
    with pytest.raises(InvalidEventName, match="only the event 'data'"):
        side.event("message", b"x")
    with pytest.raises(UnencodableData, match="not str"):
        side.event("data", "x")
    for call in (
        lambda: side.request("e", 1),
        lambda: side.reply(1, 1),
        lambda: side.failure(1, "a", "b"),
        lambda: side.cancel(1),
    ):
        with pytest.raises(PeerLacksFeature) as caught:
            call()
        assert caught.value.feature == "request"


def test_the_error_a_peer_makes_is_one_of_a_kind() -> None:
    (item,) = conversation().receive_data(b"{\f")
    assert isinstance(item, Malformed)
    assert isinstance(item.error, RemoteProtocolError)
    assert item.error.__cause__ is not None


LONG = b"9" * 4_000


@pytest.mark.parametrize(
    "text",
    [
        frame(b'["\\ud800",%b.5]' % LONG),
        frame(b'{"call":%b}' % LONG, b'"pyipc.cancel"'),
        frame(b'{"number":%b,"event":"e"}' % LONG, b'"pyipc.deliver"'),
        frame(b'{"call":%b}' % LONG, b'"pyipc.end"'),
        frame(b'{"versions":[%b]}' % LONG, b'"pyipc.hello"'),
        frame(b'{"call":1,"event":"pyipc.%b"}' % LONG, b'"pyipc.request"'),
    ],
)
def test_a_peer_is_quoted_in_short(text: bytes) -> None:
    """What is wrong is told to logs and to the peer; neither is to be filled by what it sent."""
    side = conversation()
    (item,) = side.receive_data(text + FF)
    assert isinstance(item, Malformed)
    assert len(str(item.error)) <= 503
    assert len(str(item.error.__cause__)) <= 503
    assert len(side.data_to_send()) <= 400


@pytest.mark.parametrize("text", [b'"%b\xff"', b'["\\ud800","%b" 1]', b'["%b",1e400]', b'{"%b":1e400,"\\ud800":1}'])
def test_an_error_that_is_kept_does_not_keep_the_frame(text: bytes) -> None:
    size = 200_000
    side = conversation()
    chunk = frame(text % (b"x" * size)) + FF
    tracemalloc.start()
    try:
        items = received(side, chunk)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(items[-1], Malformed)
    assert kept < size // 10
