"""Every option of a connection with its default, in one table.

This is the single place in the code where the defaults stand; ``docs/reference/options.md`` shows
the same table, and a test compares the two.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, TypedDict

__all__ = ["SHORTEST_HEARTBEAT", "UNSET", "OptionOverrides", "Options", "Unset", "check_timeout"]

#: How often, in seconds, a peer may at most ask for a sign of life.
SHORTEST_HEARTBEAT = 0.01

KIB = 1024
MIB = 1024 * KIB


class Unset:
    """The type of `UNSET`, which stands for "as the options say"."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET = Unset()


def check_timeout(timeout: float | None, *, may_be_over: bool = False) -> None:
    """Refuse what an argument ``timeout`` cannot be.

    Args:
        timeout: Seconds.
        may_be_over: Whether it may be less than zero: what is left of a time that is over already.

    Raises:
        TypeError: It is neither a number nor ``None``.
        ValueError: It is less than zero, or NaN, which is no time either.
    """
    if timeout is None:
        return
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise TypeError(f"timeout must be a number of seconds or None, not {timeout!r}")
    if not (timeout >= 0 or (may_be_over and timeout < 0)):
        raise ValueError(f"timeout must be zero or more seconds, or None, not {timeout!r}")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How connections behave. Seconds are ``*_timeout``/``*_interval``, bytes ``max_*_size``.

    ``None`` in a time-out switches it off.
    """

    connect_timeout: float | None = 10.0
    request_timeout: float | None = 30.0
    handshake_timeout: float | None = 5.0
    close_timeout: float = 5.0
    drain_timeout: float = 30.0
    confirm_timeout: float | None = 90.0
    session_timeout: float = 120.0
    heartbeat_interval: float | None = 10.0
    heartbeat_misses: int = 2
    reconnect: bool = True
    reconnect_interval: float = 0.1
    reconnect_factor: float = 2.0
    reconnect_max_interval: float = 10.0
    reconnect_jitter: bool = True
    max_reconnects: int | None = None
    offline: Literal["queue", "raise", "drop"] = "queue"
    max_offline_messages: int = 1_000
    max_offline_size: int = 8 * MIB
    outbox_high_water_size: int = 64 * KIB
    max_outbox_size: int = 8 * MIB
    inbox_high_water_size: int = 256 * KIB
    max_inbox_size: int = 8 * MIB
    max_frame_size: int = MIB
    max_shared_datagram_size: int = 1_200
    peer_idle_timeout: float | None = 60.0
    frame_timeout: float | None = 30.0
    frame_progress_size: int = 64 * KIB
    write_timeout: float | None = 3_600.0
    max_attachments_size: int = 4 * MIB
    max_attachments: int = 64
    max_depth: int = 64
    max_event_name_size: int = 256
    max_connections: int = 1_024
    max_connections_per_peer: int = 256
    max_handshakes: int = 64
    max_held_size: int = 1024 * MIB
    max_concurrent_requests: int = 64
    max_pending_requests: int = 4_096
    max_unconfirmed: int = 4_096
    max_unconfirmed_size: int = 8 * MIB
    max_sessions: int = 4_096
    max_session_window: int = 65_536
    max_concurrent_streams: int = 64
    max_stream_items: int = 256
    max_stream_size: int = 256 * KIB
    stream_stall_timeout: float | None = 3_600.0
    max_subscriptions: int = 1_024
    max_retained_topics: int = 1_024
    max_retained_size: int = 4 * MIB
    slow_peer: Literal["close", "drop"] = "close"
    malformed: Literal["close", "skip"] = "close"
    unsafe_names: bool = False

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check(field.name, field.type, getattr(self, field.name))
        if self.heartbeat_interval is not None and self.heartbeat_interval < SHORTEST_HEARTBEAT:
            raise ValueError(
                f"heartbeat_interval must not be below {SHORTEST_HEARTBEAT} s, which no peer would keep up with"
            )
        if self.max_outbox_size < self.outbox_high_water_size:
            raise ValueError("max_outbox_size must not be below outbox_high_water_size")
        if self.max_inbox_size < self.inbox_high_water_size:
            raise ValueError("max_inbox_size must not be below inbox_high_water_size")

    @classmethod
    def of(cls, overrides: OptionOverrides) -> Options:
        """The defaults with ``overrides`` in place.

        Raises:
            TypeError: An option does not exist, or its value is of the wrong kind.
            ValueError: A value is out of range.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        for name in overrides:
            if name not in known:
                raise TypeError(f"there is no option {name!r}; the options are {', '.join(sorted(known))}")
        return cls(**overrides)


