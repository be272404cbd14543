"""Names of topics, and data that is encoded once for many frames."""

from __future__ import annotations

from typing import Any

import pytest

from pyipc.errors import InvalidEventName, UnencodableData
from pyipc.protocol import codec
from pyipc.protocol.features import Published
from pyipc.protocol.names import check_topic
from pyipc.protocol.parcels import pack, with_frame


@pytest.mark.parametrize("topic", ["a", "orders.new", "", "..", "\u00e4" * 128, "\U0001f600"])
def test_topics(topic: str) -> None:
    if topic:
        check_topic(topic, 256)
    else:
        with pytest.raises(InvalidEventName):
            check_topic(topic, 256)


@pytest.mark.parametrize(
    ("topic", "why"),
    [
        ("orders.*", r"has a '\*'"),
        ("**", r"has a '\*'"),
        ("a*b", r"has a '\*'"),
        ("a\ud800", "half of a character"),
        ("\udfff", "half of a character"),
        ("pyipc.x", "reserved"),
        ("x" * 257, "max_event_name_size"),
        (7, "must be text"),
    ],
)
def test_what_is_no_topic(topic: Any, why: str) -> None:
    with pytest.raises(InvalidEventName, match=why) as refused:
        check_topic(topic, 256)
    assert refused.value.event == topic


@pytest.mark.parametrize(
    ("value", "text", "again"),
    [
        ({"id": [1, None]}, b'{"id":[1,null]}', {"id": [1, None]}),
        ((1, {2}), b"[1,[2]]", [1, [2]]),
        ("\ud800", b'"\\ud800"', "\ud800"),
        (float("nan"), b"null", None),
    ],
)
def test_data_that_is_encoded_once(value: Any, text: bytes, again: Any) -> None:
    ready = codec.ready_json(value, "t")
    for call in (None, 3):
        tail = b"" if call is None else b',"call":3'
        expected = b'{"type":"pyipc.published","data":{"topic":"t","data":%b%b}}' % (text, tail)
        assert codec.control_frame(Published("t", ready, call)) == expected
    assert codec.value_of(ready) == again


def test_nothing_stays_nothing() -> None:
    assert codec.ready_json(None, "t") is None
    assert codec.value_of(None) is None
    assert codec.control_frame(Published("t")) == b'{"type":"pyipc.published","data":{"topic":"t"}}'


def test_what_has_no_form_is_refused_when_it_is_encoded() -> None:
    with pytest.raises(UnencodableData, match="'t'"):
        codec.ready_json(object(), "t")


@pytest.mark.parametrize(
    ("kind", "is_control"), [("publish", False), ("published", False), ("event", False), ("item", True)]
)
@pytest.mark.parametrize("size", [1, 100_000])
def test_what_is_published_with_attachments_is_a_users_event(kind: str, is_control: bool, size: int) -> None:
    frame = b'{"type":"pyipc.%b","data":{}}\f' % kind.encode()
    parcel = pack(frame, [b"x" * size])
    assert parcel.is_control is is_control
    assert with_frame(parcel, frame).is_control is is_control
