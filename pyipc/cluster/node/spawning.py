"""Starting a Node program as a worker: with Node's own channel, and as a worker of Node's own `cluster` module."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import zlib
from typing import TYPE_CHECKING, Final

import trio

from pyipc.cluster.dialing import Channel
from pyipc.cluster.errors import ClusterError
from pyipc.cluster.node.channel import NodeChannel
from pyipc.cluster.node.courier import NodeCourier
from pyipc.cluster.spawning import Spawned, environment_of, process_options
from pyipc.cluster.target import command_line

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pyipc.cluster.dialing import Adopt
    from pyipc.cluster.environment import Invitation
    from pyipc.cluster.node.lines import Message
    from pyipc.cluster.settings import Settings

__all__ = ["check_node_possible", "node_id", "spawn_node"]

#: Is loaded before the program.
_PRELOADED: Final = os.path.join(os.path.dirname(__file__), "preloaded.cjs")

#: Ids of workers that are not numbers are numbers from here on for Node, which has no others.
_FIRST_NUMBER: Final = 1 << 30


def check_node_possible(settings: Settings) -> None:
    """See whether this system can have a Node program as a worker.

    Raises:
        ClusterError: It cannot.
    """
    if settings.node is not None and sys.platform == "win32":
        raise ClusterError(
            "on Windows no Node program can be a worker: only Node itself can make what its channel is there. Start it "
            "by other means, and let it connect to a pyipc.Server with the package node-ipc"
        )


async def spawn_node(
    invitation: Invitation,
    settings: Settings,
    received: Callable[[Message, socket.socket | None], None],
    accompany: Callable[[], Awaitable[None]],
) -> tuple[Spawned, NodeChannel, NodeCourier]:
    """Start it.

    Args:
        invitation: Who it is.
        settings: What it runs, and how.
        received: As for `NodeChannel`.
        accompany: Runs beside it, from its start to its end.

    Raises:
        ClusterError: The script, or Node, is not there.
        OSError: The system starts no process.

    Cancellation: a process that was started is killed.
    """
    executable, *rest = command_line(settings)
    own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with contextlib.ExitStack() as ours:
        ours.callback(own.close)
        with other:
            process = await trio.lowlevel.open_process(
                [executable, "--require", _PRELOADED, *rest],
                env=_environment(settings, invitation, other.fileno()),
                pass_fds=(other.fileno(),),
                # What a terminal sends to all is for the primary, and Node would end by it.
                process_group=0,
                **process_options(settings),
            )
        ours.pop_all()
    channel = NodeChannel(
        own,
        f"worker {invitation.id}",
        received,
        max_message_size=invitation.max_frame_size,
        pid=process.pid,
    )
    courier = NodeCourier(channel)

    async def run(adopt: Adopt) -> None:
        # There is no checkpoint before this: whatever comes, the channel has an owner then.
        adopt(Channel.MESSAGES, channel.link)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.run)
            await accompany()

    async def release() -> None:
        channel.close()
        courier.close()

    def hang_up() -> None:
        channel.hang_up()
        if channel.is_at_end:
            courier.end()

    return Spawned(process, run, courier, release, hang_up), channel, courier


def _environment(settings: Settings, invitation: Invitation, descriptor: int) -> dict[str, str]:
    return environment_of(settings) | {
        "NODE_CHANNEL_FD": str(descriptor),
        "NODE_CHANNEL_SERIALIZATION_MODE": "json",
        "NODE_UNIQUE_ID": str(node_id(invitation.id)),
        "PYIPC_WORKER_ID": invitation.id,
        "PYIPC_WORKER_ROLE": invitation.role,
        "PYIPC_WORKER_GENERATION": str(invitation.generation),
        "PYIPC_NODE_WORKER": "1",
    }


def node_id(id: str) -> int:
    """The id of a worker as Node's ``cluster.worker.id``, which is a number.

    Returns:
        The id, if it is a number below 2^30; another number otherwise, the same each time.
    """
    if id.isascii() and id.isdigit() and int(id[:11]) < _FIRST_NUMBER and str(int(id)) == id:
        return int(id)
    return _FIRST_NUMBER | (zlib.crc32(id.encode()) % _FIRST_NUMBER)
