"""A conversation in datagrams: each stands for itself, and nothing in any of them ends it."""

from __future__ import annotations

import json
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from pyipc.errors import MessageTooLarge, PeerLacksFeature
from pyipc.options import Options
from pyipc.protocol.codec import Event, control_frame
from pyipc.protocol.conversation import Role
from pyipc.protocol.datagram import HELLO_SIZE, DatagramConversation
from pyipc.protocol.framing import Json
from pyipc.protocol.messages import (
    Cancel,
    Echo,
    Goaway,
    Goodbye,
    Hello,
    Introduced,
    Malformed,
    Reply,
    Request,
    Verified,
)
from pyipc.protocol.raw import RawConversation
from tests.protocol.helpers import FF
from tests.protocol.test_vectors import vectors

TOKEN = "00112233445566778899aabbccddeeff"
MAX_SIZE = 65_507


def conversation(role: Role = Role.SERVER, *, hello: bool = True, require_hello: bool = False, **options: Any) -> Any:
    return DatagramConversation(
        role,
        Json(),
        Options(**options),
        max_size=MAX_SIZE,
        token=TOKEN if role is Role.SERVER else "",
        hello=hello,
        require_hello=require_hello,
        agent="pyipc/0.1",
    )


def introduced() -> tuple[DatagramConversation, DatagramConversation]:
    client, server = conversation(Role.CLIENT), conversation()
    server.receive_data(client.open())
    client.receive_data(server.data_to_send())
    client.data_to_send()  # the echo, which is lost
    return client, server


def frame(event: str, data: Any) -> bytes:
    return json.dumps({"type": event, "data": data}, separators=(",", ":")).encode() + FF


def told(item: object) -> list[Any]:
    match item:
        case Event(type=event, data=data):
            return ["event", event, data]
        case Malformed(error, _):
            return ["malformed", error.code]
        case Introduced(protocol, None, agent):
            return ["introduced", protocol, agent]
        case Verified():
            return ["verified"]
    raise AssertionError(item)


@vectors("v1-datagrams.json")
def test_the_vectors(vector: dict[str, Any]) -> None:
    wire = bytes.fromhex(vector["hex"])
    for role in Role:
        if vector["to"] not in (role.value, "either"):
            continue
        client, server = introduced()
        side = client if role is Role.CLIENT else server
        if "after" not in vector:
            side = conversation(role)
            side.open()
        elif vector["after"] == "echo":
            side.receive_data(control_frame(Echo(TOKEN)) + FF)
        items = side.receive_data(wire)
        assert [told(item) for item in items] == vector["says"]
        assert not any(isinstance(item, Malformed) and item.fatal for item in items)
        assert side.has_data_to_send is bool(vector["answer"])
        assert side.data_to_send().decode() == vector["answer"]


def test_a_hello_is_larger_than_its_answer() -> None:
    client, server = conversation(Role.CLIENT), conversation()
    hello = client.open()
    assert len(hello) == HELLO_SIZE
    assert client.ping() == hello
    assert [type(item) for item in server.receive_data(hello)] == [Introduced]
    assert len(server.data_to_send()) < HELLO_SIZE / 2


def test_a_hello_is_no_larger_than_datagrams_are_to_be() -> None:
    assert len(conversation(Role.CLIENT, max_shared_datagram_size=300).open()) == 300
    assert len(conversation(Role.CLIENT, max_shared_datagram_size=10).open()) < 200


def test_no_more_shares_a_datagram_than_it_holds() -> None:
    assert conversation(max_shared_datagram_size=1_000_000).shared_size == MAX_SIZE
    assert conversation().shared_size == 1_200


def test_only_a_client_that_may_says_hello() -> None:
    for side in (conversation(), conversation(Role.CLIENT, hello=False)):
        assert (side.open(), side.ping()) == (b"", b"")


