"""The frames that pyipc adds: introductions, calls, and what a peer may not say."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from pyipc.errors import (
    InvalidEventName,
    LocalProtocolError,
    MessageTooLarge,
    PeerLacksFeature,
    UnencodableData,
)
from pyipc.protocol.codec import Event, control_frame
from pyipc.protocol.conversation import Role, SessionTerms
from pyipc.protocol.messages import (
    Cancel,
    ControlFrame,
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
from tests.protocol.helpers import (
    FF,
    code,
    conversation,
    frame,
    introduced,
    one_of_each,
    received,
    told,
)

if TYPE_CHECKING:
    from pyipc.protocol.framed import JsonConversation

both_roles = pytest.mark.parametrize("role", Role)
HELLO = control_frame(Hello([1])) + FF
WELCOME = control_frame(Welcome(1)) + FF
PING = control_frame(Ping()) + FF


# --- hello and welcome --------------------------------------------------------------------------------------------


def test_hello_and_welcome() -> None:
    terms = SessionTerms("i", 120.0, lambda name: f"incarnation of {name}")
    client = conversation(Role.CLIENT, agent="a/1", max_frame_size=5_000, heartbeat_interval=3.0, session="s")
    server = conversation(Role.SERVER, agent="b/2", max_frame_size=6_000, heartbeat_interval=None, terms=terms)
    assert client.awaits_welcome
    assert server.open() == b""
    assert not server.awaits_welcome
    opening = client.open()
    assert opening == (
        b'{"type":"pyipc.hello","data":{"versions":[1],"features":["attachments","confirm","streams","topics"],'
        b'"max_frame_size":5000,"heartbeat":3.0,"agent":"a/1","max_attachments_size":4194304,"session":"s",'
        b'"session_window":65536}}\f'
    )
    assert server.receive_data(opening) == [
        Introduced("pyipc/1", 3.0, "a/1", session="s", incarnation="incarnation of s")
    ]
    answer = server.data_to_send()
    assert answer == (
        b'{"type":"pyipc.welcome","data":{"version":1,"features":["attachments","confirm","streams","topics"],'
        b'"max_frame_size":6000,"heartbeat":null,"agent":"b/2","max_attachments_size":4194304,"instance":"i",'
        b'"session_timeout":120.0,"incarnation":"incarnation of s","session_window":65536}}\f'
    )
    assert server.data_to_send() == b""  # it is said once
    assert client.receive_data(answer) == [
        Introduced("pyipc/1", None, "b/2", instance="i", session_timeout=120.0, incarnation="incarnation of s")
    ]
    assert client.features == server.features == {"attachments", "confirm", "streams", "topics"}
    assert client.protocol == server.protocol == "pyipc/1"
    assert not client.awaits_welcome


@both_roles
def test_without_hello_a_side_keeps_quiet(role: Role) -> None:
    side = conversation(role, hello=False)
    assert side.open() == b""
    assert not side.awaits_welcome
    assert side.receive_data(HELLO if role is Role.SERVER else PING) == []
    assert side.data_to_send() == b""
    assert side.protocol == "plain"
    assert side.receive_data(frame(b"1") + FF) == [Event("e", 1)]


@pytest.mark.parametrize(
    ("asked", "kept"),
    [(0, 0.01), (-5, 0.01), (1e-9, 0.01), (0.01, 0.01), (7, 7.0), (86_400, 86_400.0), (1e300, 86_400.0), (None, None)],
)
def test_the_peers_heartbeat_is_kept_within_reason(asked: float | None, kept: float | None) -> None:
    server = conversation()
    assert server.receive_data(control_frame(Hello([1], heartbeat=asked)) + FF) == [Introduced("pyipc/1", kept, "")]
    client = conversation(Role.CLIENT)
    assert client.receive_data(control_frame(Welcome(1, heartbeat=asked)) + FF) == [Introduced("pyipc/1", kept, "")]


def test_a_long_agent_is_cut() -> None:
    items = conversation().receive_data(control_frame(Hello([1], agent="a" * 10_000)) + FF)
    assert items == [Introduced("pyipc/1", None, "a" * 256)]


def test_a_common_version_is_chosen_whatever_else_is_offered() -> None:
    server = conversation()
    assert server.receive_data(control_frame(Hello([9, 1])) + FF) == [Introduced("pyipc/1", None, "")]
    assert b'"version":1,' in server.data_to_send()


@pytest.mark.parametrize(("versions", "offered"), [([], "none"), ([2, 3], "2, 3"), ([10**4000] * 50, "10000")])
def test_without_a_common_version(versions: list[int], offered: str) -> None:
    server = conversation(agent="secret")
    items = received(server, control_frame(Hello(versions)) + FF + frame(b"1") + FF)
    assert len(items) == 1
    assert code(items) == "version"
    answer = server.data_to_send()
    assert len(answer) < 500
    client = conversation(Role.CLIENT)
    (goodbye,) = client.receive_data(answer)
    assert isinstance(goodbye, Goodbye)
    assert goodbye.code == "version"
    assert offered in goodbye.message
    assert b"secret" not in answer
    assert server.protocol == "plain"


def test_a_welcome_with_a_version_that_was_not_offered() -> None:
    assert code(conversation(Role.CLIENT).receive_data(control_frame(Welcome(2)) + FF)) == "version"


def test_a_refusal() -> None:
    server = conversation(refusal=("full", "no room"))
    assert code(server.receive_data(HELLO + frame(b"1") + FF)) == "full"
    assert server.data_to_send() == b'{"type":"pyipc.goodbye","data":{"code":"full","message":"no room"}}\f'
    assert server.protocol == "plain"
    # A plain peer cannot be told: it is for the owner to close.
    server = conversation(refusal=("full", "no room"))
    assert server.receive_data(frame(b"1") + FF) == [Event("e", 1)]
    assert server.data_to_send() == b""


@pytest.mark.parametrize(
    "first",
    [
        frame(b"1") + FF,
        PING,
        control_frame(Request(1, "e")) + FF,
        control_frame(Cancel(1)) + FF,
        control_frame(Goodbye()) + FF,
        b'{"type":"pyipc.later"}\f',
        WELCOME,
    ],
)
def test_require_hello(first: bytes) -> None:
    server = conversation(require_hello=True)
    assert code(server.receive_data(first + HELLO)) == "hello"
    assert server.data_to_send() == b""
    server = conversation(require_hello=True)
    expected = [] if first == WELCOME else conversation().receive_data(first)
    items = server.receive_data(HELLO + first)
    assert items[0] == Introduced("pyipc/1", None, "")
    if first == WELCOME:
        assert code(items) == "control"
    else:
        assert items[1:] == expected


def test_require_hello_is_for_servers() -> None:
    assert conversation(Role.CLIENT, require_hello=True).receive_data(frame(b"1") + FF) == [Event("e", 1)]


def test_hello_twice() -> None:
    items = conversation().receive_data(HELLO + HELLO)
    assert items[0] == Introduced("pyipc/1", None, "")
    assert code(items) == "control"


def test_a_hello_that_cannot_be_read_is_answered() -> None:
    """Whoever writes a peer in another language sees what is wrong with its first words."""
    server = conversation()
    assert code(server.receive_data(frame(b'{"versions":["1"]}', b'"pyipc.hello"') + FF)) == "control"
    (answer,) = conversation(Role.CLIENT).receive_data(server.data_to_send())
    assert isinstance(answer, Goodbye)
    assert answer.code == "control"
    assert "$.versions[0]" in answer.message


@pytest.mark.parametrize("side", [conversation(Role.CLIENT), conversation(hello=False), introduced()[1]])
def test_a_hello_that_cannot_be_read_is_not_answered_by_others(side: JsonConversation) -> None:
    assert code(side.receive_data(frame(b"1", b'"pyipc.hello"') + FF)) == "control"
    assert side.data_to_send() == b""


def test_hello_to_a_client() -> None:
    assert code(conversation(Role.CLIENT).receive_data(HELLO)) == "control"


def test_a_welcome_that_nobody_asked_for() -> None:
    assert code(conversation(Role.SERVER).receive_data(WELCOME)) == "control"
    assert code(conversation(Role.CLIENT, hello=False).receive_data(WELCOME)) == "control"
    client, _ = introduced()
    assert code(client.receive_data(WELCOME)) == "control"


# --- calls --------------------------------------------------------------------------------------------------------


@both_roles
def test_a_request_and_its_answers(role: Role) -> None:
    asking, answering = one_of_each(role)
    number, sent = asking.request("sum", [1, 2])
    assert (number, sent) == (
        1,
        b'{"type":"pyipc.request","data":{"call":1,"event":"sum","data":[1,2]}}\f',
    )
    assert answering.receive_data(sent) == [Request(1, "sum", [1, 2])]
    assert asking.receive_data(answering.reply(1, 3)) == [Reply(1, 3)]
    number, sent = asking.request("sum", None)
    assert answering.receive_data(sent) == [Request(2, "sum", None)]
    assert asking.receive_data(answering.failure(number, "no-handler", "nobody", {"a": 1})) == [
        Failure(2, "no-handler", "nobody", {"a": 1})
    ]
    number, sent = asking.request("sum", None)
    assert answering.receive_data(sent + asking.cancel(number)) == [Request(3, "sum", None), Cancel(3)]


@both_roles
@pytest.mark.parametrize("call", [-1, 2**53, 10**400])
@pytest.mark.parametrize("kind", [Request, Reply, Failure, Cancel])
def test_numbers_of_calls_out_of_range(role: Role, kind: Any, call: int) -> None:
    side, _ = one_of_each(role)
    body = kind(call) if kind in {Reply, Cancel} else kind(call, "e")
    assert code(side.receive_data(control_frame(body) + FF)) == "control"


@both_roles
@pytest.mark.parametrize("call", [1, 2**53 - 1])
def test_numbers_of_calls_in_range(role: Role, call: int) -> None:
    side, _ = one_of_each(role)
    items = side.receive_data(control_frame(Request(call, "e")) + FF + control_frame(Cancel(call)) + FF)
    assert items == [Request(call, "e"), Cancel(call)]


@both_roles
@pytest.mark.parametrize("body", [Reply(2), Failure(2, "x"), Reply(0), Failure(0, "x")])
def test_an_answer_to_a_call_that_was_never_made(role: Role, body: ControlFrame) -> None:
    side, _ = one_of_each(role)
    side.request("e", 1)
    assert code(side.receive_data(control_frame(body) + FF)) == "control"


@both_roles
def test_an_answer_that_came_too_late_or_twice_is_for_the_owner(role: Role) -> None:
    side, _ = one_of_each(role)
    side.request("e", 1)
    assert side.receive_data((control_frame(Reply(1, 2)) + FF) * 2) == [Reply(1, 2)] * 2


@both_roles
def test_a_request_that_could_not_be_sent_uses_up_no_number(role: Role) -> None:
    side, peer = one_of_each(role)
    for wrong, error in (({"e": object()}, UnencodableData), ("a" * 2**20, MessageTooLarge)):
        with pytest.raises(error):
            side.request("e", wrong)
    with pytest.raises(InvalidEventName):
        side.request("pyipc.hello", 1)
    assert peer.receive_data(side.request("e", 1)[1]) == [Request(1, "e", 1)]


@both_roles
@pytest.mark.parametrize("answer", [object(), "a" * 2**20, [float("nan"), {None: 1}]])
def test_a_failure_can_always_be_told(role: Role, answer: object) -> None:
    side, peer = one_of_each(role)
    peer.request("e", None)
    with pytest.raises(LocalProtocolError):
        side.reply(1, answer)
    assert peer.receive_data(side.failure(1, "code", "words", answer)) == [Failure(1, "code", "words", None)]
    assert peer.receive_data(side.failure(1, "code", "w" * 2**20)) == [Failure(1, "code", "w" * 256, None)]


def test_data_of_answers_nested_too_deep() -> None:
    _, server = introduced()
    data: list[Any] = []
    for _ in range(61):
        data = [data]
    server.reply(1, data)  # 62 levels, the frame's object and its data's
    with pytest.raises(UnencodableData, match="the reply"):
        server.reply(1, [data])


@both_roles
def test_a_request_may_not_teach_us_a_reserved_name(role: Role) -> None:
    """Else frames of that name would be taken for a user's events from then on."""
    side, _ = one_of_each(role)
    assert code(side.receive_data(control_frame(Request(1, "pyipc.request")) + FF)) == "name"


