"""The frames of the optional parts: what they look like, who may send them, and what they must not say."""

from __future__ import annotations

import json
import typing
from pathlib import Path
from typing import Any

import pytest

from pyipc.errors import (
    InvalidEventName,
    MessageTooLarge,
    PeerLacksFeature,
    UnencodableData,
    UnsupportedByTransport,
)
from pyipc.options import Options
from pyipc.protocol.codec import control_frame
from pyipc.protocol.conversation import Role
from pyipc.protocol.datagram import DatagramConversation
from pyipc.protocol.features import (
    FEATURES,
    Credit,
    Deliver,
    EndOfStream,
    Item,
    OpenStream,
    OptionalPart,
    Outcome,
    Publish,
    Published,
    ReceivedItem,
    Subscribe,
    TracedEvent,
    Unpublished,
    Unsubscribe,
)
from pyipc.protocol.framing import Json
from pyipc.protocol.messages import Introduced, StreamHello, StreamWelcome
from pyipc.protocol.raw import RawConversation
from tests.protocol.helpers import FF, code, conversation, cut, introduced, one_of_each, other, receive

CONTENT = json.loads((Path(__file__).parent.parent / "vectors" / "v1-parts.json").read_text("ascii"))
FRAMES: dict[str, Any] = {kind.type.removeprefix("pyipc."): kind for kind in typing.get_args(OptionalPart)}
#: The highest number that every program reads.
MOST = 2**53 - 1


def sides(sender: str) -> list[Role]:
    return {"client": [Role.CLIENT], "server": [Role.SERVER], "either": list(Role)}[sender]


def reported(body: Any, wire: bytes) -> Any:
    """What the peer's conversation makes of a frame."""
    return ReceivedItem(body.call, body.data, len(wire) - 1) if type(body) is Item else body


def pair(sender: Role) -> tuple[Any, Any]:
    """A side that sends, and its peer, which has made three calls."""
    mine, peer = one_of_each(sender)
    for _ in range(3):
        peer.next_call()
    return mine, peer


@pytest.mark.parametrize("vector", [pytest.param(vector, id=vector["name"]) for vector in CONTENT["vectors"]])
def test_vectors(vector: dict[str, Any]) -> None:
    wire, body = bytes.fromhex(vector["hex"]), FRAMES[vector["frame"]](**vector["fields"])
    assert vector["text"].encode() == wire
    for role in sides(vector["from"]):
        mine, peer = pair(role)
        if vector["canonical"]:
            assert mine.say(body) == wire
            assert not isinstance(body, Item) or mine.item(body.call, body.data) == wire
        for size in (1, 7, len(wire)):
            assert receive(peer, cut(wire * 2, size)) == [reported(body, wire)] * 2


def test_every_frame_has_a_canonical_vector() -> None:
    assert {vector["frame"] for vector in CONTENT["vectors"] if vector["canonical"]} == set(FRAMES)


@pytest.mark.parametrize(
    "body", [Subscribe(1, "a"), Unsubscribe(1), Publish("a"), Published("a"), Unpublished("a", "b")]
)
def test_topics_have_a_side(body: Any) -> None:
    wrong = Role.CLIENT if isinstance(body, Published | Unpublished) else Role.SERVER
    mine, peer = pair(wrong)
    assert code(peer.receive_data(mine.say(body))) == "control"
    mine, peer = pair(other(wrong))
    assert peer.receive_data(mine.say(body)) == [body]


@pytest.mark.parametrize(
    "body",
    [
        Deliver(-1, "e"),
        Deliver(MOST + 1, "e"),
        Deliver(3, "e", lowest=4),
        Deliver(3, "e", lowest=-1),
        Outcome(-1),
        OpenStream(-1, "e"),
        OpenStream(1, "e", items=-1),
        OpenStream(1, "e", size=-1),
        OpenStream(1, "e", size=MOST + 1),
        Item(0),
        Item(4),
        EndOfStream(4),
        Credit(-1),
        Credit(1, items=-1),
        Subscribe(-1, "a"),
        Unsubscribe(-1),
        Published("a", call=-1),
        Published("a", call=MOST + 1),
    ],
    ids=repr,
)
def test_numbers_that_cannot_be_meant(body: Any) -> None:
    mine, peer = pair(Role.SERVER if isinstance(body, Published) else Role.CLIENT)
    assert code(peer.receive_data(mine.say(body))) == "control"


