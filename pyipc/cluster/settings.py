"""How a cluster behaves: every setting with its default, in one table."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, Literal, TypedDict

__all__ = [
    "NODE_SUFFIXES",
    "SettingOverrides",
    "Settings",
    "WorkerOverrides",
    "check_number_of_workers",
    "check_role",
    "check_worker",
    "is_node_program",
]

#: How the names of programs end that Node runs.
NODE_SUFFIXES: Final = (".js", ".cjs", ".mjs")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a new worker process is started with, and how long whom is waited for.

    Those that Node's ``cluster.setupPrimary()`` has are ``exec``, ``args``, ``exec_args``, ``cwd``, ``silent``, ``uid``
    and ``gid``; they mean the same. A change is for workers that are started later. Seconds are ``*_timeout`` and
    ``*_interval``; ``None`` in a time-out means that there is none.

    Attributes:
        exec: What a worker runs: ``"package.module:function"``, or the path of a script; ``None`` for the very
            program that this process runs.
        node: Instead of that: the path of a program that Node runs. A worker forked with this takes no ``exec``,
            ``args`` and ``exec_args`` from its cluster, nor one with ``exec`` from a cluster with this.
        node_executable: The path or the name of Node; version 20 is what the tests run.
        args: Arguments for the worker's program; ``None`` for those of this process, or none for Node.
        exec_args: Arguments for the Python interpreter, or Node; ``None`` for those of this process, or none for Node.
        cwd: The directory that workers run in; by default the present one.
        env: Variables for the environment of every worker, beside those of this process; ``None`` as a value takes
            one away.
        silent: Whether what workers print goes nowhere.
        stdout: The descriptor of a file or pipe that what workers print goes to; by default it is that of this process.
        uid: Which user workers run as, a name or a number. With this or ``gid`` the superuser's workers are in none of
            its other groups.
        gid: Which group, likewise.
        wait_ready: Whether a worker is ready only when it says so, with ``await worker.ready()``.
        ready_timeout: How long a worker may take until it is ready.
        drain_timeout: How long a worker that is to leave may take for what is under way.
        kill_timeout: How long after that, when it was sent SIGTERM, until it is killed.
        restart: Which exits a worker is started again after: ``"always"`` but those that were asked for,
            ``"on-failure"`` (another code than 0, or a signal), or ``"never"``.
        stop_exit_codes: Exit codes after which it is not started again in any case.
        max_restarts: How often a worker may be started again within ``restart_window``; one more, and it has failed.
        restart_window: Seconds that restarts are remembered for; of a worker that does not even become ready they are
            not forgotten.
        restart_interval: The pause before the first restart, which doubles with each that follows soon.
        restart_max_interval: The longest pause.
        restart_jitter: Whether pauses are shortened by chance, so that many workers do not start at the same time.
        heartbeat_interval: How often a worker tells how it is.
        hang_timeout: After so long without a word from it, a worker hangs, and is killed and replaced.
        max_memory_size: Resident bytes above which a worker is replaced; this takes psutil.
        max_age_timeout: Seconds after which a worker is replaced; every worker's own is shortened by up to a tenth,
            by chance, so that they do not all go at once. As with memory, the new process is ready before the old one
            leaves.
        jobs_per_worker: How many submitted jobs a worker has at the same time.
        max_pending_jobs: How many jobs wait for a worker before `Cluster.submit` waits.
        max_handovers: How many connections a worker may be given before it has taken the first of them.
        max_frame_size: The largest message between primary and workers, in bytes.
    """

    exec: str | None = None
    node: str | None = None
    node_executable: str = "node"
    args: Sequence[str] | None = None
    exec_args: Sequence[str] | None = None
    cwd: str | None = None
    env: Mapping[str, str | None] = dataclasses.field(default_factory=dict)
    silent: bool = False
    stdout: int | None = None
    uid: str | int | None = None
    gid: str | int | None = None
    wait_ready: bool = False
    ready_timeout: float | None = 30.0
    drain_timeout: float | None = 30.0
    kill_timeout: float = 5.0
    restart: Literal["always", "on-failure", "never"] = "always"
    stop_exit_codes: Collection[int] = ()
    max_restarts: int = 10
    restart_window: float = 60.0
    restart_interval: float = 0.1
    restart_max_interval: float = 10.0
    restart_jitter: bool = True
    heartbeat_interval: float = 1.0
    hang_timeout: float | None = 30.0
    max_memory_size: int | None = None
    max_age_timeout: float | None = None
    jobs_per_worker: int = 8
    max_pending_jobs: int = 10_000
    max_handovers: int = 4
    max_frame_size: int = 64 * 1024 * 1024

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check(field.name, getattr(self, field.name))
        _check_start(self)
        if self.restart not in ("always", "on-failure", "never"):
            raise ValueError(f"restart must be 'always', 'on-failure' or 'never', not {self.restart!r}")
        if self.hang_timeout is not None and self.hang_timeout < 2 * self.heartbeat_interval:
            raise ValueError(
                f"hang_timeout must be at least twice heartbeat_interval, not {self.hang_timeout:g} s with one of "
                f"{self.heartbeat_interval:g} s"
            )

    def changed(self, overrides: Mapping[str, Any]) -> Settings:
        """These settings, some of them changed.

        Raises:
            TypeError: There is no such setting, or a value is of the wrong kind.
            ValueError: A value is out of range.
        """
        known = {field.name for field in dataclasses.fields(self)}
        for name in overrides:
            if name not in known:
                raise TypeError(f"there is no setting {name!r}; the settings are {', '.join(sorted(known))}")
        # What is for the one interpreter means nothing to the other.
        begun_anew: dict[str, Any] = {"exec": None, "node": None, "args": None, "exec_args": None}
        other = "node" if self.node is None else "exec"
        if overrides.get(other) is not None:
            return dataclasses.replace(self, **begun_anew | dict(overrides))
        return dataclasses.replace(self, **overrides)


