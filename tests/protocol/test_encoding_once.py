"""Bytes that are encoded once for many peers are checked for each of them."""

from __future__ import annotations

import pytest

from pyipc.errors import InvalidEventName, MessageTooLarge, UnencodableData
from pyipc.options import Options
from pyipc.protocol.conversation import Role
from pyipc.protocol.framed import JsonConversation
from pyipc.protocol.framing import Json


def side(role: Role = Role.SERVER, **options: int) -> JsonConversation:
    return JsonConversation(role, Json(), Options.of(options))  # type: ignore[arg-type]


def nested(levels: int) -> object:
    data: object = 1
    for _ in range(levels):
        data = [data]
    return data


def test_what_no_peer_can_read_is_not_encoded() -> None:
    assert side().encode("e", nested(63)).endswith(b"\f")
    with pytest.raises(UnencodableData, match="max_depth"):
        side().encode("e", nested(64))


def test_the_bytes_are_checked_against_each_peer() -> None:
    peer = side(max_frame_size=200)
    frame = peer.encode("e", "x" * 100)
    peer.check("e", frame)
    peer.check("e", frame)
    with pytest.raises(InvalidEventName):
        peer.check("toString", frame)
    with pytest.raises(MessageTooLarge) as caught:
        peer.check("e", peer.encode("e", "x" * 200))
    assert caught.value.limit == 200


def test_more_names_of_requests_than_are_remembered() -> None:
    asking = side(Role.CLIENT)
    calls = [asking.request(f"name-{number}", None)[0] for number in range(2_100)]
    assert calls == list(range(1, 2_101))
    assert asking.request("name-0", None)[0] == 2_101