@both_roles
def test_the_name_of_a_request_is_measured_too(role: Role) -> None:
    side, _ = one_of_each(role)
    request = control_frame(Request(1, "n" * 256)) + FF
    assert len(side.receive_data(request + request.replace(b'"call":1', b'"call":2'))) == 2
    assert code(side.receive_data(control_frame(Request(3, "n" * 257)) + FF)) == "name"


def test_who_can_be_asked() -> None:
    server = conversation()
    with pytest.raises(PeerLacksFeature) as caught:
        server.request("e", 1)
    assert caught.value.feature == "request"
    server.receive_data(frame(b"1") + FF)  # an event tells nothing
    with pytest.raises(PeerLacksFeature):
        server.request("e", 1)
    server.receive_data(control_frame(Request(1, "e")) + FF)  # a plain program that takes part in requests
    assert server.protocol == "plain"
    assert server.request("e", 1)[0] == 1
    # A client may always ask: a plain program that knows pyipc.request answers, welcome or not.
    assert conversation(Role.CLIENT, hello=False).request("e", 1)[0] == 1


# --- our own frames -----------------------------------------------------------------------------------------------


@both_roles
def test_a_plain_peer_gets_nothing_unasked(role: Role) -> None:
    side = conversation(role)
    side.receive_data(frame(b"1") + FF + control_frame(Request(1, "e")) + FF)
    assert side.ping() == side.goaway("x") == side.goodbye("x", "y") == side.data_to_send() == b""
    assert side.protocol == "plain"


