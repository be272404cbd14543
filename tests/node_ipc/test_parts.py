"""Arguments, encodings, places, what is logged: all that needs no connection."""

from __future__ import annotations

import math
import re
import sys
from typing import Any

import pytest

import pyipc
from pyipc.node_ipc import IPC, Config
from pyipc.node_ipc.arguments import Where, read_arguments
from pyipc.node_ipc.encoding import to_bytes
from pyipc.node_ipc.places import default_path, local_endpoint, network_endpoint, udp_host
from pyipc.node_ipc.showing import shown


def callback() -> None: ...


# --- arguments --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        ((), Where()),
        ((callback,), Where(callback=callback)),
        ((8000,), Where(port=8000)),
        ((8000, callback), Where(port=8000, callback=callback)),
        (("::1",), Where(text="::1")),
        (("::1", callback), Where(text="::1", callback=callback)),
        (("::1", 8000, callback), Where(text="::1", port=8000, callback=callback)),
        (("UDP4",), Where(udp="udp4")),
        (("udp6", callback), Where(udp="udp6", callback=callback)),
        ((8000, "udp4"), Where(port=8000, udp="udp4")),
        (("::1", "udp6", callback), Where(text="::1", udp="udp6", callback=callback)),
        (("::1", 0, "udp6", callback), Where("::1", 0, "udp6", callback)),
        ((None, False, callback), Where(callback=callback)),
    ],
)
def test_arguments_are_told_apart(arguments: Any, where: Where) -> None:
    assert read_arguments("serve_net", "host", arguments, "port", "udp") == where


@pytest.mark.parametrize(
    "arguments",
    [("a", "b"), (1, "a"), (callback, 1), ("a", callback, callback), (1.5,), (True,), ("a", "udp4", 1)],
)
def test_arguments_out_of_order(arguments: Any) -> None:
    with pytest.raises(TypeError, match=r"serve_net\(\) takes a host, a port, 'udp4' or 'udp6', a callback"):
        read_arguments("serve_net", "host", arguments, "port", "udp")


def test_a_port_is_a_number() -> None:
    """node-ipc takes the text for a kind of UDP that it does not know, and forgets it."""
    with pytest.raises(TypeError, match="as a number, not as the text '8000'"):
        IPC().serve_net("127.0.0.1", "8000")


def test_there_is_no_client_over_udp() -> None:
    with pytest.raises(TypeError, match=r"connect_to_net\(\) takes a host, a port, a callback"):
        IPC().connect_to_net("world", "127.0.0.1", 8000, "udp4")


# --- raw bytes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "encoding", "sent"),
    [
        (b"\x00\xff", "utf8", b"\x00\xff"),
        (bytearray(b"\xff"), "hex", b"\xff"),
        (memoryview(b"\xff"), "hex", b"\xff"),
        ([1, 2, 300], "utf8", b"\x01\x02\x2c"),
        ("é", "utf8", b"\xc3\xa9"),
        ("é", "latin1", b"\xe9"),
        ("é", "binary", b"\xe9"),
        ("00ff80", "hex", b"\x00\xff\x80"),
        ("AP+A", "base64", b"\x00\xff\x80"),
        ("a", "utf16le", b"a\x00"),
    ],
)
def test_what_raw_mode_sends(value: object, encoding: str, sent: bytes) -> None:
    assert to_bytes(value, encoding) == sent


@pytest.mark.parametrize(("value", "encoding"), [("xyz", "hex"), ("=", "base64"), ("€", "latin1"), ("a", "klingon")])
def test_text_that_is_not_in_its_encoding(value: str, encoding: str) -> None:
    with pytest.raises(ValueError, match=encoding):
        to_bytes(value, encoding)


@pytest.mark.parametrize("value", [5, 1.5, None, {"a": 1}, ["a"]])
def test_what_is_no_bytes(value: object) -> None:
    with pytest.raises(TypeError, match="raw mode sends bytes"):
        to_bytes(value, "utf8")


# --- places -----------------------------------------------------------------------------------------------------


def test_the_default_path() -> None:
    config = Config(id="world")
    assert default_path(config, config.id) == "/tmp/app.world"
    config.socket_root, config.appspace = "/run/", "shop."
    assert default_path(config, "hello") == "/run/shop.hello"


