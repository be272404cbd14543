"""Where a message comes from: which spans are carried, by which frames, to whom, and what is done with the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyipc.errors import InvalidEventName, LocalProtocolError, MessageTooLarge, UnencodableData, UnsupportedByTransport
from pyipc.options import Options
from pyipc.protocol import codec
from pyipc.protocol.conversation import Role
from pyipc.protocol.datagram import DatagramConversation
from pyipc.protocol.features import TracedEvent
from pyipc.protocol.framing import Json
from pyipc.protocol.messages import Request, StreamHello
from pyipc.protocol.raw import RawConversation
from pyipc.protocol.traces import check_traceparent, is_traced, untraced, usable_traceparent
from tests.protocol.helpers import FF, code, conversation, introduced, one_of_each

SPAN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE = SPAN[3:35]

# --- the notation -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [SPAN, SPAN[:-2] + "ff", "cc" + SPAN[2:], f"cc{SPAN[2:]}-what-comes-later", f"01{SPAN[2:]}-", "fe" + SPAN[2:]],
)
def test_a_span(text: str) -> None:
    assert usable_traceparent(text) == text
    check_traceparent(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        SPAN.upper(),
        SPAN[:-1],
        SPAN + "0",
        SPAN + "-later",  # which version 00 does not have
        SPAN + "\n",
        " " + SPAN,
        "ff" + SPAN[2:],
        f"cc{SPAN[2:]}0",
        f"cc{SPAN[2:]}.later",
        f"cc{SPAN[2:]}-a b",
        f"cc{SPAN[2:]}-{'x' * 300}",
        SPAN.replace(TRACE, "0" * 32),
        SPAN.replace("b7ad6b7169203331", "0" * 16),
        SPAN.replace("-", "_"),
        SPAN.replace("a", "g"),
        SPAN.replace("0af", "\u0660af"),
        None,
        1,
        [SPAN],
        SPAN.encode(),
    ],
)
def test_no_span(text: Any) -> None:
    assert usable_traceparent(text) == ""
    with pytest.raises(LocalProtocolError, match="is no traceparent; W3C Trace Context writes one in lower case, like"):
        check_traceparent(text)


def test_the_error_has_an_end() -> None:
    with pytest.raises(LocalProtocolError) as refused:
        check_traceparent("x" * 10_000)
    assert len(str(refused.value)) < 300


# --- requests ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", Role)
def test_a_request_says_where_it_comes_from(role: Role) -> None:
    mine, peer = one_of_each(role)
    if role is Role.SERVER:
        mine.receive_data(peer.request("e", None)[1])
    for call in (1, 2, 3):  # a name that is new, and one that is known
        number, frame = mine.request("e", [call], SPAN)
        assert number == call
        assert frame == (
            b'{"type":"pyipc.request","data":{"call":%d,"event":"e","data":[%d],"traceparent":"%b"}}\f'
            % (call, call, SPAN.encode())
        )
        assert peer.receive_data(frame) == [Request(call, "e", [call], SPAN)]


def test_a_request_without_is_what_it_was() -> None:
    mine, _ = introduced()
    assert mine.request("e", None)[1] == b'{"type":"pyipc.request","data":{"call":1,"event":"e","data":null}}\f'
    assert codec.control_frame(Request(1, "e")) == b'{"type":"pyipc.request","data":{"call":1,"event":"e","data":null}}'


def test_a_request_goes_without_rather_than_not_at_all() -> None:
    limit = len(b'{"type":"pyipc.request","data":{"call":1,"event":"e","data":"%b"}}' % (b"x" * 1_000))
    mine, peer = introduced(server=conversation(max_frame_size=limit))
    assert peer.receive_data(mine.request("e", "x" * 1_000, SPAN)[1]) == [Request(1, "e", "x" * 1_000)]
    with pytest.raises(MessageTooLarge):
        mine.request("e", "x" * 1_001, SPAN)
    assert mine.request("e", "", SPAN)[0] == 2


@pytest.mark.parametrize("value", ["", "nonsense", "00-" + "0" * 52, "x" * 10_000, "\ud800"])
def test_nonsense_that_arrives_is_nobodys_fault(value: str) -> None:
    """It is text, as it has to be; that it means nothing is found out where it is used."""
    _, server = introduced()
    text = codec.encode_value(value, "")
    items = server.receive_data(b'{"type":"pyipc.request","data":{"call":1,"event":"e","traceparent":%b}}\f' % text)
    assert items == [Request(1, "e", None, value)]
    assert usable_traceparent(value) == ""


@pytest.mark.parametrize("value", ["null", "1", "[]", "{}", "true"])
def test_what_is_no_text_is_refused(value: str) -> None:
    for name in ("request", "event"):
        _, server = introduced()
        frame = '{"type":"pyipc.%s","data":{"call":1,"event":"e","traceparent":%s}}\f' % (name, value)  # noqa: UP031
        assert code(server.receive_data(frame.encode())) == "control"


def test_over_datagrams_a_request_says_it_and_an_event_does_not() -> None:
    server = DatagramConversation(Role.SERVER, Json(), Options(), max_size=1_000)
    client = DatagramConversation(Role.CLIENT, Json(), Options(), max_size=1_000)
    assert server.receive_data(client.request("e", 1, SPAN)[1]) == [Request(1, "e", 1, SPAN)]
    assert "topics" not in client.features


def test_bytes_as_they_are_say_nothing() -> None:
    side = RawConversation()
    assert side.traced_event("data", b"x", SPAN) == b"x"
    with pytest.raises(UnsupportedByTransport):
        side.request("e", None, SPAN)


# --- a peer of an older version, and one of a later ---------------------------------------------------------------


def test_whoever_does_not_know_the_field_ignores_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As our own reader does with what it does not know: by the slow path, of which the fast one makes nothing."""
    _, server = introduced()
    frame = b'{"type":"pyipc.request","data":{"call":1,"event":"e","data":2,"traceparent":"%b","later":[3]}}\f'
    assert codec.decode_call(frame[:-1]) is None
    assert server.receive_data(frame % SPAN.encode()) == [Request(1, "e", 2, SPAN)]