@both_roles
def test_an_introduced_peer_is_told(role: Role) -> None:
    side, peer = one_of_each(role)
    assert peer.receive_data(side.ping()) == []
    assert peer.receive_data(side.goaway("later")) == [Goaway("later")]
    assert peer.receive_data(side.goodbye("closed", "bye")) == [Goodbye("closed", "bye")]


@both_roles
def test_what_a_peer_says_in_parting_is_one_line_with_an_end(role: Role) -> None:
    """It gets into logs, where it must not pass for a line of somebody else."""
    side, peer = one_of_each(role)
    forged = "bye\nCRITICAL \x1b[31mthe door is open " + "x" * 1_000
    goodbye, goaway = peer.receive_data(side.goodbye("a\rb", forged) + side.goaway(forged))
    assert isinstance(goodbye, Goodbye)
    assert goodbye.code == "a\ufffdb"
    assert goodbye.message == forged[:256].replace("\n", "\ufffd").replace("\x1b", "\ufffd")
    assert goaway == Goaway(goodbye.message)


@both_roles
@pytest.mark.parametrize("data", [None, 1, "x", [1], {"a": 1}])
def test_a_later_versions_frames_are_ignored(role: Role, data: object) -> None:
    for side in (conversation(role), one_of_each(role)[0]):
        stream = b'{"type":"pyipc.later","data":' + json.dumps(data).encode() + b"}\f" + frame(b"1") + FF
        assert side.receive_data(stream) == [Event("e", 1)]