@pytest.mark.parametrize(
    ("path", "platform", "address"),
    [
        ("/tmp/app.world", "linux", "node-ipc:world"),
        ("/tmp/app.", "linux", "unix:/tmp/app."),
        ("/tmp/app.a/b", "linux", "unix:/tmp/app.a/b"),
        ("/run/s", "linux", "unix:/run/s"),
        ("fd:3", "linux", "fd:3"),
        ("/tmp/shop.world", "darwin", "unix:/private/tmp/shop.world"),
        ("/tmp/app.world", "darwin", "node-ipc:world"),
        ("/tmp/app.world", "win32", "pipe:tmp-app.world"),
        ("relative/x.y", "win32", "pipe:relative-x.y"),
        ("\\\\.\\pipe\\mine", "win32", "pipe:mine"),
    ],
)
def test_where_a_path_is(path: str, platform: str, address: str) -> None:
    endpoint = local_endpoint(Config(), path, listens=False, platform=platform)
    assert str(endpoint.address) == address
    assert not endpoint.says_hello


@pytest.mark.skipif(sys.platform == "win32", reason="cannot run here: there is another root on each drive")
def test_a_relative_path_is_in_the_working_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert str(local_endpoint(Config(), "s", listens=False, platform="linux").address) == "unix:/s"


@pytest.mark.parametrize(
    ("readable", "writable", "mode", "allow"),
    [
        (False, False, None, None),
        (True, False, 0o644, None),
        (False, True, 0o622, pyipc.ANYONE),
        (True, True, 0o666, pyipc.ANYONE),
    ],
)
def test_who_may_read_and_connect(readable: bool, writable: bool, mode: int | None, allow: Any) -> None:
    config = Config(readable_all=readable, writable_all=writable)
    endpoint = local_endpoint(config, "/run/s", listens=True, platform="linux")
    assert (endpoint.mode, endpoint.allow) == (mode, allow)
    assert local_endpoint(config, "/run/s", listens=False, platform="linux").mode is None


def test_whom_the_program_allows_goes_first() -> None:
    config = Config(writable_all=True, allow={7})
    assert local_endpoint(config, "/run/s", listens=True, platform="linux").allow == {7}


def test_network_places() -> None:
    config = Config()
    assert str(network_endpoint(config, "localhost", 8000, listens=True).address) == "tcp://localhost:8000"
    assert str(network_endpoint(config, "::1", 0, listens=True, udp="udp6").address) == "udp://[::1]:0"
    with pytest.raises(pyipc.InsecureAddress):
        network_endpoint(config, "0.0.0.0", 8000, listens=True)
    config.allow = pyipc.ANYONE
    assert network_endpoint(config, "0.0.0.0", 8000, listens=True).allow is pyipc.ANYONE


def test_the_interface_cannot_be_chosen() -> None:
    config = Config()
    config.interface.local_port = 4000
    with pytest.raises(pyipc.AddressError, match=r"config\.interface cannot be used"):
        network_endpoint(config, "127.0.0.1", 8000, listens=False)
    network_endpoint(config, "127.0.0.1", 8000, listens=True)  # as in node-ipc, servers do not look at it


@pytest.mark.parametrize(
    ("udp", "host", "meant"),
    [
        ("udp4", "127.0.0.1", "127.0.0.1"),
        ("udp4", "::1", "127.0.0.1"),
        ("udp6", "127.0.0.1", "::1"),
        ("udp6", "localhost", "::1"),
        ("udp4", "10.0.0.1", "10.0.0.1"),
        ("udp6", "example.com", "example.com"),
    ],
)
def test_udp_hosts_are_of_their_family(udp: str, host: str, meant: str) -> None:
    assert udp_host(udp, host) == meant


@pytest.mark.parametrize("encoding", ["hex", "base64", "utf16le"])
def test_an_encoding_with_which_node_ipc_never_delivers(encoding: str) -> None:
    with pytest.raises(ValueError, match=r"no JSON message would ever be delivered"):
        local_endpoint(Config(encoding=encoding), "/run/s", listens=False, platform="linux")
    raw = Config(encoding=encoding, raw_buffer=True)
    assert local_endpoint(raw, "/run/s", listens=False, platform="linux").framing == pyipc.Raw()


