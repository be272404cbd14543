"""Input that was made from good input, by a mutator that knows the grammar: the same for the same seed.

``python -m tests.battery.fuzzing server 4711`` tries one input again, and shows it.
"""

from __future__ import annotations

import json
import random
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pyipc.errors import AddressError, InvalidEventName, RemoteProtocolError
from pyipc.options import Options
from pyipc.protocol import codec, nesting
from pyipc.protocol.addresses import parse_address
from pyipc.protocol.codec import Event
from pyipc.protocol.conversation import Role, SessionTerms
from pyipc.protocol.datagram import DatagramConversation
from pyipc.protocol.framed import JsonConversation
from pyipc.protocol.framing import Json
from pyipc.protocol.messages import Malformed
from pyipc.protocol.patterns import Pattern
from pyipc.protocol.traces import usable_traceparent
from tests.protocol.helpers import received, second_opinion, told

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pyipc.protocol.conversation import Conversation, Inbound

__all__ = ["TARGETS", "feed", "mutated", "once_failed", "try_input"]

VECTORS: Final = Path(__file__).resolve().parents[1] / "vectors"
CORPUS: Final = Path(__file__).parent / "corpus" / "failed.json"
CODES: Final = frozenset(
    ("size", "utf8", "depth", "json", "envelope", "name", "control", "version", "hello", "tls", "truncated")
)
#: Far limits are never reached by short inputs.
LIMITS: Final[dict[str, Any]] = {
    "max_depth": 6,
    "max_frame_size": 2_000,
    "max_event_name_size": 24,
    "max_attachments": 3,
    "max_attachments_size": 64,
}
TOKENS: Final = (
    *b'{ } [ ] , : " \\ - . e 0 1 true null NaN Infinity 1e400 -0 0.5 [] {} "" [[ ]] }{ "} [1,] {"a":1,"a":2}'.split(),
    *(b"\f", b"\f\f", b"\n", b"\r", b"\t", b" ", b"\0", b"\x01", b"\x15", b"\x16", b"\x1e", b"\x7f"),
    *(b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xef\xbb\xbf", b"\xc3\xa9", b"\xe2\x98"),
    *("😀".encode(), "\u2028".encode()),
    *(b"9" * 900 + b".5", b'["\\ud800",1e400]', b'["\\ud800",NaN]'),
    *(b"\\ud800", b"\\udc00", b"\\ud83d\\ude00", b"\\u0000", b"\\f", b"\\\\", b'\\"', b"\\x41"),
    *(b'"type"', b'"data"', b'"call"', b'"event"', b'"number"', b'"lowest"', b'"versions"', b'"version"', b'"pattern"'),
    *(b'"pyipc.', b'"pyipc.hello"', b'"pyipc.reply"', b'"pyipc.item"', b'"__proto__"', b'"*"', b'"a.**"', b'"a*"'),
    *(b"\x01" + size.to_bytes(8, "big") for size in (0, 1, 64, 65, 2**31 - 1, 2**32, 2**63, 2**64 - 1)),
)  # fmt: skip
NUMBERS: Final = (
    *(-1, 0, 1, 2, 3, 4, 63, 64, 65, 255, 256, 65_535, 65_536, 2**31 - 1, 2**31, 2**32, 2**53 - 1, 2**53, 2**63, 2**64),
    10**30,
    10**900,
)
_NUMBER = re.compile(rb"-?\d+")
_TEXT = re.compile(rb'"[^"\\\f]*"')


def _vectors(*names: str) -> list[bytes]:
    """The bytes of published vectors that are short."""
    found = []
    for name in names:
        vectors = json.loads((VECTORS / f"v1-{name}.json").read_text("utf-8"))["vectors"]
        found += [data for each in vectors if len(data := bytes.fromhex(each["hex"])) <= 300]
    return found


# What is refused as it stands ends a conversation at once, so there is less of it.
FRAMES: Final = [*2 * _vectors("events", "control", "parts", "records"), *_vectors("malformed")]
DATAGRAMS: Final = [*_vectors("datagrams"), *_vectors("events", "control")]
HELLO: Final = (
    b'{"type":"pyipc.hello","data":{"versions":[1],"features":["attachments","confirm","streams","topics"],'
    b'"max_attachments_size":64,"session":"s"}}\f'
)
WELCOME: Final = HELLO.replace(b'hello","data":{"versions":[1]', b'welcome","data":{"version":1').replace(
    b',"session":"s"', b',"instance":"i","incarnation":"c","session_timeout":9'
)
ADDRESSES: Final = (
    *(b"name", b"unix:/tmp/a", b"unix:@a", b"tcp://127.0.0.1:80", b"tls://[::1]:0", b"udp://a.b:1", b"pipe:a", b"fd:3"),
    *(b"systemd:a", b"memory:a", b"node-ipc:a/b", b"amqp://u:p@h:1/v"),
    *(b"a.b.c", b"a.*.c", b"**", b"a.**", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
)


# --- the mutator ------------------------------------------------------------------------------------------------


def mutated(seed: int, corpus: Sequence[bytes], first: bytes = b"") -> bytes:
    """A few good pieces in a row, and then a few things wrong with them.

    Args:
        seed: Says which.
        corpus: The good pieces.
        first: What most begin with.
    """
    chance = random.Random(seed)
    pieces = [chance.choice(corpus) for _ in range(chance.choice((1, 1, 1, 2, 3, 5)))]
    if first and chance.random() < 0.7:
        pieces.insert(0, first)
    if chance.random() < 0.2:
        pieces.insert(chance.randrange(len(pieces) + 1), pieces[chance.randrange(len(pieces))])
    data = b"".join(pieces)
    for _ in range(chance.choice((0, 1, 1, 2, 3, 6))):
        data = chance.choice(_CHANGES)(chance, data)
    return data[:4_000]


def _place(chance: random.Random, data: bytes) -> int:
    return chance.randrange(len(data) + 1)


def _flip(chance: random.Random, data: bytes) -> bytes:
    if not data:
        return data
    place = chance.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << chance.randrange(8)]) + data[place + 1 :]


