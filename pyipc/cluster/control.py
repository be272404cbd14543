"""What a primary and its workers say to each other about themselves, over their control connection.

Nobody else hears it: it is a connection of its own, so no name in here can be one that a program uses.
"""

from __future__ import annotations

from typing import Any, Final

__all__ = [
    "ASKING",
    "DRAIN",
    "FAILED",
    "LEAVE",
    "LINK",
    "LINKED",
    "LISTEN",
    "LISTENING",
    "ONLINE",
    "PULSE",
    "READY",
    "TAKING",
    "UNKNOWN_WORKER",
    "UNLISTEN",
    "WANTED",
    "channel_options",
]

# From a worker. The first three mean what Node's events of these names do, or would.
ONLINE: Final = "online"
LISTENING: Final = "listening"
READY: Final = "ready"
#: It has a handler for messages of a name that was wanted; see `pyipc.cluster.taking`.
TAKING: Final = "taking"
#: Its program asks the primary for something although it is not ready.
ASKING: Final = "asking"
#: How it is; see `pyipc.cluster.pulse`.
PULSE: Final = "pulse"
#: Its program failed, and why, in a line for people.
FAILED: Final = "failed"
#: A request: it has nothing under way of its own, and is going to end. Data: whether it is not to be started again. It
#: is answered when the primary's program waits for nothing any more, and sends nothing any more.
LEAVE: Final = "leave"

#: A request: it is to listen on an address, see `pyipc.cluster.claiming`.
LISTEN: Final = "listen"
#: It listens on an address no more. Data: how that is called.
UNLISTEN: Final = "unlisten"

#: A request: a connection with another worker, see `pyipc.cluster.introducing`.
LINK: Final = "link"
#: It has one end of a connection. Data: the token that came with it.
LINKED: Final = "linked"
#: The code of the answer when there is no such worker; the data is its id, or its role.
UNKNOWN_WORKER: Final = "unknown-worker"

# From the primary.
#: Finish what is under way, and end.
DRAIN: Final = "drain"
#: There is something for its program under a name, and it is to tell when that has a handler for it.
WANTED: Final = "wanted"


def channel_options(max_frame_size: int) -> dict[str, Any]:
    """Options for the connections of a primary with its workers.

    Both ends are processes of one machine, of which the system tells when they end; whether one hangs is judged by its
    pulse, and how long it may take to start by the setting ``ready_timeout``. So there are no heartbeats, nobody is
    given up for being slow, and there is no second connection after the first.

    Args:
        max_frame_size: The largest message, in bytes.
    """
    room = max(8 * 1024 * 1024, 2 * max_frame_size)
    return {
        "heartbeat_interval": None,
        "reconnect": False,
        "offline": "raise",
        "request_timeout": None,
        "confirm_timeout": None,
        "handshake_timeout": None,
        "frame_timeout": None,
        "write_timeout": None,
        "stream_stall_timeout": None,
        "max_frame_size": max_frame_size,
        "max_attachments_size": max_frame_size,
        "max_outbox_size": room,
        "max_inbox_size": room,
        "max_unconfirmed_size": room,
        "max_held_size": max(1024 * 1024 * 1024, 4 * max_frame_size),
    }