@pytest.mark.parametrize("delimiter", ["\r\n", "|", ""])
def test_a_delimiter_that_cannot_work(delimiter: str) -> None:
    with pytest.raises(ValueError, match="delimiter"):
        local_endpoint(Config(delimiter=delimiter), "/run/s", listens=False, platform="linux")


def test_options_have_the_defaults_of_node_ipc() -> None:
    config = Config()
    assert (config.appspace, config.socket_root, config.encoding, config.delimiter) == ("app.", "/tmp/", "utf8", "\f")
    assert (config.retry, config.max_retries, config.max_connections) == (500, float("inf"), 100)
    assert (config.network_host, config.network_port, config.log_depth) == ("127.0.0.1", 8000, 5)
    assert not any((config.raw_buffer, config.sync, config.silent, config.readable_all, config.writable_all))
    assert config.unlink
    assert config.log_in_color
    with pytest.raises(AttributeError):
        config.maxRetries = 3  # type: ignore[attr-defined]


# --- the log ----------------------------------------------------------------------------------------------------


def test_the_log() -> None:
    lines: list[str] = []
    ipc = IPC()
    ipc.config.logger = lines.append
    ipc.config.log_depth = 2
    ipc.log("said", 1, None, {"a": {"b": {"c": 1}}})
    ipc.config.silent = True
    ipc.log("nothing")
    assert lines == ["said 1 None {'a': {'b': {...}}}"]


def test_the_log_in_color() -> None:
    assert shown({"a": 1}, None, True) == "\x1b[36m{'a': 1}\x1b[39m"
    assert shown("text", None, True) == "text"


# --- what is not there yet --------------------------------------------------------------------------------------


def test_there_is_no_server_yet() -> None:
    ipc = IPC()
    with pytest.raises(RuntimeError, match=r"serve\(\) or serve_net\(\) makes one"):
        _ = ipc.server
    assert "no server" in repr(ipc)


def test_ids_are_any_text() -> None:
    ipc = IPC()
    for id in ("world", "constructor", "__class__", "keys", "_Clients__clients", "with space"):
        ipc.connect_to(id)
        assert id in ipc.of
        assert ipc.of[id].id == id
    assert ipc.of.keys.id == "keys"
    assert len(list(ipc.of)) == len(ipc.of) == 6
    assert "world" in repr(ipc.of)
    ipc.disconnect("world")
    assert "world" not in ipc.of
    ipc.disconnect("never there")
    with pytest.raises(AttributeError, match=r"connect_to\('world'\) makes one"):
        _ = ipc.of.world
    with pytest.raises(TypeError, match="a client needs an id"):
        ipc.connect_to("")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"retry": -5}, "config.retry must be a number of milliseconds"),
        ({"retry": None}, "config.retry"),
        ({"retry": "500"}, "config.retry"),
        ({"retry": math.nan}, "config.retry"),
        ({"max_retries": "5"}, "config.max_retries"),
        ({"max_retries": -1}, "config.max_retries"),
        ({"sync": True, "sync_timeout": -1}, "config.sync_timeout must be a number of milliseconds, or None"),
        ({"options": {"close_timeout": -1}}, "close_timeout must be zero or more"),
        ({"options": {"max_frame_sizee": 1}}, "there is no option 'max_frame_sizee'"),
    ],
)
def test_options_that_cannot_work_are_refused_by_the_client_alone(options: dict[str, Any], complaint: str) -> None:
    """At once, and not when it runs, where that would end everybody else."""
    ipc = IPC()
    for name, value in options.items():
        setattr(ipc.config, name, value)
    with pytest.raises((ValueError, TypeError), match=re.escape(complaint)):
        ipc.connect_to("world")
    assert not len(ipc.of)


@pytest.mark.parametrize("value", [None, False, 0])
def test_no_retries_in_all_of_the_ways_of_node(value: Any) -> None:
    ipc = IPC()
    ipc.config.max_retries = value
    ipc.connect_to("world")
    assert ipc.of.world.retries_remaining == 0