def _insert(chance: random.Random, data: bytes) -> bytes:
    place = _place(chance, data)
    return data[:place] + chance.choice(TOKENS) + data[place:]


def _overwrite(chance: random.Random, data: bytes) -> bytes:
    place, token = _place(chance, data), chance.choice(TOKENS)
    return data[:place] + token + data[place + len(token) :]


def _cut(chance: random.Random, data: bytes) -> bytes:
    return data[: _place(chance, data)]


def _leave_out(chance: random.Random, data: bytes) -> bytes:
    place = _place(chance, data)
    return data[:place] + data[place + chance.choice((1, 1, 2, 5, 30)) :]


def _copy(chance: random.Random, data: bytes) -> bytes:
    start, place = _place(chance, data), _place(chance, data)
    return data[:place] + data[start : start + chance.choice((1, 3, 10, 100))] + data[place:]


def _move_delimiter(chance: random.Random, data: bytes) -> bytes:
    """As many frames as before, with other borders."""
    head, delimiter, tail = data.partition(b"\f")
    place = _place(chance, tail)
    return head + tail[:place] + delimiter + tail[place:]


def _change_number(chance: random.Random, data: bytes) -> bytes:
    return _replace(chance, data, _NUMBER, b"%d" % chance.choice(NUMBERS))


def _change_text(chance: random.Random, data: bytes) -> bytes:
    size = chance.choice((0, 1, 24, 25, 300))
    return _replace(chance, data, _TEXT, chance.choice((*TOKENS, b'"%b"' % (b"x" * size))))


def _nest(chance: random.Random, data: bytes) -> bytes:
    levels = chance.choice((1, 3, 4, 5, 6, 7, 200))
    start, end = chance.choice(((b"[", b"]"), (b'{"a":', b"}")))
    return _replace(chance, data, chance.choice((_NUMBER, _TEXT)), start * levels + b"1" + end * levels)


def _replace(chance: random.Random, data: bytes, kind: re.Pattern[bytes], other: bytes) -> bytes:
    """Put something else in the place of one piece of a kind."""
    found = list(kind.finditer(data))
    if not found:
        return data
    one = chance.choice(found)
    return data[: one.start()] + other + data[one.end() :]


_CHANGES: Final = (
    _flip,
    _insert,
    _overwrite,
    _cut,
    _leave_out,
    _copy,
    _move_delimiter,
    _change_number,
    _change_text,
    _nest,
)


# --- the targets ------------------------------------------------------------------------------------------------


def feed(side: Conversation, chunks: Iterable[bytes]) -> list[Inbound]:
    """All that a conversation says of what arrives."""
    return [item for chunk in chunks for item in received(side, chunk)]


def _server(seed: int) -> JsonConversation:
    options = Options(**LIMITS, malformed="skip" if seed % 7 == 0 else "close")
    terms = SessionTerms("instance", 9.0, "incarnation of {}".format)
    return JsonConversation(Role.SERVER, Json(), options, require_hello=seed % 5 == 0, terms=terms)


def _client(seed: int) -> JsonConversation:
    made = JsonConversation(Role.CLIENT, Json(), Options(**LIMITS), hello=seed % 5 != 0, session="s")
    made.open()
    for name in ("a", "b", "c"):
        made.request(name, None)
    return made


def _datagrams(seed: int) -> DatagramConversation:
    role = Role.SERVER if seed % 2 else Role.CLIENT
    made = DatagramConversation(
        role, Json(), Options(**LIMITS), max_size=65_507, token="t" * 32, require_hello=seed % 5 == 0
    )
    made.open()
    return made


