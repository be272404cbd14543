"""Options: every default, and a sentence for every wrong value."""

from __future__ import annotations

import dataclasses
import re
import typing
from typing import TYPE_CHECKING, Any

import pytest

import pyipc
from pyipc.options import UNSET, OptionOverrides, Options
from tests.certificates import authority_file, leaf, leaf_file
from tests.conftest import ROOT

if TYPE_CHECKING:
    from pathlib import Path

DEFAULTS = {
    "connect_timeout": 10.0,
    "request_timeout": 30.0,
    "handshake_timeout": 5.0,
    "close_timeout": 5.0,
    "heartbeat_interval": 10.0,
    "heartbeat_misses": 2,
    "drain_timeout": 30.0,
    "confirm_timeout": 90.0,
    "session_timeout": 120.0,
    "reconnect": True,
    "reconnect_interval": 0.1,
    "reconnect_factor": 2.0,
    "reconnect_max_interval": 10.0,
    "reconnect_jitter": True,
    "max_reconnects": None,
    "offline": "queue",
    "max_offline_messages": 1_000,
    "max_offline_size": 8 * 2**20,
    "outbox_high_water_size": 64 * 2**10,
    "max_outbox_size": 8 * 2**20,
    "inbox_high_water_size": 256 * 2**10,
    "max_inbox_size": 8 * 2**20,
    "max_frame_size": 2**20,
    "max_shared_datagram_size": 1_200,
    "peer_idle_timeout": 60.0,
    "frame_timeout": 30.0,
    "frame_progress_size": 64 * 2**10,
    "write_timeout": 3_600.0,
    "max_attachments_size": 4 * 2**20,
    "max_attachments": 64,
    "max_depth": 64,
    "max_event_name_size": 256,
    "max_connections": 1_024,
    "max_connections_per_peer": 256,
    "max_handshakes": 64,
    "max_held_size": 2**30,
    "max_concurrent_requests": 64,
    "max_pending_requests": 4_096,
    "max_unconfirmed": 4_096,
    "max_unconfirmed_size": 8 * 2**20,
    "max_sessions": 4_096,
    "max_session_window": 65_536,
    "max_concurrent_streams": 64,
    "max_stream_items": 256,
    "max_stream_size": 256 * 2**10,
    "stream_stall_timeout": 3_600.0,
    "max_subscriptions": 1_024,
    "max_retained_topics": 1_024,
    "max_retained_size": 4 * 2**20,
    "slow_peer": "close",
    "malformed": "close",
    "unsafe_names": False,
}
FIELDS = {field.name: str(field.type) for field in dataclasses.fields(Options)}
MAY_BE_ZERO = {"max_reconnects", "max_offline_messages", "max_offline_size", "close_timeout", "reconnect_interval"}
NUMBERS = [name for name, kind in FIELDS.items() if "int" in kind or "float" in kind]
SECONDS = [name for name, kind in FIELDS.items() if "float" in kind]
COUNTS = [name for name, kind in FIELDS.items() if "int" in kind]


def options(**values: Any) -> Options:
    return Options.of(typing.cast("OptionOverrides", values))


def test_the_defaults() -> None:
    assert dataclasses.asdict(Options()) == DEFAULTS
    assert options() == Options()


def test_the_overrides_are_the_options() -> None:
    assert OptionOverrides.__annotations__.keys() == FIELDS.keys()
    for name, kind in OptionOverrides.__annotations__.items():
        assert (kind.__forward_arg__ if isinstance(kind, typing.ForwardRef) else kind) == FIELDS[name]


def test_overrides_take_the_place_of_defaults() -> None:
    made = options(max_frame_size=5_000, request_timeout=None, offline="drop", reconnect=False, close_timeout=1)
    changed = {
        "max_frame_size": 5_000,
        "request_timeout": None,
        "offline": "drop",
        "reconnect": False,
        "close_timeout": 1,
    }
    assert dataclasses.asdict(made) == {**DEFAULTS, **changed}


