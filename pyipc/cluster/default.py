"""Node's way to write it: one cluster of a program, by names of the module.

Nothing is kept here but that one object; whoever wants more clusters, or another, makes a `Cluster`.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

from pyipc.cluster.primary import Cluster
from pyipc.cluster.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pyipc.cluster.events import EventType, WorkerEvent
    from pyipc.cluster.handle import WorkerHandle
    from pyipc.cluster.policies import Policy, PolicyFunction, ReusePort, Shared
    from pyipc.cluster.settings import SettingOverrides, WorkerOverrides

__all__ = [
    "default",
    "disconnect",
    "fork",
    "off",
    "on",
    "once",
    "scheduling_policy",
    "setup_primary",
    "workers",
]

F = TypeVar("F", bound="Callable[[WorkerEvent], object]")

_default: Cluster | None = None


def default() -> Cluster:
    """The cluster that the functions of this module are about. Its workers run the program that this process runs.

    It has to be entered once, as in ``async with cluster.default():``. After the end of that block there is a new one,
    with the settings of the one before, but without its handlers.
    """
    global _default  # the one that these functions are for
    if _default is None:
        _default = Cluster()
    elif _default.is_over:
        before: Any = {field.name: getattr(_default.settings, field.name) for field in dataclasses.fields(Settings)}
        _default = Cluster(policy=_default.scheduling_policy, **before)
    return _default


def setup_primary(
    *,
    policy: str | Policy | Shared | ReusePort | PolicyFunction | None = None,
    **settings: Unpack[SettingOverrides],
) -> None:
    """As `Cluster.setup_primary`."""
    default().setup_primary(policy=policy, **settings)


def scheduling_policy() -> Policy | Shared | ReusePort:
    """As `Cluster.scheduling_policy`."""
    return default().scheduling_policy


async def fork(
    id: str | None = None,
    *,
    role: str = "",
    env: Mapping[str, str | None] | None = None,
    wait: bool = True,
    **settings: Unpack[WorkerOverrides],
) -> WorkerHandle:
    """As `Cluster.fork`.

    Cancellation: the worker is ended.
    """
    return await default().fork(id, role=role, env=env, wait=wait, **settings)


def workers() -> Mapping[str, WorkerHandle]:
    """As `Cluster.workers`."""
    return default().workers


@overload
def on(type: EventType, handler: None = None) -> Callable[[F], F]: ...


@overload
def on(type: EventType, handler: F) -> F: ...


def on(type: Any, handler: Any = None) -> Any:
    """As `Cluster.on`."""
    return default().on(type, handler)


@overload
def once(type: EventType, handler: None = None) -> Callable[[F], F]: ...


@overload
def once(type: EventType, handler: F) -> F: ...


def once(type: Any, handler: Any = None) -> Any:
    """As `Cluster.once`."""
    return default().once(type, handler)


def off(type: EventType, handler: Callable[[WorkerEvent], object] | None = None) -> None:
    """As `Cluster.off`."""
    default().off(type, handler)


async def disconnect() -> None:
    """As `Cluster.disconnect`.

    Cancellation: the workers leave all the same.
    """
    await default().disconnect()