def test_a_datagram_full_of_hellos_has_one_answer() -> None:
    server = conversation()
    server.receive_data((control_frame(Hello([1])) + FF) * 500)
    assert len(server.data_to_send()) < HELLO_SIZE


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (b"", "json"),
        (b"1", "envelope"),
        (b"{}", "envelope"),
        (b"[" * 200, "depth"),
        (b'{"type":"pyipc.echo"}', "control"),
        (b'{"type":"pyipc.reply","data":{"call":1}}', "control"),
        (b'{"type":"%b"}' % (b"n" * 257), "name"),
    ],
)
def test_a_datagram_full_of_bad_frames_is_not_read_to_its_end(bad: bytes, code: str) -> None:
    """Each refusal costs far more than the bytes that caused it, so their number is what has to be bounded."""
    for role in Role:
        side = conversation(role)
        datagram = (bad + FF) * (MAX_SIZE // len(bad + FF))
        for wire in (datagram, datagram[:-1], frame("e", 1) + datagram + frame("e", 2)):
            refused = [told(item) for item in side.receive_data(wire) if isinstance(item, Malformed)]
            assert refused == [["malformed", code]] * 4
        three = (bad + FF) * 3
        assert [told(item) for item in side.receive_data(three + frame("e", 3))][3:] == [["event", "e", 3]]


@pytest.mark.parametrize("body", [Goodbye("closed", "x"), Goaway("x")])
def test_a_datagram_full_of_farewells_is_one(body: Goodbye | Goaway) -> None:
    side = conversation()
    for _ in range(2):
        assert side.receive_data((control_frame(body) + FF) * 500 + frame("e", 1)) == [body, Event("e", 1)]


def test_what_comes_before_the_hello_is_left_out_where_one_is_required() -> None:
    server = conversation(require_hello=True)
    assert [told(item) for item in server.receive_data(frame("e", 1) * 2)] == [["malformed", "hello"]] * 2
    assert [told(item)[0] for item in server.receive_data(conversation(Role.CLIENT).open())] == ["introduced"]
    assert [told(item) for item in server.receive_data(frame("e", 1))] == [["event", "e", 1]]


def test_a_hello_of_the_wrong_version_is_answered_and_ends_nothing() -> None:
    for side in (conversation(), conversation(require_hello=True)):
        for _ in range(2):
            assert [told(item) for item in side.receive_data(frame("pyipc.hello", {"versions": [99]}))] == [
                ["malformed", "version"]
            ]
            assert b'"code":"version"' in side.data_to_send()
        assert [told(item)[0] for item in side.receive_data(conversation(Role.CLIENT).open())] == ["introduced"]
        assert [told(item) for item in side.receive_data(frame("e", 1))] == [["event", "e", 1]]


def test_a_client_goes_on_after_a_welcome_of_the_wrong_version() -> None:
    client = conversation(Role.CLIENT)
    assert [told(item) for item in client.receive_data(frame("pyipc.welcome", {"version": 9}))] == [
        ["malformed", "version"]
    ]
    assert client.awaits_welcome
    assert [told(item) for item in client.receive_data(frame("e", 1))] == [["event", "e", 1]]


def test_who_does_not_speak_the_protocol_answers_no_hello_and_no_welcome() -> None:
    plain = conversation(Role.CLIENT, hello=False)
    (refused,) = plain.receive_data(frame("pyipc.welcome", {"version": 1, "token": TOKEN}))
    assert told(refused) == ["malformed", "control"]
    assert not plain.has_data_to_send
    silent = conversation(hello=False)
    assert silent.receive_data(conversation(Role.CLIENT).open()) == []
    assert not silent.has_data_to_send


def test_a_token_that_is_too_long_is_not_echoed() -> None:
    client = conversation(Role.CLIENT)
    client.receive_data(frame("pyipc.welcome", {"version": 1, "token": "x" * 1_000}))
    assert (client.protocol, client.has_data_to_send) == ("pyipc/1", False)


def test_calls_go_over_datagrams_in_any_order_and_twice() -> None:
    client, server = introduced()
    one, first = client.request("add", [1, 2])
    two, second = client.request("add", [3, 4])
    assert [item for wire in (second, first, first) for item in server.receive_data(wire)] == [
        Request(two, "add", [3, 4]),
        Request(one, "add", [1, 2]),
        Request(one, "add", [1, 2]),
    ]
    assert server.receive_data(client.cancel(one)) == [Cancel(one)]
    answer = server.reply(two, 7)
    assert client.receive_data(answer + answer) == [Reply(two, 7), Reply(two, 7)]
    assert server.receive_data(client.goodbye("closed", "")) == [Goodbye("closed", "")]


def test_only_a_client_that_said_hello_says_goodbye_unheard() -> None:
    assert conversation(Role.CLIENT).goodbye("closed", "") == control_frame(Goodbye()) + FF
    assert conversation(Role.CLIENT, hello=False).goodbye("closed", "") == b""
    assert conversation().goodbye("closed", "") == b""
    assert introduced()[1].goodbye("idle", "x") == control_frame(Goodbye("idle", "x")) + FF


def test_a_call_needs_a_peer_that_can_be_asked() -> None:
    with pytest.raises(PeerLacksFeature):
        conversation().request("add", None)


def test_what_fits_into_a_datagram_and_one_byte_more() -> None:
    for side in introduced():
        room = MAX_SIZE - len(frame("e", ""))
        assert len(side.event("e", "x" * room)) == MAX_SIZE
        with pytest.raises(MessageTooLarge, match="a datagram holds no more") as caught:
            side.event("e", "x" * (room + 1))
        assert (caught.value.size, caught.value.limit) == (MAX_SIZE + 1, MAX_SIZE)
        with pytest.raises(MessageTooLarge):
            side.reply(1, "x" * MAX_SIZE)
        assert len(side.failure(1, "handler-failed", "x" * MAX_SIZE)) < 1_000


def test_a_smaller_frame_size_holds_as_well() -> None:
    side = conversation(max_frame_size=1_000)
    with pytest.raises(MessageTooLarge, match="max_frame_size"):
        side.event("e", "x" * 1_000)
    large = frame("e", "x" * 1_000)
    for wire in (large, large * 2):
        assert {told(item)[1] for item in side.receive_data(wire)} == {"size"}


def test_each_hello_replaces_what_the_last_one_said() -> None:
    """Another program may have the address now; or somebody else may have sent the last one."""
    server = conversation()
    server.receive_data(frame("pyipc.hello", {"versions": [1], "max_frame_size": 50}))
    with pytest.raises(MessageTooLarge):
        server.event("e", "x" * 100)
    (refused,) = server.receive_data(frame("pyipc.hello", {"versions": [1], "max_frame_size": 0}))
    assert isinstance(refused, Malformed)
    for later in ({"versions": [1], "max_frame_size": 1_000}, {"versions": [1]}):
        assert server.receive_data(frame("pyipc.hello", later)) == []
        assert server.event("e", "x" * 100) == frame("e", "x" * 100)


def test_what_fits_into_a_raw_datagram_and_one_byte_more() -> None:
    side = RawConversation(10)
    assert side.event("data", b"x" * 10) == b"x" * 10
    with pytest.raises(MessageTooLarge, match="a datagram holds no more") as caught:
        side.event("data", b"x" * 11)
    assert (caught.value.size, caught.value.limit) == (11, 10)
    assert side.receive_data(b"") == [Event("data", b"")]
    assert len(RawConversation().event("data", b"x" * 100_000)) == 100_000


PIECES = st.sampled_from(
    [
        *(frame("e", 1), frame("e", [2, "x"]), FF, b"garbage", b"\xff\xfe", b'{"type":"e"', b'"data":1}'),
        *(frame("pyipc.reply", {"call": 1}), frame("pyipc.echo", {"token": TOKEN}), frame("pyipc.echo", 5)),
        *(frame("pyipc.hello", {"versions": [1]}), frame("pyipc.welcome", {"version": 1, "token": "t"})),
        frame("pyipc.request", {"call": 1, "event": "e"}),
    ]
)


@given(st.lists(st.one_of(st.binary(max_size=40), st.lists(PIECES, max_size=6).map(b"".join)), max_size=8))
def test_no_datagram_changes_how_the_next_is_read(datagrams: list[bytes]) -> None:
    for role in Role:
        client, server = introduced()
        side = client if role is Role.CLIENT else server
        side.request("e", None) if role is Role.CLIENT else None
        for datagram in datagrams:
            items = side.receive_data(datagram)
            assert not any(isinstance(item, Malformed) and item.fatal for item in items)
            assert side.partial_size == 0
            side.data_to_send()
        assert side.receive_data(frame("last", [1]) * 2) == [Event("last", [1])] * 2


def test_a_hello_agrees_on_no_parts_and_names_no_session() -> None:
    """It comes from nobody knows whom; and what is behind it in the datagram is not cut up otherwise than else."""
    told = {"versions": [1], "features": ["attachments", "topics"], "max_attachments_size": 5, "session": "5" * 32}
    side = conversation()
    items = side.receive_data(frame("pyipc.hello", told) + frame("a", 1) + frame("b", 2))
    assert [item for item in items if type(item) is Event] == [Event("a", 1), Event("b", 2)]
    (hello,) = [item for item in items if type(item) is Introduced]
    assert hello.session == ""
    assert not side.features
