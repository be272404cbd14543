"""The vectors in tests/vectors, which other languages test against too: we read and write them as they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pyipc.protocol.codec import Event, control_frame
from pyipc.protocol.conversation import Role
from pyipc.protocol.messages import (
    PROTOCOL_VERSIONS,
    Cancel,
    Failure,
    Goaway,
    Goodbye,
    Hello,
    Introduced,
    Ping,
    Reply,
    Request,
    Welcome,
)
from tests.protocol.helpers import FF, code, conversation, cut, receive, received

VECTORS = Path(__file__).parent.parent / "vectors"
FRAMES: dict[str, Any] = {
    kind.type.removeprefix("pyipc."): kind
    for kind in (Hello, Welcome, Request, Reply, Failure, Cancel, Ping, Goaway, Goodbye)
}
ROLES = {"client": [Role.CLIENT], "server": [Role.SERVER], "either": list(Role)}


def vectors(name: str) -> pytest.MarkDecorator:
    content = json.loads((VECTORS / name).read_text("ascii"))
    assert content["version"] == 1
    return pytest.mark.parametrize("vector", [pytest.param(vector, id=vector["name"]) for vector in content["vectors"]])


def receiver(role: Role, after: str | None) -> Any:
    """A conversation to which, or from which, this has gone before."""
    side = conversation(role)
    if after == "request":
        if role is Role.SERVER:  # which may not ask before it was asked
            side.receive_data(control_frame(Request(1, "e")) + FF)
        side.request("e", None)
    elif role is Role.CLIENT:
        side.open()
        if after == "welcome":
            side.receive_data(control_frame(Welcome(1)) + FF)
    elif after == "hello":
        side.receive_data(control_frame(Hello([1])) + FF)
    return side


def test_every_version_has_its_vectors_and_they_are_well_formed() -> None:
    for version in PROTOCOL_VERSIONS:
        assert {path.name for path in VECTORS.glob(f"v{version}-*.json")} == {
            f"v{version}-{part}.json" for part in ("events", "control", "parts", "records", "malformed", "datagrams")
        }
    for path in VECTORS.glob("*.json"):
        names = []
        for vector in json.loads(path.read_text("ascii"))["vectors"]:
            wire = bytes.fromhex(vector["hex"])
            assert wire.endswith(FF) or "datagrams" in path.name
            assert vector.get("text", wire.decode("utf-8", "replace")).encode() == wire or "text" not in vector
            names.append(vector["name"])
        assert len(names) == len(set(names))


def test_every_frame_has_a_canonical_vector() -> None:
    said = json.loads((VECTORS / "v1-control.json").read_text("ascii"))["vectors"]
    assert {vector["frame"] for vector in said if vector["canonical"]} == set(FRAMES)


@vectors("v1-events.json")
@pytest.mark.parametrize("role", Role)
def test_events(vector: dict[str, Any], role: Role) -> None:
    wire = bytes.fromhex(vector["hex"])
    event = vector["event"]
    for size in (1, 7, len(wire)):
        items = receive(conversation(role), cut(wire * 2, size))
        assert [repr(item) for item in items] == [repr(Event(event["type"], event["data"]))] * 2
    if vector["canonical"]:
        assert conversation(role).event(event["type"], event["data"]) == wire


@vectors("v1-control.json")
def test_control_frames(vector: dict[str, Any]) -> None:
    wire = bytes.fromhex(vector["hex"])
    fields = vector["fields"]
    kind: Any = FRAMES.get(vector["frame"])
    if vector["canonical"]:
        assert control_frame(kind(**fields)) + FF == wire
    receivers = [Role.SERVER] if vector["from"] == "client" else [Role.CLIENT]
    for role in list(Role) if vector["from"] == "either" else receivers:
        for size in (1, 7, len(wire)):
            # The hello that a welcome comes after is the client's own, which it has sent in any case.
            side = receiver(role, None if vector.get("after") == "hello" else vector.get("after"))
            items = receive(side, cut(wire, size))
            if kind is None or kind is Ping:
                assert items == []
            elif kind in {Hello, Welcome}:
                # What was a field of a later version when the vector was made has a meaning now.
                session = json.loads(wire[:-1])["data"].get("session", "")
                assert items == [Introduced("pyipc/1", fields["heartbeat"], fields["agent"], session=session)]
                assert (b'"type":"pyipc.welcome","data":{"version":1,' in side.data_to_send()) is (kind is Hello)
            else:
                assert items == [kind(**fields)]


@vectors("v1-malformed.json")
def test_malformed_frames(vector: dict[str, Any]) -> None:
    wire = bytes.fromhex(vector["hex"])
    for role in ROLES[vector["to"]]:
        for size in (1, 7, len(wire)):
            side = receiver(role, vector.get("after"))
            # A delimiter inside makes two frames; the first of them is the wrong one.
            items = receive(side, cut(wire + b'{"type":"after"}\f', size))
            assert len(items) == 1
            assert code(items) == vector["code"]


def test_the_limit_of_a_frame() -> None:
    """Too large for a file: 1,048,576 bytes of JSON text pass, its delimiter not counted, and one more does not."""
    head, tail = b'{"type":"message","data":"', b'"}'
    whole = head + b"a" * (1_048_576 - len(head + tail)) + tail
    (item,) = received(conversation(), whole + FF)
    assert isinstance(item, Event)
    assert code(conversation().receive_data(whole[:-2] + b"a" + tail + FF)) == "size"
    assert code(conversation().receive_data(b"a" * 1_048_577)) == "size"