def test_a_peer_of_an_older_version_gets_a_plain_event() -> None:
    """One that has introduced itself, but does not know the frame, which it would ignore."""
    server = conversation(Role.SERVER)
    server.receive_data(codec.control_frame(StreamHello([1], features=["confirm"])) + FF)
    assert server.protocol == "pyipc/1"
    assert "topics" not in server.features


# --- events -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", Role)
def test_an_event_says_where_it_comes_from(role: Role) -> None:
    mine, peer = one_of_each(role)
    frame = mine.traced_event("tick", [1], SPAN)
    assert frame == (b'{"type":"pyipc.event","data":{"event":"tick","data":[1],"traceparent":"%b"}}\f' % SPAN.encode())
    assert peer.receive_data(frame) == [TracedEvent("tick", [1], SPAN)]


def test_an_event_goes_without_rather_than_not_at_all() -> None:
    limit = len(b'{"type":"e","data":"%b"}' % (b"x" * 1_000))
    mine, _ = introduced(server=conversation(max_frame_size=limit))
    assert mine.traced_event("e", "x" * 1_000, SPAN) == b'{"type":"e","data":"%b"}\f' % (b"x" * 1_000)
    with pytest.raises(MessageTooLarge):
        mine.traced_event("e", "x" * 1_001, SPAN)
    deepest: list[Any] = []
    for _ in range(62):
        deepest = [deepest]
    mine, _ = introduced()
    assert mine.traced_event("e", deepest, SPAN).startswith(b'{"type":"e"')
    with pytest.raises(UnencodableData):
        mine.traced_event("e", [deepest], SPAN)
    with pytest.raises(InvalidEventName):
        mine.traced_event("pyipc.e", None, SPAN)


@given(
    st.text(min_size=1, max_size=20).filter(lambda name: not name.startswith("pyipc.")),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=())),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=6,
    ),
)
def test_what_is_taken_back_is_the_plain_event(event: str, data: Any) -> None:
    mine, _ = introduced()
    traced = mine.traced_event(event, data, SPAN)
    assert is_traced(traced)
    plain = untraced(traced)
    assert not is_traced(plain)
    assert plain == mine.event(event, data)
    assert not is_traced(mine.request(event, data, SPAN)[1])


def test_the_vectors_have_it() -> None:
    names = {
        vector["frame"]
        for file in ("v1-control.json", "v1-parts.json")
        for vector in json.loads((Path(__file__).parent.parent / "vectors" / file).read_text("ascii"))["vectors"]
        if vector["canonical"] and vector["fields"].get("traceparent")
    }
    assert names == {"request", "event", "deliver", "stream", "publish", "published"}
