"""Addresses: what each scheme takes, what it refuses and in which words."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from pathlib import PurePosixPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pyipc.errors import AddressError
from pyipc.protocol.addresses import Address, parse_address


def outcome(text: str) -> Address | AddressError:
    try:
        return parse_address(text)
    except AddressError as error:
        return error


GOOD = [
    # Bare names.
    ("world", Address("local", "world")),
    ("a", Address("local", "a")),
    ("_my.App-2", Address("local", "_my.App-2")),
    ("9lives", Address("local", "9lives")),
    ("x" * 64, Address("local", "x" * 64)),
    ("tcp", Address("local", "tcp")),
    # Paths.
    ("unix:/run/app.sock", Address("unix", "/run/app.sock")),
    ("unix:/run/my app/ünï:@?#.sock", Address("unix", "/run/my app/ünï:@?#.sock")),
    ("unix:/run/\udcff.sock", Address("unix", "/run/\udcff.sock")),
    ("unix:///run/app.sock", Address("unix", "/run/app.sock")),
    ("unix:@name", Address("unix", "@name")),
    ("unix:@/tmp/dbus-x", Address("unix", "@/tmp/dbus-x")),
    # Windows named pipes: 256 characters with the prefix of nine.
    ("pipe:name", Address("pipe", "name")),
    ("pipe:My App.v2:x", Address("pipe", "My App.v2:x")),
    ("pipe:" + "x" * 247, Address("pipe", "x" * 247)),
    # Networks.
    ("tcp://127.0.0.1:8000", Address("tcp", host="127.0.0.1", port=8000)),
    ("tcp://localhost:0", Address("tcp", host="localhost", port=0)),
    ("tcp://h:00080", Address("tcp", host="h", port=80)),
    ("tcp://[::1]:65535", Address("tcp", host="::1", port=65535)),
    ("tcp://[0:0:0::1]:1", Address("tcp", host="::1", port=1)),
    ("tcp://[FE80::A%Eth0.1]:1", Address("tcp", host="fe80::a%Eth0.1", port=1)),
    ("tls://Example.COM:443", Address("tls", host="example.com", port=443)),
    ("tls://example.com.:443", Address("tls", host="example.com.", port=443)),
    ("tls://my_service-1.x2:443", Address("tls", host="my_service-1.x2", port=443)),
    ("tls://xn--bcher-kva.example:443", Address("tls", host="xn--bcher-kva.example", port=443)),
    (f"tcp://{'a' * 63}.b:1", Address("tcp", host=f"{'a' * 63}.b", port=1)),
    ("udp://0.0.0.0:9", Address("udp", host="0.0.0.0", port=9)),
    # RabbitMQ: the rest is kept as it is.
    ("amqp://rabbit/world", Address("amqp", "rabbit/world", "rabbit", 5672)),
    ("amqps://Rabbit/world", Address("amqps", "Rabbit/world", "rabbit", 5671)),
    ("amqp://h:1/%2f/world", Address("amqp", "h:1/%2f/world", "h", 1)),
    ("amqp://h//world", Address("amqp", "h//world", "h", 5672)),
    (
        "amqp://me:p@ss:w0rd@[::1]:5/vhost/world?heartbeat=5/6",
        Address("amqp", "me:p@ss:w0rd@[::1]:5/vhost/world?heartbeat=5/6", "::1", 5),
    ),
    ("amqp://[::1]/world", Address("amqp", "[::1]/world", "::1", 5672)),
    # In this process, and node-ipc.
    ("memory:name", Address("memory", "name")),
    ("memory:a b/c@d:1", Address("memory", "a b/c@d:1")),
    ("node-ipc:world", Address("node-ipc", "world")),
    ("node-ipc:.my app", Address("node-ipc", ".my app")),
    # Inherited sockets.
    ("fd:3", Address("fd", "3")),
    ("fd:0", Address("fd", "0")),
    ("fd:007", Address("fd", "7")),
    ("fd:2147483647", Address("fd", "2147483647")),
    ("systemd:", Address("systemd")),
    ("systemd:http.socket", Address("systemd", "http.socket")),
    # Somebody else's.
    ("vsock:2:1024", Address("vsock", "2:1024")),
    ("my-scheme+2://Any Thing/at@all", Address("my-scheme+2", "//Any Thing/at@all")),
    ("zz:", Address("zz")),
]


@pytest.mark.parametrize(("text", "address"), GOOD)
def test_accepts(text: str, address: Address) -> None:
    parsed = parse_address(text)
    assert parsed == address
    assert dataclasses.astuple(parsed) == dataclasses.astuple(address)
    assert parse_address(str(parsed)) == parsed
    assert parse_address(parsed) is parsed


# The text and what the sentence must say about the remedy.
BAD: list[tuple[object, str]] = [
    # Not text, or nothing.
    ("", "give the server a name"),
    (None, "not of type NoneType"),
    (b"world", "not of type bytes"),
    (3, "not of type int"),
    (PurePosixPath("/run/x"), "'unix:/run/app.sock'"),
    # Bare names.
    ("x" * 65, "at most 64 characters and this has 65"),
    (".hidden", "begin it with a letter"),
    ("-option", "begin it with a letter"),
    ("/run/app.sock", "write 'unix:/run/app.sock'"),
    ("./app.sock", "write 'unix:/path'"),
    ("a/b", "write 'unix:/path'"),
    (r"\\.\pipe\name", "write 'pipe:name'"),
    ("two words", "only the letters"),
    ("wörld", "only the letters"),
    ("٣", "only the letters"),
    ("a@b", "only the letters"),
    ("a,b", "only the letters"),
    # What cannot be seen.
    (" world", "leave that out"),
    ("world ", "leave that out"),
    ("world\u00a0", "leave that out"),
    ("world\n", "control character"),
    ("wor\0ld", "control character"),
    ("unix:/run/a\0b", "control character"),
    ("unix:@a\0b", "control character"),
    ("tcp://a\r\nb:1", "control character"),
    ("memory:\x9b31m", "control character"),
    ("memory:a\u2028b", "control character"),
    ("memory:\ud800", "lone surrogate"),
    ("memory:\udcff", "lone surrogate"),
    ("unix:/\ud800", "lone surrogate"),
    # No scheme.
    ("C:\\x", "Windows path"),
    ("c:/x", "Windows path"),
    ("C:", "Windows path"),
    ("x:y", "Windows path"),
    (":", "not a scheme"),
    ("://x", "not a scheme"),
    ("3com:x", "not a scheme"),
    ("a_b:x", "not a scheme"),
    ("Vsock:x", "not a scheme"),
    ("127.0.0.1:80", "'tcp://host:port'"),
    ("[::1]:80", "'tcp://host:port'"),
    ("TCP://h:1", "write 'tcp:'"),
    ("Unix:/x", "write 'unix:'"),
    ("local:world", "the bare name alone"),
    ("localhost:80", "'tcp://localhost:'"),
    # Paths.
    ("unix:", "relative"),
    ("unix:app.sock", "'unix:/run/app.sock'"),
    ("unix:./app.sock", "relative"),
    ("unix:~/app.sock", "relative"),
    ("unix:C:\\x", "relative"),
    ("unix://run/app.sock", "write 'unix:/run/app.sock'"),
    ("unix:/", "names a directory"),
    ("unix:/run/", "names a directory"),
    ("unix:///", "names a directory"),
    ("unix:@", "no name"),
    # Pipes.
    ("pipe:", "write 'pipe:name'"),
    ("pipe:a\\b", "no slash or backslash"),
    ("pipe:a/b", "no slash or backslash"),
    ("pipe:\\\\.\\pipe\\name", "no slash or backslash"),
    ("pipe:..", "end with a dot"),
    ("pipe:name.", "end with a dot"),
    ("pipe:" + "x" * 248, "at most 247 characters"),
    ("pipe:" + "\U0001f600" * 124, "at most 247 characters"),
    ("pipe:name ", "leave that out"),
    # Networks.
    ("tcp:h:1", "write 'tcp://host:port'"),
    ("tcp:", "write 'tcp://host:port'"),
    ("tcp:/h:1", "two slashes are missing"),
    ("tcp://", "the host is missing"),
    ("tcp://:80", "'0.0.0.0' or '[::]'"),
    ("tcp://*:80", "'0.0.0.0' or '[::]'"),
    ("tcp://host", "the port is missing"),
    ("tcp://[::1]", "the port is missing"),
    ("tcp://host:", "digits 0 to 9"),
    ("tcp://[::1]:", "digits 0 to 9"),
    ("tcp://host:-1", "from 0 to 65535"),
    ("tcp://host:+1", "from 0 to 65535"),
    ("tcp://host:1_0", "from 0 to 65535"),
    ("tcp://host:0x1", "from 0 to 65535"),
    ("tcp://host: 1", "from 0 to 65535"),
    ("tcp://host:65536", "from 0 to 65535"),
    ("tcp://host:" + "9" * 10_000, "from 0 to 65535"),
    ("tcp://host:٨٠", "digits 0 to 9"),
    ("tcp://host:http", "digits 0 to 9"),
    ("tcp://host:80/", "nothing may follow the port"),
    ("tcp://host:80/path", "nothing may follow the port"),
    ("tcp://host:80?x=1", "nothing may follow the port"),
    ("tcp://host:80#x", "nothing may follow the port"),
    ("tls://me@host:80", "no user name or password"),
    ("tcp://::1:80", "in brackets"),
    ("tcp://[::1", "never closed"),
    ("tcp://[::1]80", "only a port may follow"),
    ("tcp://[]:80", "not an IPv6 address"),
    ("tcp://[::g]:80", "not an IPv6 address"),
    ("tcp://[127.0.0.1]:80", "not an IPv6 address"),
    ("tcp://[fe80::1%]:80", "not an IPv6 address"),
    ("tcp://[fe80::1%a b]:80", "not an IPv6 address"),
    ("tcp://256.0.0.1:80", "not an IPv4 address"),
    ("tcp://127.1:80", "not an IPv4 address"),
    ("tcp://127.0.0.01:80", "not an IPv4 address"),
    ("tcp://127.0.0.1.:80", "not an IPv4 address"),
    ("tcp://2130706433:80", "not an IPv4 address"),
    ("tcp://0x7f000001:80", "not an IPv4 address"),
    ("tcp://0x7f.0x1:80", "not an IPv4 address"),
    ("tcp://bücher.example:80", "'xn--' form"),
    ("tcp://１２７.0.0.1:80", "'xn--' form"),
    ("tcp://a b:80", "not a host name"),
    ("tcp://-a:80", "not a host name"),
    ("tcp://a-:80", "not a host name"),
    ("tcp://a..b:80", "not a host name"),
    ("tcp://.:80", "not a host name"),
    ("tcp://a%41:80", "not a host name"),
    (f"tcp://{'a' * 64}:80", "not a host name"),
    (f"tcp://{'a.' * 127}b:80", "not a host name"),
    # RabbitMQ.
    ("amqp:world", "two slashes are missing"),
    ("amqp:///world", "the host is missing"),
    ("amqp://u:p@/world", "the host is missing"),
    ("amqp://h", "name of the service is missing"),
    ("amqp://h/", "name of the service is missing"),
    ("amqp://h/vhost/", "name of the service is missing"),
    ("amqp://h/vhost/?x", "name of the service is missing"),
    ("amqp://h/a/b/c", "'%2F'"),
    ("amqp://h/a b", "'%20'"),
    ("amqp://h/w%20x", "name of the service, which comes last"),
    ("amqp://h/.w", "name of the service, which comes last"),
    ("amqp://h:x/w", "the port is not a number"),
    ("amqp://h:/w", "the port is not a number"),
    # Names.
    ("memory:", "write 'memory:name'"),
    ("memory://name", "no slashes after 'memory:'"),
    ("memory: name", "a space follows"),
    ("node-ipc:", "write 'node-ipc:name'"),
    ("node-ipc:../../etc/x", "write 'unix:/path'"),
    ("node-ipc:a\\b", "write 'unix:/path'"),
    ("node-ipc:/tmp/app.world", "write 'unix:/path'"),
    # Inherited sockets.
    ("fd:", "'fd:3'"),
    ("fd:-1", "'fd:3'"),
    ("fd:+3", "'fd:3'"),
    ("fd:three", "'fd:3'"),
    ("fd:٣", "'fd:3'"),
    ("fd:2147483648", "'fd:3'"),
    ("fd:" + "9" * 10_000, "'fd:3'"),
    ("systemd:a:b", "'systemd:' alone"),
    ("systemd:a b", "'systemd:' alone"),
    ("systemd:ä", "'systemd:' alone"),
    ("systemd:" + "x" * 256, "'systemd:' alone"),
    # Put together by hand.
    (Address("tcp", host="h", port=65536), "the port is not a number"),
    (Address("tcp", name="x", host="h", port=1), "make it with parse_address()"),
    (Address("tcp", host="H", port=1), "make it with parse_address()"),
    (Address("local", "tcp://h:1"), "make it with parse_address()"),
    (Address("local", "a/b"), "write 'unix:/path'"),
    (Address("local", None), "make it with parse_address()"),  # type: ignore[arg-type]
    (Address("amqp", "h/w", "other", 5672), "make it with parse_address()"),
    (Address("memory", "x", port=1), "make it with parse_address()"),
]


@pytest.mark.parametrize(("text", "remedy"), BAD, ids=lambda value: ascii(value)[:40])
def test_refuses_with_the_remedy(text: object, remedy: str) -> None:
    with pytest.raises(AddressError) as caught:
        parse_address(text)  # type: ignore[arg-type]
    message = str(caught.value)
    assert remedy in message
    assert len(message) < 500
    assert message.isprintable()
    if isinstance(text, str) and ("@" not in text or text.startswith("unix:")):
        assert message.startswith(repr(text)[:100])


def test_an_address_error_is_a_value_error() -> None:
    with pytest.raises(ValueError):
        parse_address("a b")


def test_equal_places_are_equal_addresses() -> None:
    assert parse_address("tls://Example.com:1") == parse_address("tls://example.COM:01")
    assert len({parse_address("tcp://[::1]:1"), parse_address("tcp://[0:0::0:1]:1")}) == 1
    assert parse_address("tcp://h:1") != parse_address("udp://h:1")


def test_an_address_is_a_value() -> None:
    address = parse_address("tcp://h:1")
    with pytest.raises(dataclasses.FrozenInstanceError):
        address.port = 2  # type: ignore[misc]
    assert str(dataclasses.replace(address, port=2)) == "tcp://h:2"
    assert pickle.loads(pickle.dumps(address)) == copy.deepcopy(address) == address
    assert not hasattr(address, "__dict__")


@pytest.mark.parametrize(
    "text",
    [
        "amqp://me:s3cret@h/w",
        "amqp://me:s3cret@more@h/w",
        "amqp://me:s3cret@h/w/x/y/z",
        "amqp://me:s3cret/slash@h/w",
        "amqp:me:s3cret@h/w",
        "AMQP://me:s3cret@h/w",
        "tcp://me:s3cret@h:1",
        "http://me:s3cret@h",
        "me:s3cret@h",
    ],
)
def test_no_password_in_what_people_read(text: str) -> None:
    address = outcome(text)
    if isinstance(address, AddressError):
        assert "s3cret" not in str(address)
        assert "***@h" in str(address)
    else:
        assert "s3cret" in str(address)
        assert "s3cret" not in repr(address)
        assert repr(address) == f"<Address {address.redacted!r}>"
        assert address.redacted.partition(":")[2] in {"//***@h/w", "//***@h", "***@h"}


def test_nothing_is_redacted_without_need() -> None:
    for text in ("world", "unix:@name@2", "memory:a@b", "tcp://h:1", "amqp://h/w", "unix:/run/a@b"):
        assert parse_address(text).redacted == text


LOOPBACK = ["127.0.0.1", "127.255.255.254", "localhost", "LocalHost", "[::1]", "[::ffff:127.0.0.1]"]
BEYOND = [
    *("0.0.0.0", "[::]", "10.0.0.1", "192.168.1.1", "169.254.1.1", "128.0.0.1", "255.255.255.255"),
    *("[fe80::1%lo]", "[::2]", "[::ffff:10.0.0.1]", "[::127.0.0.1]"),
    *("example.com", "localhost.example.com", "localhost.", "localhost6", "127.0.0.1.nip.io"),
]


@pytest.mark.parametrize("host", LOOPBACK)
def test_loopback_stays_on_this_host(host: str) -> None:
    for scheme in ("tcp", "tls", "udp"):
        address = parse_address(f"{scheme}://{host}:1")
        assert not address.leaves_host
        assert address.is_local


@pytest.mark.parametrize("host", BEYOND)
def test_all_else_leaves_this_host(host: str) -> None:
    for scheme in ("tcp", "udp"):
        assert parse_address(f"{scheme}://{host}:1").leaves_host
    for text in (f"tcp://{host}:1", f"tls://{host}:1", f"amqps://{host}/w"):
        assert not parse_address(text).is_local


def test_plain_traffic_alone_leaves_the_host() -> None:
    for text in ("tls://example.com:1", "amqps://example.com/w", "http://example.com"):
        assert not parse_address(text).leaves_host


def test_which_schemes_are_local() -> None:
    for text in ("world", "unix:/x", "unix:@x", "pipe:x", "memory:x", "node-ipc:x", "amqp://localhost/w"):
        assert parse_address(text).is_local
        assert not parse_address(text).leaves_host
    # An inherited socket may be a network socket; of a foreign scheme nothing is known.
    for text in ("fd:3", "systemd:", "vsock:2"):
        assert not parse_address(text).is_local
        assert not parse_address(text).leaves_host


def test_an_address_made_by_hand_without_a_host_counts_as_leaving() -> None:
    assert Address("tcp", port=1).leaves_host


SCHEMES = ["", "unix:", "pipe:", "tcp://", "tls://", "udp://", "amqp://", "amqps://", "memory:", "node-ipc:", "fd:"]
PIECES = [*"/\\@:.-_[]%?#*~ ", "a", "9", "٣", "\0", "\udcff", "\ud800", "::1", "127.0.0.1", "localhost", ":80", "/w"]
ALMOST = st.builds(
    "{}{}".format,
    st.sampled_from([*SCHEMES, "systemd:", "x-y:", "local:", "TCP://", "c:"]),
    st.lists(st.sampled_from(PIECES) | st.characters(), max_size=8).map("".join),
)


@given(st.text() | ALMOST)
@example("unix:////")
@example("tcp://[" + ":" * 10_000)
@example("tcp://" + "a." * 10_000)
@example("unix:" + "/" * 10_000)
def test_any_text_is_an_address_or_an_address_error(text: str) -> None:
    address = outcome(text)
    if isinstance(address, AddressError):
        assert str(address).isprintable()
    else:
        assert isinstance(address, Address)
        assert parse_address(str(address)) == address
        assert parse_address(address) is address


@given(st.ip_addresses(), st.integers(0, 65535), st.sampled_from(["tcp", "tls", "udp"]))
def test_any_ip_address_and_port(ip: object, port: int, scheme: str) -> None:
    host = f"[{ip}]" if ":" in str(ip) else str(ip)
    address = parse_address(f"{scheme}://{host}:{port}")
    assert (address.scheme, address.host, address.port) == (scheme, str(ip), port)
    assert parse_address(str(address)) == address


@given(
    st.none() | st.booleans() | st.binary() | st.integers() | st.lists(st.text()) | st.tuples(st.text(), st.integers())
)
def test_no_other_value_is_an_address(value: object) -> None:
    with pytest.raises(AddressError):
        parse_address(value)  # type: ignore[arg-type]
