"""Requests and replies are read in one step and written by putting bytes together: the short cuts change nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pyipc.errors import LocalProtocolError, RemoteProtocolError
from pyipc.protocol import codec
from pyipc.protocol.conversation import Role
from pyipc.protocol.messages import Reply, Request
from tests.protocol.helpers import conversation, introduced

# --- reading ----------------------------------------------------------------------------------------------------

# JSON as it may stand on the wire, with all that a hostile peer might put in the place of what belongs there.
NUMBERS = st.sampled_from(
    "0 1 2 -1 -0 1.0 1e0 1e2 1E400 0.5 true null 9007199254740993 18446744073709551616 -9223372036854775809 "  # noqa: SIM905
    '"1" [1] {"call":1} 01 +1 NaN Infinity'.split()
) | st.integers(0, 400).map(lambda digits: "1" + "0" * digits)
TEXTS = st.sampled_from(
    [
        r'"e"',
        r'""',
        r'"\u0065"',
        r'"\ud83d"',
        r'"\ud83d\ude00"',
        r'"\udc00x"',
        r'"pyipc.x"',
        "1",
        "null",
        '["e"]',
        '"\n"',
        '"\\x41"',
        '"\x80"',
        "'e'",
    ]
)
VALUES = NUMBERS | TEXTS | st.sampled_from(["{}", '{"a":1,"a":2}', "[[]]", '{"\\ud800":1}', "[1,]", "", "nul"])
KEYS = st.sampled_from(
    [r'"call"', r'"event"', r'"data"', r'"c\u0061ll"', r'"type"', r'"more"', r'"\ud800"', "call", '"id"']
)


@st.composite
def objects(draw: st.DrawFn) -> str:
    """What stands in ``data``: mostly right, in any order, with keys that come twice or do not belong there."""
    pairs = [
        ('"call"', draw(NUMBERS)),
        ('"event"', draw(TEXTS)),
        ('"data"', draw(VALUES)),
        *draw(st.lists(st.tuples(KEYS, VALUES), max_size=2)),
    ]
    pairs = draw(st.permutations(pairs))[: draw(st.integers(0, len(pairs)))]
    space = draw(st.sampled_from(["", "", " ", "\t\r\n"]))
    return "{" + space + f",{space}".join(f"{key}{space}:{value}" for key, value in pairs) + "}"


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    kind = draw(st.sampled_from([r"pyipc.request", r"pyipc.reply", r"pyipc.r\u0065ply", "pyipc.cancel", "tick"]))
    data = draw(objects() | VALUES)
    rest = draw(
        st.sampled_from(["", "", "", ',"type":"pyipc.reply"', ',"type":1', ',"data":{}', ',"more":[1]', "}", ","])
    )
    head = draw(st.sampled_from(['{"type":', '{"type":', '{ "type":', '{"type" :', '{"data":{},"type":']))
    end = draw(st.sampled_from(["}", "}", "}", "} ", "", "}}"]))
    return f'{head}"{kind}","data":{data}{rest}{end}'.encode("utf-8", "surrogatepass")


def in_two_steps(frame: bytes) -> Any:
    """What the long way says: an event, a request, a reply; or the code of the error."""
    try:
        event = codec.decode(frame)
        data = {} if event.data is None else event.data
        if event.type == Request.type:
            return codec.convert_control(data, Request)
        return codec.convert_control(data, Reply) if event.type == Reply.type else event
    except RemoteProtocolError as error:
        return error.code


@given(frames())
@example(b'{"type":"pyipc.request","data":{"call":1,"event":"e","data":1}}')
@example(b'{"type":"pyipc.reply","data":{"call":1.0}}')
@example(b'{"type":"pyipc.reply","data":{"call":1},"data":{"call":2}}')
@example(b'{"type":"pyipc.reply","data":{"call":"x"},"data":{"call":2}}')
@example(b'{"type":"pyipc.request","type":"pyipc.reply","data":{"call":2,"event":"e"}}')
@example(b'{"type":"pyipc.reply","type":"pyipc.request","data":{"call":2,"event":"e"}}')
@example(b'{"type":"pyipc.reply","data":{"call":1,"call":2,"data":"a","data":"b"}}')
@example(b'{"type":"pyipc.reply","data":{"call":-0}}')
@example(b'{"type":"pyipc.reply","data":null}')
def test_one_step_says_what_two_say_or_nothing(frame: bytes) -> None:
    call = codec.decode_call(frame)
    if call is not None:
        expected = in_two_steps(frame)
        assert type(call) is type(expected)
        assert call == expected
        assert type(call.call) is int


@given(frames(), st.sampled_from(Role))
def test_a_conversation_hears_the_same_with_and_without_the_short_cut(frame: bytes, role: Role) -> None:
    def hear(whole: bool) -> list[str]:
        side = introduced()[0 if role is Role.CLIENT else 1]
        for _ in range(3):
            side.request("e", None)
        chunks = [frame + b"\f"] if whole else [b'{"type":"tick"}\f' + frame[:5], frame[5:] + b"\f"]
        items = [item for chunk in chunks for item in side.receive_data(chunk)]
        return [getattr(getattr(item, "error", None), "code", None) or repr(item) for item in items][
            0 if whole else 1 :
        ]

    assert hear(whole=True) == hear(whole=False)


# --- writing ----------------------------------------------------------------------------------------------------

ANY_TEXT = st.text(st.characters(exclude_categories=())) | st.sampled_from(
    ["\ud800", "a\udfff\n", "\ud83d\ude00", "\f"]
)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | ANY_TEXT
    | st.binary(max_size=20)
    | st.dates()
    | st.uuids()
    | st.decimals(allow_nan=False)
    | st.frozensets(st.integers(), max_size=3)
    | st.builds(object)  # has no JSON form
)
DATA = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(ANY_TEXT | st.integers() | st.none(), inner, max_size=3)
    ),
    max_leaves=8,
)


def whole(event: str, body: dict[str, Any]) -> bytes | None:
    """The frame as one object; ``None`` if it cannot be sent."""
    try:
        return codec.encode(event, body) + b"\f"
    except LocalProtocolError:
        return None


def same(written: bytes | None, expected: bytes | None) -> bool:
    """Bytes for bytes; where a lone surrogate sends the whole frame another way, it may write numbers differently."""
    if written is None or expected is None or b"\\ud" not in expected:
        return written == expected
    return repr(json.loads(written[:-1])) == repr(json.loads(expected[:-1]))


@given(st.text(min_size=1, max_size=40), DATA)
def test_a_request_put_together_is_the_request_as_one_object(event: str, data: Any) -> None:
    client = conversation(Role.CLIENT)
    for call in (1, 2):  # the second time the name is known
        try:
            number, written = client.request(event, data)
        except LocalProtocolError:
            number, written = call, None
        expected = whole("pyipc.request", {"call": number, "event": event, "data": data})
        if event.startswith("pyipc."):
            assert written is None
        else:
            assert same(written, expected)
        if written is None:
            break
        assert number == call


@given(st.integers(0, 2**53 - 1), DATA)
def test_a_reply_put_together_is_the_reply_as_one_object(call: int, data: Any) -> None:
    server = conversation(Role.SERVER)
    try:
        written = server.reply(call, data)
    except LocalProtocolError:
        written = None
    assert same(written, whole("pyipc.reply", {"call": call, "data": data}))


@given(st.text(min_size=1, max_size=40).filter(lambda name: not name.startswith("pyipc.")), DATA)
def test_an_event_put_together_is_the_event_as_one_object(event: str, data: Any) -> None:
    client = conversation(Role.CLIENT, unsafe_names=True)
    try:
        written = client.event(event, data)
    except LocalProtocolError:
        written = None
    try:
        expected = codec.encode(event, data) + b"\f"
    except LocalProtocolError:
        expected = None
    assert written == expected


def test_the_two_halves_of_a_pair_stay_two_escapes() -> None:
    """Where the name ends and the data begins, nothing may join."""
    client = conversation(Role.CLIENT)
    _, written = client.request("e", ["\ud83d", "\ude00"])
    assert written == b'{"type":"pyipc.request","data":{"call":1,"event":"e","data":["\\ud83d","\\ude00"]}}\f'


@pytest.mark.parametrize("name", ["\ud800", "a\udfff"])
def test_a_name_with_a_lone_surrogate(name: str) -> None:
    client = conversation(Role.CLIENT)
    try:
        _, written = client.request(name, 1e22)
    except LocalProtocolError:
        return
    assert json.loads(written[:-1])["data"] == {"call": 1, "event": name, "data": 1e22}