def _check(name: str, value: object) -> None:
    """Refuse a number that is out of range."""
    if name.endswith(("_timeout", "_interval", "_window")):
        if value is None and name.endswith("_timeout") and name != "kill_timeout":
            return
        if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value) or value < 0:
            raise ValueError(f"{name} must be a number of seconds, zero or more, not {value!r}")
        if name == "heartbeat_interval" and value == 0:
            raise ValueError("heartbeat_interval must be more than 0 seconds")
    elif name.startswith("max_") or name == "jobs_per_worker":
        if value is None and name == "max_memory_size":
            return
        least = 0 if name == "max_restarts" else 1
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be a whole number, {least} or more, not {value!r}")


def _check_start(settings: Settings) -> None:
    """Refuse what no process could be started with."""
    exec: Any = settings.exec
    if exec is not None and not isinstance(exec, str):
        raise TypeError(
            f"what workers run is named by a text, 'package.module:function' or the path of a script, not by {exec!r}"
        )
    if is_node_program(exec):
        raise ValueError(f"exec is for Python, and {exec!r} is for Node; say node={exec!r}")
    node: Any = settings.node
    if node is not None and not isinstance(node, str):
        raise TypeError(f"node must be the path of a program for Node, such as 'worker.js', and not {node!r}")
    if node is not None and exec is not None:
        raise ValueError(f"a worker runs either exec, which is {exec!r}, or node, which is {node!r}; leave out one")
    executable: Any = settings.node_executable
    if not isinstance(executable, str) or not executable:
        raise TypeError(f"node_executable must be the path or the name of Node, and not {executable!r}")
    for name in ("args", "exec_args"):
        texts = getattr(settings, name)
        if texts is not None and (isinstance(texts, str) or not _are(texts, str)):
            raise TypeError(f"{name} must be a list of texts, such as ['--verbose'], and not {texts!r}")
    if settings.cwd is not None and not isinstance(settings.cwd, str | os.PathLike):
        raise TypeError(f"cwd must be the path of a directory, not {settings.cwd!r}")
    for name in ("uid", "gid"):
        value = getattr(settings, name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, str | int)):
            raise TypeError(f"{name} must be a name or a number, not {value!r}")
    codes = settings.stop_exit_codes
    if isinstance(codes, str | bytes) or not _are(codes, int):
        raise TypeError(f"stop_exit_codes must be a list of exit codes, such as [3], and not {codes!r}")
    env: Any = settings.env
    if not isinstance(env, Mapping):
        raise TypeError(f"env must be a mapping of names to texts, such as {{'DEBUG': '1'}}, and not {env!r}")
    for key, value in env.items():
        if not isinstance(key, str) or not isinstance(value, str | int | float | None):
            raise TypeError(f"env must map names to texts, or to None, and not {key!r} to {value!r}")
        if not key or "=" in key or "\0" in key or "\0" in str(value):
            raise ValueError(
                f"no environment can have {key!r} so: names are text without '=', and there is no NUL in it"
            )


def is_node_program(target: object) -> bool:
    """Whether a target is a program that Node runs, by its name."""
    return isinstance(target, str) and target.endswith(NODE_SUFFIXES)


def check_number_of_workers(name: str, value: object) -> None:
    """Refuse what is no number of workers.

    Raises:
        ValueError: It is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{name} must be a whole number, zero or more, not {value!r}")


def check_role(role: object) -> None:
    """Refuse what is no role.

    Raises:
        TypeError: It is none.
    """
    if not isinstance(role, str):
        raise TypeError(f"a role is text, empty for workers without one, and not {role!r}")


def check_worker(id: object, role: object, env: object) -> None:
    """Refuse what no worker can be forked with.

    Raises:
        TypeError, ValueError: Something is of the wrong kind.
    """
    if id is not None and (
        not isinstance(id, str) or not id or len(id) > 128 or not id.isprintable() or id == "primary"
    ):
        raise ValueError(
            f"the id of a worker is text of 1 to 128 printable characters, other than 'primary', and not {id!r}"
        )
    check_role(role)
    if not isinstance(env, Mapping):
        raise TypeError(f"env must be a mapping of names to texts, such as {{'DEBUG': '1'}}, and not {env!r}")


def _are(values: object, kind: type) -> bool:
    return isinstance(values, Collection) and all(isinstance(each, kind) for each in values)


class WorkerOverrides(TypedDict, total=False):
    """The same names, for keyword arguments, without ``env``."""

    exec: str | None
    node: str | None
    node_executable: str
    args: Sequence[str] | None
    exec_args: Sequence[str] | None
    cwd: str | None
    silent: bool
    stdout: int | None
    uid: str | int | None
    gid: str | int | None
    wait_ready: bool
    ready_timeout: float | None
    drain_timeout: float | None
    kill_timeout: float
    restart: Literal["always", "on-failure", "never"]
    stop_exit_codes: Collection[int]
    max_restarts: int
    restart_window: float
    restart_interval: float
    restart_max_interval: float
    restart_jitter: bool
    heartbeat_interval: float
    hang_timeout: float | None
    max_memory_size: int | None
    max_age_timeout: float | None
    jobs_per_worker: int
    max_pending_jobs: int
    max_handovers: int
    max_frame_size: int


class SettingOverrides(WorkerOverrides, total=False):
    """The same names, for keyword arguments."""

    env: Mapping[str, str | None]