def _converse(make: Callable[[int], JsonConversation], seed: int, data: bytes) -> None:
    """Only what is documented comes of it, and for a tenth of the inputs the same however they are cut."""
    side = make(seed)
    items = feed(side, [data])
    _check(side, items, data)
    if seed % 10 == 0:
        said, answers = told(items), side.data_to_send()
        place = seed // 10 % (len(data) + 1)
        for chunks in ([data[:place], data[place:]], [data[start : start + 1] for start in range(len(data))]):
            other = make(seed)
            assert told(feed(other, chunks)) == said, f"cut into {len(chunks)} it says something else"
            assert other.data_to_send() == answers
            assert other.protocol == side.protocol


def _check(side: JsonConversation, items: Sequence[Inbound], data: bytes) -> None:
    assert len(items) <= data.count(b"\f") + 1, "more was reported than there are frames"
    for item in items:
        if isinstance(item, Malformed):
            assert type(item.error) is RemoteProtocolError
            assert item.error.code in CODES, item.error.code
            assert not item.fatal or item is items[-1], "something was reported after the end"
            assert len(str(item.error)) <= 503, "the peer is quoted at length"
        else:
            assert not (isinstance(item, Event) and item.type.startswith("pyipc.")), "one of our frames as an event"
    if items and isinstance(items[-1], Malformed) and items[-1].fatal:
        assert side.receive_data(b'{"type":"a"}\f') == []
    side.goodbye("json", "that was no good")


def _converse_in_datagrams(seed: int, data: bytes) -> None:
    """Nothing ends it, and a good datagram is heard after any."""
    side = _datagrams(seed)
    items = received(side, data)
    assert len(items) <= data.count(b"\f") + 1
    for item in items:
        if isinstance(item, Malformed):
            assert not item.fatal
            assert type(item.error) is RemoteProtocolError
            assert item.error.code in CODES
    assert len(side.data_to_send()) <= 512, "a datagram would have an answer larger than a hello"
    assert len(side.receive_data(b'{"type":"a"}\f')) == 1


def _decode(seed: int, data: bytes) -> None:
    """The reader says of a frame what the standard library says of it."""
    frame = data.partition(b"\f")[0]
    depth = LIMITS["max_depth"]
    expected = second_opinion(frame, depth)
    try:
        event = None if nesting.too_deep(frame, depth) else codec.decode(frame)
    except RemoteProtocolError as error:
        assert error.code in {"json", "utf8", "envelope", "depth"}
        event = None
    assert repr(event) == repr(None if expected is None else Event(*expected))


def _parse(seed: int, data: bytes) -> None:
    """Texts that people and peers write: an address, a pattern, a trace."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        assert parse_address(str(parse_address(text))) == parse_address(text), "an address that is not what it says"
    except AddressError as error:
        assert len(str(error)) < 5_000
    try:
        pattern = Pattern(text)
    except InvalidEventName:
        pass
    else:
        assert not pattern.is_literal or pattern.matches(text)
        pattern.matches("a.b.c")
    assert usable_traceparent(text) in (text, "")


#: What is tried: how an input is made of a seed, and what must hold of it.
TARGETS: Final[dict[str, tuple[Callable[[int], bytes], Callable[[int, bytes], None]]]] = {
    "server": (lambda seed: mutated(seed, FRAMES, HELLO), lambda seed, data: _converse(_server, seed, data)),
    "client": (lambda seed: mutated(seed, FRAMES, WELCOME), lambda seed, data: _converse(_client, seed, data)),
    "datagrams": (lambda seed: mutated(seed, DATAGRAMS), _converse_in_datagrams),
    "decoding": (lambda seed: mutated(seed, FRAMES), _decode),
    "texts": (lambda seed: mutated(seed, ADDRESSES), _parse),
}


def try_input(target: str, seed: int, data: bytes | None = None) -> None:
    """Try one input.

    Args:
        target: One of `TARGETS`.
        seed: Says which.
        data: The input itself, if it is not made of the seed.

    Raises:
        AssertionError: It came out otherwise than it should; says how to try it again.
    """
    make, check = TARGETS[target]
    if data is None:
        data = make(seed)
    try:
        check(seed, data)
    except Exception as error:
        raise AssertionError(f"python -m tests.battery.fuzzing {target} {seed}: {data!r}") from error


def once_failed() -> list[dict[str, Any]]:
    """Inputs that came out wrong at some time, with what was wrong then."""
    entries: list[dict[str, Any]] = json.loads(CORPUS.read_text("utf-8"))
    return entries


if __name__ == "__main__":
    print(TARGETS[sys.argv[1]][0](int(sys.argv[2])))
    try_input(sys.argv[1], int(sys.argv[2]))
