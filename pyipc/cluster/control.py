"""What a primary and its workers say to each other about themselves, over their control connection.

Nobody else hears it: it is a connection of its own, so no name in here can be one that a program uses.
"""

from __future__ import annotations

from typing import Any, Final

__all__ = [
    "DRAIN",
    "FAILED",
    "LEAVE",
    "LISTEN",
    "LISTENING",
    "ONLINE",
    "PULSE",
    "READY",
    "TAKING",
    "UNLISTEN",
    "channel_options",
]

# From a worker. The first three mean what Node's events of these names do, or would.
ONLINE: Final = "online"
LISTENING: Final = "listening"
READY: Final = "ready"
#: It listens to messages; what comes before would find no handler.
TAKING: Final = "taking"
#: How it is; see `pyipc.cluster.pulse`.
PULSE: Final = "pulse"
#: Its program failed, and why, in a line for people.
FAILED: Final = "failed"
#: A request: it has nothing under way of its own, and is going to end. Data: whether it is not to be started again. It
#: is answered when the primary's program waits for nothing any more, with how many events and requests were sent.
LEAVE: Final = "leave"

#: A request: it is to listen on an address, see `pyipc.cluster.claiming`.
LISTEN: Final = "listen"
#: It listens on an address no more. Data: how that is called.
UNLISTEN: Final = "unlisten"

# From the primary.
#: Finish what is under way, and end.
DRAIN: Final = "drain"


def channel_options(max_frame_size: int) -> dict[str, Any]:
    """Options for the connections of a primary with its workers.

    Both ends are processes of one machine, of which the system tells when they end; whether one hangs is judged by its
    pulse. So there are no heartbeats, and no second connection after the first.

    Args:
        max_frame_size: The largest message, in bytes.
    """
    return {
        "heartbeat_interval": None,
        "handshake_timeout": None,  # a process may take long to start, which `ready_timeout` is for
        "reconnect": False,
        "offline": "raise",
        "request_timeout": None,
        "max_frame_size": max_frame_size,
        "max_outbox_size": max(8 * 1024 * 1024, 2 * max_frame_size),
        "max_inbox_size": max(8 * 1024 * 1024, 2 * max_frame_size),
        "max_held_size": max(1024 * 1024 * 1024, 4 * max_frame_size),
        "write_timeout": None,
    }
