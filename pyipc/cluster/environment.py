"""What a worker process is told by its environment: who it is, and where its primary is.

It is read once and taken out of the environment, so that programs which a worker starts do not take themselves for
workers.
"""

from __future__ import annotations

import dataclasses
import json
import os
from typing import TYPE_CHECKING, Any, Final

from pyipc.cluster.errors import ClusterError
from pyipc.cluster.node.invited import node_invitation

if TYPE_CHECKING:
    from collections.abc import MutableMapping, Sequence

__all__ = ["VARIABLE", "Invitation", "invitation", "is_worker", "take_invitation"]

#: The variable that makes a process a worker.
VARIABLE: Final = "PYIPC_WORKER"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """What a primary tells a process that it starts.

    Attributes:
        id: Of the worker.
        role: Of the worker; may be empty.
        generation: How many processes this worker has had, this one included.
        heartbeat_interval: How often the primary wants to hear of it, in seconds.
        drain_timeout: How long it may take to leave, in seconds, where nobody says otherwise.
        wait_ready: Whether it is ready only when it says so.
        max_frame_size: The largest message between it and its primary, in bytes.
        paths: Where it looks first for the module of the function that it runs.
        control: Descriptor of the connection by which the primary rules it; -1 on Windows, as are the others.
        messages: Descriptor of the connection for what programs say to each other.
        courier: Descriptor of the socket by which it is given other sockets.
        lifeline: Descriptor of a pipe that ends with its primary.
        pipe: On Windows: the name of the pipe at which the primary waits for it.
        token: On Windows: what it says there, to show that it is the one.
    """

    id: str
    role: str = ""
    generation: int = 1
    heartbeat_interval: float = 1.0
    drain_timeout: float | None = 30.0
    wait_ready: bool = False
    max_frame_size: int = 64 * 1024 * 1024
    paths: Sequence[str] = dataclasses.field(default_factory=list)
    control: int = -1
    messages: int = -1
    courier: int = -1
    lifeline: int = -1
    pipe: str = ""
    token: str = ""

    def __str__(self) -> str:
        """The value of the environment variable."""
        return json.dumps(dataclasses.asdict(self), separators=(",", ":"))

    def __repr__(self) -> str:
        return f"<Invitation for worker {self.id!r}>"  # the token is nobody's business


_taken: Invitation | None = None


def take_invitation(environment: MutableMapping[str, str] = os.environ) -> Invitation | None:
    """Read what the environment says, and take it out of there.

    Returns:
        ``None`` if this process is not a worker.

    Raises:
        ClusterError: It was not written by a primary.
    """
    text = environment.get(VARIABLE)
    if text is None:
        return None
    try:
        values: Any = json.loads(text)
        invited = Invitation(**values)
    except (ValueError, TypeError) as error:
        raise ClusterError(
            f"the environment variable {VARIABLE} is for processes that a pyipc cluster starts, and does not say what "
            f"such a one would be told ({error}); unset it"
        ) from error
    # One that cannot be read stays, so that this process is not taken for a primary when it asks again.
    del environment[VARIABLE]
    return invited


def invitation() -> Invitation | None:
    """What this process was told; the same each time. ``None`` if it is not a worker."""
    global _taken  # there is one environment of a process, and it is read once
    if _taken is None:
        _taken = take_invitation()
    return _taken


def is_worker() -> bool:
    """Whether this process was started by a cluster, as a worker of it; be it Node's."""
    if invitation() is not None:
        return True
    told = node_invitation()
    return told is not None and told.is_worker