@pytest.mark.parametrize(
    "body",
    [Deliver(MOST, "e", lowest=MOST), Outcome(0), OpenStream(0, "e", items=MOST), Item(3), EndOfStream(1)],
    ids=repr,
)
def test_numbers_at_the_edge(body: Any) -> None:
    mine, peer = pair(Role.CLIENT)
    assert peer.receive_data(mine.say(body)) == [reported(body, mine.say(body))]


@pytest.mark.parametrize("name", ["pyipc.x", "x" * 257])
@pytest.mark.parametrize(
    "kind", [TracedEvent, Publish, lambda name: Deliver(1, name), lambda name: OpenStream(1, name)]
)
def test_names_that_nothing_may_have(kind: Any, name: str) -> None:
    mine, peer = pair(Role.CLIENT)
    with pytest.raises(InvalidEventName):
        mine.say(kind(name))
    assert code(peer.receive_data(control_frame(kind(name)) + FF)) == "name"


def test_what_cannot_be_said() -> None:
    mine, _ = introduced(server=conversation(max_frame_size=1_000))
    with pytest.raises(MessageTooLarge):
        mine.say(Publish("a", "x" * 1_000))
    with pytest.raises(UnencodableData, match="'a'"):
        mine.say(Publish("a", object()))
    deep: list[Any] = []
    for _ in range(70):
        deep = [deep]
    with pytest.raises(UnencodableData, match="deep"):
        mine.say(Publish("a", deep))
    assert mine.say(Outcome(1)) == b'{"type":"pyipc.outcome","data":{"number":1}}\f'


def test_a_part_needs_both_sides() -> None:
    client = conversation(Role.CLIENT)
    for feature in FEATURES:
        with pytest.raises(PeerLacksFeature, match="has not introduced itself") as refused:
            client.check_feature(feature)
        assert refused.value.feature == feature
    client.open()
    client.receive_data(control_frame(StreamWelcome(1, ["topics", "later"])) + FF)
    assert client.features == {"topics"}
    client.check_feature("topics")
    with pytest.raises(PeerLacksFeature, match="older version"):
        client.check_feature("confirm")


def test_a_plain_peer_may_take_part() -> None:
    """A node-ipc program subscribes with an event, and gets what it asked for."""
    server = conversation(Role.SERVER)
    assert server.receive_data(b'{"type":"pyipc.subscribe","data":{"call":1,"pattern":"a.*"}}\f') == [
        Subscribe(1, "a.*")
    ]
    assert server.protocol == "plain"
    assert server.request("e", None)[0] == 1  # and may be asked, like whoever sends a request


def test_datagrams_have_no_parts() -> None:
    side = DatagramConversation(Role.SERVER, Json(), Options(), max_size=1_000)
    assert side.receive_data(b'{"type":"pyipc.subscribe","data":{"call":1,"pattern":"a.*"}}\f') == []
    assert side.receive_data(b'{"type":"pyipc.deliver","data":"nonsense"}\f') == []
    item = b'{"type":"pyipc.item","data":{"call":1,"data":1}}\f'
    assert side.receive_data(item) == side.receive_data(item * 2) == []
    with pytest.raises(UnsupportedByTransport, match="another transport"):
        side.check_feature("confirm")


def test_bytes_as_they_are_have_no_parts() -> None:
    side = RawConversation()
    with pytest.raises(UnsupportedByTransport, match="framing=Json"):
        side.check_feature("streams")
    with pytest.raises(UnsupportedByTransport):
        side.next_call()
    with pytest.raises(UnsupportedByTransport):
        side.say(Publish("a"))


