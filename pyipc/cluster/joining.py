"""Being a worker: for the length of a block, or as a whole program."""

from __future__ import annotations

import os
import signal
import socket
import sys
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import trio

import pyipc
from pyipc.cluster import control
from pyipc.cluster.being import LAST_WORDS, being
from pyipc.cluster.channels import given_endpoint, socket_link
from pyipc.cluster.courier import SocketMailbox
from pyipc.cluster.environment import invitation
from pyipc.cluster.errors import ClusterError
from pyipc.cluster.exchange import Membership
from pyipc.cluster.hosting import WorkerHost
from pyipc.cluster.lifeline import watch_lifeline
from pyipc.cluster.linking import Linking
from pyipc.cluster.node.invited import node_invitation
from pyipc.cluster.node.joining import join_node
from pyipc.cluster.receiving import Receiving
from pyipc.cluster.superior import ControllingPrimary
from pyipc.cluster.worker import Worker
from pyipc.nursery import hidden_nursery

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from pyipc.cluster.courier import Mailbox
    from pyipc.cluster.environment import Invitation

__all__ = ["ignore_terminal", "join", "run_worker"]

_joined = False


@asynccontextmanager
async def join(*, router: pyipc.Router | None = None) -> AsyncIterator[Worker]:
    """Be the worker that this process was started as, for the length of an ``async with`` block.

    Leaving the block sends what is queued for the primary, and tells it that the end was meant.

    Args:
        router: Handlers for what comes from the primary and from other workers; more can be added with `Worker.on`.

    Yields:
        The worker.

    Raises:
        ClusterError: This process was not started by a cluster, or has joined already.
        ConnectError: The primary is gone.

    Cancellation: ends at once.
    """
    global _joined  # what ties a process to its primary is there once
    invited = invitation()
    told = node_invitation()
    if invited is None and told is None:
        raise ClusterError(
            "this process is no worker: no cluster has started it. Start it with cluster.Cluster(...) or `pyipc run`, "
            "or ask cluster.is_primary first"
        )
    if _joined:
        raise ClusterError("this process has joined its cluster already, and can do so once")
    _joined = True
    if invited is not None:
        joined: AbstractAsyncContextManager[Worker] = _join_cluster(invited, router)
    else:
        assert told is not None
        joined = join_node(told, router)
    async with joined as worker:
        yield worker


@asynccontextmanager
async def _join_cluster(invited: Invitation, router: pyipc.Router | None) -> AsyncIterator[Worker]:
    """Be a worker of a pyipc primary, for the length of a block."""
    messages_router = pyipc.Router()
    if router is not None:
        messages_router.include(router)
    options = channel_options_of(invited)
    orphaned = trio.Event()
    token = trio.lowlevel.current_trio_token()

    def lost() -> None:
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(orphaned.set)

    control_router = pyipc.Router()
    from_primary: set[pyipc.Connection] = set()
    async with (
        primary_links(invited, lost) as (control_endpoint, messages_endpoint, mailbox),
        pyipc.connect(control_endpoint, router=control_router, **options) as control_client,
    ):
        receiving = Receiving(mailbox, other=lambda header, carrier: links.take(header, carrier))
        links = Linking(control_client, messages_router, options)
        primary = ControllingPrimary(control_client, invited.heartbeat_interval)
        host = WorkerHost(primary, receiving, Membership(links, options), lambda: worker.can_serve())
        # What handlers of messages start is hosted as well: they run in the tasks of the client.
        with pyipc.hosted_by(host):
            async with pyipc.connect(
                messages_endpoint,
                router=messages_router,
                on_connect=from_primary.add,
                on_disconnect=lambda ended: orphaned.set(),
                **options | {"close_timeout": LAST_WORDS},
            ) as messages:
                worker = Worker(invited, primary, messages, messages_router, links, host, from_primary)
                control_router.on(control.WANTED, lambda message: worker.want(message.data))
                control_client.on_disconnect(lambda ended: orphaned.set())
                control_router.on(control.DRAIN, lambda message: worker.begin_draining(message.data["timeout"]))
                async with being(worker, primary, messages, receiving, orphaned):
                    yield worker


