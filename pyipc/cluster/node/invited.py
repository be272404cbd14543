"""What Node tells a process that it starts: where their channel is, and to a worker of its cluster, which one it is.

It is read once and taken out of the environment, as the invitation of a pyipc primary is: what this process starts is
no child of that Node program.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import stat
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import MutableMapping

__all__ = ["NodeInvitation", "node_invitation", "take_node_invitation"]

_CHANNEL: Final = "NODE_CHANNEL_FD"
_SERIALIZATION: Final = "NODE_CHANNEL_SERIALIZATION_MODE"
_ID: Final = "NODE_UNIQUE_ID"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NodeInvitation:
    """What Node tells a process that it starts.

    Attributes:
        id: Of the worker in Node's cluster; empty for a child that is no worker.
        descriptor: Of the channel.
        is_there: Whether the channel is; else the variables are left over from somebody else.
        obstacle: Why the channel cannot be spoken, as a sentence for people; empty if it can.
    """

    id: str = ""
    descriptor: int = -1
    is_there: bool = False
    obstacle: str = ""

    @property
    def is_worker(self) -> bool:
        """Whether this process is a worker of Node's cluster."""
        return bool(self.id) and self.is_there


_taken: NodeInvitation | None = None
_was_read = False


def node_invitation() -> NodeInvitation | None:
    """What this process was told by Node; the same each time. ``None`` if nothing."""
    global _taken, _was_read  # there is one environment of a process, and it is read once
    if not _was_read:
        _was_read = True
        _taken = take_node_invitation()
    return _taken


def take_node_invitation(
    environment: MutableMapping[str, str] = os.environ, platform: str = sys.platform
) -> NodeInvitation | None:
    """Read what the environment says, and take it out of there.

    Returns:
        ``None`` if there is no channel, nor was one.
    """
    channel, serialization, id = (environment.pop(name, "") for name in (_CHANNEL, _SERIALIZATION, _ID))
    if not channel:
        return None
    descriptor = int(channel) if channel.isascii() and channel.isdigit() else -1
    if not _is_channel(descriptor, platform):
        return NodeInvitation(
            id=id,
            obstacle=f"the environment says that descriptor {channel} is a channel to a Node program, which it is not "
            "in this process: what Node has started was another one, which has left the variable to this one. Have "
            "Node start this program itself, as in child_process.fork(program, [], {execPath: 'python3'})",
        )
    obstacle = ""
    if platform == "win32":
        obstacle = (
            "a channel to a Node program cannot be spoken on Windows; let this program and the Node program talk over "
            "an address, such as a named pipe: docs/how-to/from-node-cluster.md"
        )
    elif serialization not in ("", "json"):
        obstacle = (
            f"this channel to a Node program has the serialization {serialization!r}, which only Node can read; leave "
            "out that setting of fork or setupPrimary, as 'json' is the default"
        )
    if platform != "win32":
        os.set_inheritable(descriptor, False)  # it is for this process alone, and not for what it starts
    return NodeInvitation(id=id, descriptor=descriptor, is_there=True, obstacle=obstacle)


def _is_channel(descriptor: int, platform: str) -> bool:
    """Whether a descriptor is what Node would have passed to this process."""
    with contextlib.suppress(OSError, OverflowError):
        kind = os.fstat(descriptor).st_mode
        if platform == "win32":
            return stat.S_ISFIFO(kind)
        # What this process has opened itself, under the number of what is gone, is inherited by nobody.
        if stat.S_ISSOCK(kind) and os.get_inheritable(descriptor):
            with socket.socket(fileno=os.dup(descriptor)) as sock:
                sock.getpeername()  # what only listens has none, which is an error
                return (sock.family, sock.type) == (socket.AF_UNIX, socket.SOCK_STREAM)
    return False
