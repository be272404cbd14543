"""What the tests of the pure half share: conversations, ways to cut a stream, and a second opinion on JSON."""

from __future__ import annotations

import contextlib
import json
import math
from typing import TYPE_CHECKING, Any

import pytest

from pyipc.options import Options
from pyipc.protocol import framed
from pyipc.protocol.conversation import Role
from pyipc.protocol.framed import JsonConversation
from pyipc.protocol.framing import Json
from pyipc.protocol.messages import Malformed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pyipc.protocol.conversation import Conversation, Inbound, SessionTerms

FF = b"\f"


def conversation(
    role: Role = Role.SERVER,
    *,
    delimiter: bytes = FF,
    hello: bool = True,
    require_hello: bool = False,
    refusal: tuple[str, str] | None = None,
    agent: str = "",
    session: str = "",
    terms: SessionTerms | None = None,
    **options: Any,
) -> JsonConversation:
    return JsonConversation(
        role,
        Json(delimiter),
        Options(**options),
        hello=hello,
        require_hello=require_hello,
        refusal=refusal,
        agent=agent,
        session=session,
        terms=terms,
    )


def introduced(
    client: JsonConversation | None = None, server: JsonConversation | None = None
) -> tuple[JsonConversation, JsonConversation]:
    """Client and server after hello and welcome."""
    client = client or conversation(Role.CLIENT)
    server = server or conversation(Role.SERVER)
    received(server, client.open())
    received(client, server.data_to_send())
    assert client.protocol == server.protocol == "pyipc/1"
    return client, server


def one_of_each(role: Role) -> tuple[JsonConversation, JsonConversation]:
    """The conversation of this role and its peer, introduced."""
    client, server = introduced()
    return (client, server) if role is Role.CLIENT else (server, client)


def receive(side: JsonConversation, chunks: Iterable[bytes]) -> list[Inbound]:
    return [item for chunk in chunks for item in received(side, chunk)]


def received(side: Conversation, chunk: bytes) -> list[Inbound]:
    """What bytes say, with all that has to be read in blocks."""
    items = side.receive_data(chunk)
    while side.is_busy:
        items += side.go_on()
    return items


@contextlib.contextmanager
def large_from(size: int) -> Iterator[None]:
    """Frames of more bytes than that are large, and read in blocks that are tiny."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(framed, "_LARGE", size)
        patch.setattr(framed, "BLOCK_SIZE", 7)
        yield


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def told(items: Iterable[Inbound]) -> list[str]:
    """What was reported, as text that can be compared: an error is its code, since its words may differ."""
    return [
        f"{item.error.code}{' (fatal)' if item.fatal else ''}" if isinstance(item, Malformed) else repr(item)
        for item in items
    ]


def other(role: Role) -> Role:
    return Role.SERVER if role is Role.CLIENT else Role.CLIENT


def code(items: list[Inbound], *, fatal: bool = True) -> str:
    """The code of the error that is the last thing reported."""
    error = items[-1]
    assert isinstance(error, Malformed)
    assert error.fatal is fatal
    return error.error.code


def nested(levels: int) -> bytes:
    """JSON of exactly this many levels."""
    return b"[" * levels + b"]" * levels


def frame(data: bytes, event: bytes = b'"e"') -> bytes:
    """An event whose data is this JSON, without its delimiter."""
    return b'{"type":' + event + b',"data":' + data + b"}"


def second_opinion(text: bytes, max_depth: int) -> tuple[str, Any] | None:
    """What one frame says, by the standard library and nothing of ours; ``None`` if it must be refused."""

    hidden = 0

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    def finite(number: str) -> float:
        if math.isinf(value := float(number)):
            raise ValueError(number)
        return value

    def depth(value: object) -> int:
        if isinstance(value, dict):
            return 1 + max(map(depth, value.values()), default=0)
        return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0

    # A pair keeps every value of an object in sight, also those that a later key of the same name hides.
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal hidden
        hidden = max([hidden, *(depth(value) for _, value in items)])
        return dict(items)

    try:
        value = json.loads(text.decode("utf-8"), parse_constant=refuse, parse_float=finite, object_pairs_hook=pairs)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        return None
    return None if max(depth(value), hidden + 1) > max_depth else (value["type"], value.get("data"))
