"""Being the worker, or the child, of a Node program, for the length of a block."""

from __future__ import annotations

import os
import socket
from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Final

import trio

import pyipc
from pyipc.cluster import control
from pyipc.cluster.being import LAST_WORDS, being
from pyipc.cluster.channels import given_endpoint
from pyipc.cluster.environment import Invitation
from pyipc.cluster.errors import ClusterError
from pyipc.cluster.exchange import Membership
from pyipc.cluster.hosting import WorkerHost
from pyipc.cluster.node.orphan import no_orphan
from pyipc.cluster.node.parent import NodeParent
from pyipc.cluster.node.primary import NodePrimary
from pyipc.cluster.node.worker import NodeWorker, NoLinks
from pyipc.cluster.receiving import Receiving
from pyipc.nursery import hidden_nursery

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pyipc.cluster.node.invited import NodeInvitation

__all__ = ["join_node"]

# How a channel ends of which nothing was wrong.
_USUAL_ENDS: Final = ("eof", "lost", "closed", "finished")


@asynccontextmanager
async def join_node(told: NodeInvitation, router: pyipc.Router | None) -> AsyncIterator[NodeWorker]:
    """Be what Node has started this process as.

    Args:
        told: What it has told this process.
        router: Handlers for what comes from the primary; more can be added with `Worker.on`.

    Yields:
        The worker.

    Raises:
        ClusterError: The channel cannot be spoken; or, in the end, something in it could not be, and has ended it.

    Cancellation: ends at once.
    """
    if told.obstacle:
        raise ClusterError(told.obstacle)
    invited = Invitation(id=told.id or str(os.getpid()))
    options = _options(invited)
    messages_router = pyipc.Router()
    if router is not None:
        messages_router.include(router)
    sock = socket.socket(fileno=told.descriptor)
    orphaned = trio.Event()

    def dismissed() -> None:
        worker.begin_draining(worker.default_drain_timeout)

    primary = (
        NodePrimary(sock, invited.max_frame_size, dismissed)
        if told.is_worker
        else NodeParent(sock, invited.max_frame_size)
    )

    faults: list[str] = []

    def lost(ended: pyipc.Disconnected) -> None:
        if ended.code not in _USUAL_ENDS:
            faults.append(f"the channel to {primary.name} was closed: {ended.message}")
        primary.lost()
        # A worker without its primary ends, as in Node. To a child it is all that Node can say to have it finish.
        orphaned.set() if told.is_worker else dismissed()

    from_primary: set[pyipc.Connection] = set()
    receiving = Receiving(primary.mailbox)
    host = WorkerHost(primary, receiving, Membership(None, options), lambda: worker.can_serve())
    async with hidden_nursery() as nursery:
        nursery.start_soon(primary.channel.run)
        try:
            # What handlers of messages start is hosted as well: they run in the tasks of the client.
            with pyipc.hosted_by(host), no_orphan(sock) if told.is_worker else nullcontext():
                async with pyipc.connect(
                    given_endpoint("messages", primary.link, hello=False),
                    router=messages_router,
                    on_connect=from_primary.add,
                    **options,
                ) as messages:
                    worker = NodeWorker(
                        invited,
                        primary,
                        messages,
                        messages_router,
                        NoLinks(),
                        host,
                        from_primary,
                        let_come=primary.link.settle,
                    )
                    messages.on_disconnect(lost)
                    if isinstance(primary, NodePrimary):
                        receiving.when_retired(primary.retire)
                    primary.link.begin(worker.want)
                    async with being(worker, primary, messages, receiving, orphaned):
                        yield worker
        finally:
            primary.mailbox.close()
            primary.channel.close()
        nursery.cancel_scope.cancel()
    if faults:
        raise ClusterError(faults[0])  # else this process would end as if all were well


def _options(invited: Invitation) -> dict[str, Any]:
    """Options for the client of a Node program.

    That program may know nothing of requests, and would not even say so: so they have a time-out, as elsewhere. Names
    of events go within messages, where none is harmful to Node. What it says and cannot be read is left out.
    """
    options = control.channel_options(invited.max_frame_size)
    del options["request_timeout"]
    return options | {"unsafe_names": True, "malformed": "skip", "close_timeout": LAST_WORDS}