def test_an_option_that_does_not_exist() -> None:
    with pytest.raises(
        TypeError, match="there is no option 'timeout'; the options are close_timeout, confirm_timeout,"
    ):
        options(timeout=5)


def test_they_cannot_be_changed_afterwards() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Options().max_depth = 5  # type: ignore[misc]


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [-1, -0.5, float("nan"), float("-inf")])
def test_numbers_below_zero(name: str, value: int | float) -> None:
    if name in COUNTS and not isinstance(value, int):
        with pytest.raises(TypeError, match=name):
            options(**{name: value})
    else:
        with pytest.raises(ValueError, match=f"{name} must be"):
            options(**{name: value})


@pytest.mark.parametrize("name", NUMBERS)
def test_zero(name: str) -> None:
    if name in MAY_BE_ZERO:
        assert getattr(options(**{name: 0}), name) == 0
    else:
        with pytest.raises(ValueError, match=f"{name} must be above zero, not 0"):
            options(**{name: 0})


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", ["5", True, b"", [1], 1j])
def test_what_is_no_number(name: str, value: object) -> None:
    unit = "a number of seconds" if name in SECONDS else "a whole number"
    with pytest.raises(TypeError, match=f"{name} must be {unit}"):
        options(**{name: value})


@pytest.mark.parametrize("name", NUMBERS)
def test_none_where_it_means_something(name: str) -> None:
    if "None" in FIELDS[name]:
        assert getattr(options(**{name: None}), name) is None
    else:
        with pytest.raises(TypeError, match=name):
            options(**{name: None})


@pytest.mark.parametrize("name", ["reconnect", "reconnect_jitter", "unsafe_names"])
@pytest.mark.parametrize("value", [0, 1, None, "yes"])
def test_what_is_neither_true_nor_false(name: str, value: object) -> None:
    with pytest.raises(TypeError, match=f"{name} must be True or False"):
        options(**{name: value})


@pytest.mark.parametrize(
    ("name", "choices"),
    [
        ("offline", "'queue' or 'raise' or 'drop'"),
        ("slow_peer", "'close' or 'drop'"),
        ("malformed", "'close' or 'skip'"),
    ],
)
@pytest.mark.parametrize("value", ["", "Close", None, 1, []])
def test_what_is_no_choice(name: str, choices: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{name} must be {choices}, not "):
        options(**{name: value})


def test_numbers_beyond_what_a_float_holds() -> None:
    assert options(max_pending_requests=10**400).max_pending_requests == 10**400
    assert options(request_timeout=float("inf")).request_timeout == float("inf")


def test_limits_that_contradict_each_other() -> None:
    with pytest.raises(ValueError, match="max_outbox_size must not be below outbox_high_water_size"):
        options(max_outbox_size=10)
    with pytest.raises(ValueError, match="max_inbox_size must not be below inbox_high_water_size"):
        options(max_inbox_size=10)
    options(max_outbox_size=10, outbox_high_water_size=10, max_inbox_size=10, inbox_high_water_size=10)


def test_a_heartbeat_that_no_peer_would_keep() -> None:
    with pytest.raises(ValueError, match=r"heartbeat_interval must not be below 0\.01 s"):
        options(heartbeat_interval=0.009)
    assert options(heartbeat_interval=0.01).heartbeat_interval == 0.01


def test_unset_shows_itself() -> None:
    assert repr(UNSET) == "UNSET"


def test_the_server_on_the_page_on_security_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    leaf_file(tmp_path / "server.pem", leaf("localhost"))
    authority_file(tmp_path).rename(tmp_path / "clients.pem")
    page = (ROOT / "docs" / "explanation" / "security.md").read_text("utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    scope: dict[str, Any] = {}
    exec(program, scope)
    assert isinstance(scope["server"], pyipc.Server)