def test_names_of_sessions_have_an_end() -> None:
    hello = StreamHello([1], session="s" * 257)
    assert conversation(Role.SERVER).receive_data(control_frame(hello) + FF) == [Introduced("pyipc/1", None, "")]


@pytest.mark.parametrize(("told", "meant"), [(None, 0.0), (-1.0, 0.0), (5, 5.0), (1e9, 86_400.0)])
def test_the_life_of_a_session_is_taken_with_reason(told: float | None, meant: float) -> None:
    client = conversation(Role.CLIENT)
    client.open()
    (item,) = client.receive_data(control_frame(StreamWelcome(1, session_timeout=told)) + FF)
    assert isinstance(item, Introduced)
    assert item.session_timeout == meant


# --- items, of which there are many -----------------------------------------------------------------------------

ITEM = b'{"type":"pyipc.item","data":{"call":2,"data":%b}}'
STRANGE_ITEMS = {
    "white space": b' {"type": "pyipc.item", "data": {"call": 2, "data": [1]}} ',
    "another order": b'{"data":{"data":[1],"call":2},"type":"pyipc.item"}',
    "keys of a later version": b'{"type":"pyipc.item","data":{"call":2,"data":[1],"size":"?"},"more":1}',
    "large": b'{"type":"pyipc.item","data":{"call":2,"data":[1]%b}}' % (b" " * 100_000),
}


@pytest.mark.parametrize("frame", STRANGE_ITEMS.values(), ids=STRANGE_ITEMS)
def test_an_item_is_as_large_as_its_frame_however_it_is_written(frame: bytes) -> None:
    item = ReceivedItem(2, [1], len(frame))
    for wire in (frame + FF, ITEM % b"[1]" + FF + frame + FF):
        for size in (len(wire), 7, len(frame) + 1):
            _, peer = pair(Role.CLIENT)
            items = receive(peer, cut(wire, size))
            assert items[-1] == item
            assert len(items) == wire.count(FF)


def test_items_among_events_have_their_own_sizes() -> None:
    mine, peer = pair(Role.CLIENT)
    for first, last in ((b"", mine.event("e", 1)), (mine.event("e", 1), b"")):
        wire = first + b"".join(ITEM % (b'"%b"' % (b"x" * count)) + FF for count in range(3)) + last
        items = [item for item in peer.receive_data(wire) if isinstance(item, ReceivedItem)]
        assert [item.size for item in items] == [49, 50, 51]
        assert [item.data for item in items] == ["", "x", "xx"]


def test_an_item_that_cannot_be_meant_comes_after_others() -> None:
    _, peer = pair(Role.CLIENT)
    *items, last = peer.receive_data(ITEM % b"1" + FF + ITEM.replace(b'"call":2', b'"call":4') % b"2" + FF)
    assert items == [ReceivedItem(2, 1, 48)]
    assert code([last]) == "control"


def test_items_that_cannot_be_sent() -> None:
    mine, _ = introduced(server=conversation(max_frame_size=1_000))
    with pytest.raises(MessageTooLarge):
        mine.item(1, "x" * 1_000)
    with pytest.raises(UnencodableData, match="the item"):
        mine.item(1, object())
    assert mine.item(1, "\ud800").endswith(b'"data":"\\ud800"}}\f')


def test_items_are_for_streams_alone() -> None:
    side = DatagramConversation(Role.SERVER, Json(), Options(), max_size=1_000)
    assert side.receive_data(ITEM % b"1" + FF) == []
    with pytest.raises(UnsupportedByTransport):
        RawConversation().item(1, None)


def test_items_of_some_size_and_depth() -> None:
    _, peer = pair(Role.CLIENT)
    fit = ITEM % (b'"%b"' % (b"x" * 1_000)) + FF
    assert peer.receive_data(fit * 3) == [ReceivedItem(2, "x" * 1_000, len(fit) - 1)] * 3
    deep = ITEM % (b"[" * 100 + b"]" * 100) + FF
    *items, last = peer.receive_data(fit + deep + fit)
    assert items == [ReceivedItem(2, "x" * 1_000, len(fit) - 1)]
    assert code([last]) == "depth"