@both_roles
def test_unknown_fields_are_ignored_and_missing_data_is_no_fields(role: Role) -> None:
    side, _ = one_of_each(role)
    stream = b'{"type":"pyipc.goaway"}\f{"type":"pyipc.goodbye","data":{"code":"x","later":[1]}}\f'
    assert side.receive_data(stream) == [Goaway(""), Goodbye("x", "")]
    assert side.receive_data(b'{"type":"pyipc.request","data":{"call":1,"event":"e","later":1}}\f') == [Request(1, "e")]


@both_roles
@pytest.mark.parametrize(
    "text",
    [
        b'{"type":"pyipc.request"}',
        b'{"type":"pyipc.request","data":[]}',
        b'{"type":"pyipc.request","data":{"call":"1","event":"e"}}',
        b'{"type":"pyipc.request","data":{"call":1.5,"event":"e"}}',
        b'{"type":"pyipc.request","data":{"call":true,"event":"e"}}',
        b'{"type":"pyipc.request","data":{"call":1,"event":null}}',
        b'{"type":"pyipc.request","data":{"call":1,"event":"e","\\ud800":1}}',
        b'{"type":"pyipc.reply","data":{}}',
        b'{"type":"pyipc.error","data":{"call":1}}',
        b'{"type":"pyipc.cancel","data":null}',
        b'{"type":"pyipc.ping","data":1}',
        b'{"type":"pyipc.goodbye","data":{"code":1}}',
    ],
)
def test_malformed_frames_of_our_own(role: Role, text: bytes) -> None:
    side, _ = one_of_each(role)
    side.request("e", 1)
    items = side.receive_data(frame(b"1") + FF + text + FF + frame(b"2") + FF)
    assert told(items) == [repr(Event("e", 1)), "control (fatal)"]


def test_no_frame_of_ours_has_what_node_ipc_takes_for_its_own() -> None:
    def all_that_a_side_says(side: JsonConversation) -> bytes:
        return b"".join(
            [
                side.open(),
                side.request("e", {"id": 1, "_maxListeners": 2})[1],
                side.reply(1, {"id": 1, "_maxListeners": 2}),
                side.failure(1, "id", "_maxListeners", {"id": 1}),
                side.cancel(1),
                side.ping(),
                side.goaway("id"),
                side.goodbye("id", "_maxListeners"),
            ]
        )

    client, server = introduced()
    fresh = conversation()
    fresh.receive_data(HELLO)
    frames = (all_that_a_side_says(client) + all_that_a_side_says(server) + fresh.data_to_send()).split(FF)[:-1]
    said = {}
    for text in frames:
        value = json.loads(text)
        assert list(value) == ["type", "data"]
        assert isinstance(value["data"], dict)
        assert not {"id", "_maxListeners"} & value["data"].keys()
        said[value["type"]] = True
    assert sorted(said) == sorted(
        f"pyipc.{name}"
        for name in ("hello", "welcome", "request", "reply", "error", "cancel", "ping", "goaway", "goodbye")
    )