class OptionOverrides(TypedDict, total=False):
    """The keyword arguments that `Options` takes, for type checkers."""

    connect_timeout: float | None
    request_timeout: float | None
    handshake_timeout: float | None
    close_timeout: float
    drain_timeout: float
    confirm_timeout: float | None
    session_timeout: float
    heartbeat_interval: float | None
    heartbeat_misses: int
    reconnect: bool
    reconnect_interval: float
    reconnect_factor: float
    reconnect_max_interval: float
    reconnect_jitter: bool
    max_reconnects: int | None
    offline: Literal["queue", "raise", "drop"]
    max_offline_messages: int
    max_offline_size: int
    outbox_high_water_size: int
    max_outbox_size: int
    inbox_high_water_size: int
    max_inbox_size: int
    max_frame_size: int
    max_shared_datagram_size: int
    peer_idle_timeout: float | None
    frame_timeout: float | None
    frame_progress_size: int
    write_timeout: float | None
    max_attachments_size: int
    max_attachments: int
    max_depth: int
    max_event_name_size: int
    max_connections: int
    max_connections_per_peer: int
    max_handshakes: int
    max_held_size: int
    max_concurrent_requests: int
    max_pending_requests: int
    max_unconfirmed: int
    max_unconfirmed_size: int
    max_sessions: int
    max_session_window: int
    max_concurrent_streams: int
    max_stream_items: int
    max_stream_size: int
    stream_stall_timeout: float | None
    max_subscriptions: int
    max_retained_topics: int
    max_retained_size: int
    slow_peer: Literal["close", "drop"]
    malformed: Literal["close", "skip"]
    unsafe_names: bool


_CHOICES: dict[str, tuple[str, ...]] = {
    "offline": ("queue", "raise", "drop"),
    "slow_peer": ("close", "drop"),
    "malformed": ("close", "skip"),
}
_MAY_BE_ZERO = {"max_reconnects", "max_offline_messages", "max_offline_size", "close_timeout", "reconnect_interval"}


def _check(name: str, kind: Any, value: object) -> None:
    """Refuse a value of the wrong kind or out of range with a sentence that names the option."""
    if name in _CHOICES:
        if value not in _CHOICES[name]:
            allowed = " or ".join(repr(choice) for choice in _CHOICES[name])
            raise ValueError(f"{name} must be {allowed}, not {value!r}")
        return
    if kind == "bool":
        if not isinstance(value, bool):
            raise TypeError(f"{name} must be True or False, not {value!r}")
        return
    if value is None and "None" in kind:
        return
    wanted = (int, float) if "float" in kind else (int,)
    if isinstance(value, bool) or not isinstance(value, wanted):
        unit = "a number of seconds" if "float" in kind else "a whole number"
        raise TypeError(f"{name} must be {unit}{' or None' if 'None' in kind else ''}, not {value!r}")
    assert isinstance(value, (int, float))
    if name in _MAY_BE_ZERO:
        if not value >= 0:  # which NaN is not either
            raise ValueError(f"{name} must be zero or more, not {value!r}")
    elif not value > 0:
        raise ValueError(f"{name} must be above zero, not {value!r}")