def channel_options_of(invited: Invitation) -> dict[str, Any]:
    """Options for the clients of a worker."""
    return control.channel_options(invited.max_frame_size)


@asynccontextmanager
async def primary_links(
    invited: Invitation, lost: Callable[[], None]
) -> AsyncIterator[tuple[pyipc.Endpoint, pyipc.Endpoint, Mailbox]]:
    """Where the primary can be reached: for what it rules, and for messages; and where it hands over sockets.

    Args:
        invited: What the primary told.
        lost: Called, by another thread, when the primary is gone. On Windows that ends this process by itself.
    """
    if sys.platform == "win32":
        from pyipc.cluster.spawning_windows import primary_links_on_windows

        async with primary_links_on_windows(invited) as links_on_windows:
            yield links_on_windows
        return
    for descriptor in (invited.control, invited.messages, invited.courier, invited.lifeline):
        os.set_inheritable(descriptor, False)  # they are for this process alone, and not for what it starts
    watch_lifeline(invited.lifeline, lost)
    links = [
        socket_link(socket.socket(fileno=descriptor), "primary") for descriptor in (invited.control, invited.messages)
    ]
    mailbox = SocketMailbox(socket.socket(fileno=invited.courier))
    try:
        yield given_endpoint("control", links[0]), given_endpoint("messages", links[1]), mailbox
    finally:
        mailbox.close()


def run_worker(main: Callable[[Worker], Awaitable[object]], *, router: pyipc.Router | None = None) -> None:
    """Be the worker that this process was started as: run a program until it returns, or is to leave.

    SIGTERM lets it finish what is under way, a second one ends it at once; what a terminal sends to all processes, when
    somebody presses Ctrl and C or closes it, is left to the primary.

    Args:
        main: An async function that takes the `Worker`. When the worker is to leave and nothing is under way, it is
            cancelled. When it returns, the worker leaves for good.
        router: Handlers for what comes from the primary and from other workers.

    Raises:
        ClusterError: This process was not started by a cluster.
    """
    # Process managers that are Node programs stop what they have started by SIGINT.
    node_asks_by_sigint = invitation() is None and node_invitation() is not None
    if not node_asks_by_sigint:
        ignore_terminal()
    trio.run(_work, main, router, [signal.SIGTERM, *([signal.SIGINT] if node_asks_by_sigint else [])])


def ignore_terminal() -> None:
    """Leave to the primary what a terminal sends to all processes at once.

    With a handler, that is, which what this process starts does not inherit; unless it was ignored before, as by nohup.
    """
    for name in ("SIGINT", "SIGHUP", "SIGBREAK"):  # each system has two of them
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _do_nothing)


def _do_nothing(number: int, frame: object) -> None:
    """Handle a signal that is for the primary."""


async def _work(
    main: Callable[[Worker], Awaitable[object]], router: pyipc.Router | None, asked_by: Sequence[signal.Signals]
) -> None:
    async with join(router=router) as worker, hidden_nursery() as nursery:
        await nursery.start(_handle_signals, worker, asked_by)
        try:
            with trio.CancelScope() as scope:
                nursery.start_soon(_cancel_when_done, worker, scope)
                await main(worker)
        except Exception as error:
            with suppress(pyipc.IPCError):
                await worker.tell_failure(error)
            raise


async def _cancel_when_done(worker: Worker, scope: trio.CancelScope) -> None:
    await worker.drain()
    if worker.is_run:
        scope.deadline = worker.drain_deadline  # it goes on behind `Worker.run`, to end by itself
    else:
        scope.cancel()


async def _handle_signals(
    worker: Worker,
    asked_by: Sequence[signal.Signals],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    with trio.open_signal_receiver(*asked_by) as signals:
        task_status.started()
        async for _ in signals:
            worker.begin_draining(0 if worker.draining else worker.default_drain_timeout)
