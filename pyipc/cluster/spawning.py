"""Starting a worker process with all that ties it to its primary."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import trio

from pyipc.cluster.channels import socket_link
from pyipc.cluster.courier import SocketCourier
from pyipc.cluster.dialing import Channel
from pyipc.cluster.environment import VARIABLE
from pyipc.cluster.node.invited import node_invitation
from pyipc.cluster.target import command_line

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pyipc.cluster.courier import Courier
    from pyipc.cluster.dialing import Adopt
    from pyipc.cluster.environment import Invitation
    from pyipc.cluster.settings import Settings

__all__ = ["Spawned", "environment_of", "process_options", "spawn", "worker_environment"]


@dataclasses.dataclass(frozen=True, slots=True)
class Spawned:
    """A process that was started, and the primary's ends of what ties it to it.

    Attributes:
        process: The process.
        run: Hands out the links with it as they are there, and serves the courier; to be run from the start of the
            process to its end.
        courier: What carries sockets to it.
        release: Gives back what is to be held for as long as the process is there.
        hang_up: Once the process has ended: lets both links end behind what it has written, whoever else may hold its
            ends of them, such as a process that it started.
    """

    process: trio.Process
    run: Callable[[Adopt], Awaitable[None]]
    courier: Courier
    release: Callable[[], Awaitable[None]]
    hang_up: Callable[[], None] = lambda: None


async def spawn(invitation: Invitation, settings: Settings) -> Spawned:
    """Start a worker process.

    Args:
        invitation: Who it is; the rest of it is filled in here.
        settings: What it runs, and how.

    Raises:
        ClusterError: What it is to run cannot be started again, or is not there.
        OSError: The system starts no process.

    Cancellation: a process that was started is killed.
    """
    if sys.platform == "win32":
        from pyipc.cluster.spawning_windows import spawn_on_windows

        return await spawn_on_windows(invitation, settings)
    command = command_line(settings)
    with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:

        def pair() -> tuple[socket.socket, int]:
            own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            ours.callback(own.close)
            theirs.callback(other.close)
            return own, other.fileno()

        control, control_there = pair()
        messages, messages_there = pair()
        courier, courier_socket = SocketCourier.pair()
        ours.callback(courier.close)
        theirs.callback(courier_socket.close)
        lifeline_there, lifeline = os.pipe()
        theirs.callback(os.close, lifeline_there)
        ours.callback(os.close, lifeline)
        told = dataclasses.replace(
            invitation,
            control=control_there,
            messages=messages_there,
            courier=courier_socket.fileno(),
            lifeline=lifeline_there,
        )
        process = await trio.lowlevel.open_process(
            command,
            env=worker_environment(settings, told),
            pass_fds=(control_there, messages_there, courier_socket.fileno(), lifeline_there),
            **process_options(settings),
        )
        ours.pop_all()

    async def run(adopt: Adopt) -> None:
        # There is no checkpoint in here: whatever comes, the sockets have an owner then.
        name = f"worker {invitation.id}"
        adopt(Channel.CONTROL, socket_link(control, name, process.pid))
        adopt(Channel.MESSAGES, socket_link(messages, name, process.pid))

    def hang_up() -> None:
        # Elsewhere what was not read yet would be thrown away by it.
        if sys.platform == "linux":
            for sock in (control, messages):
                with contextlib.suppress(OSError):  # it has ended already
                    sock.shutdown(socket.SHUT_RD)

    async def release() -> None:
        os.close(lifeline)
        courier.close()

    return Spawned(process, run, courier, release, hang_up)


def worker_environment(settings: Settings, invitation: Invitation) -> dict[str, str]:
    """The environment of a worker process."""
    return environment_of(settings) | {VARIABLE: str(invitation)}


def environment_of(settings: Settings) -> dict[str, str]:
    """The environment of a worker process, without what makes it a worker."""
    node_invitation()  # what Node has told this process is out of the environment then
    environment = dict(os.environ)
    for name, value in settings.env.items():
        environment.pop(name, None)
        if value is not None:
            environment[name] = str(value)
    return environment


def process_options(settings: Settings) -> dict[str, Any]:
    """What else the system is told about a worker process."""
    options: dict[str, Any] = {"stdin": subprocess.DEVNULL}
    if settings.cwd is not None:
        options["cwd"] = settings.cwd
    if settings.stdout is not None:
        options["stdout"] = settings.stdout
    if settings.silent:
        options |= {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    if settings.uid is not None:
        options["user"] = settings.uid
    if settings.gid is not None:
        options["group"] = settings.gid
    if (settings.uid, settings.gid) != (None, None) and sys.platform != "win32" and os.geteuid() == 0:
        options["extra_groups"] = []  # those of the superuser are not for whoever is less
    return options
