"""Starting a worker process on Windows, where it inherits nothing of its primary's but standard output.

It is told the name of a pipe that is made for it, and dials; see `pyipc.cluster.dialing`. A job object ends it with its
primary.
"""

from __future__ import annotations

import dataclasses
import logging
import secrets
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

import pyipc
from pyipc.cluster.courier_windows import LinkCourier, LinkMailbox
from pyipc.cluster.dialing import Channel, Introduced, Reception
from pyipc.cluster.errors import ClusterError
from pyipc.cluster.spawning import Spawned, process_options, worker_environment
from pyipc.cluster.target import command_line
from pyipc.cluster.windows import Job
from pyipc.transports import transport_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pyipc.cluster.dialing import Adopt
    from pyipc.cluster.environment import Invitation
    from pyipc.cluster.settings import Settings
    from pyipc.transports import Link

__all__ = ["primary_links_on_windows", "spawn_on_windows"]

logger: logging.Logger = logging.getLogger("pyipc.cluster")


async def spawn_on_windows(invitation: Invitation, settings: Settings) -> Spawned:
    """Start a worker process; see `pyipc.cluster.spawning.spawn`.

    Raises:
        ClusterError: What it is to run cannot be started again, or is not there.
        ListenError: It cannot be waited for.
        OSError: The system starts no process.

    Cancellation: a process that was started is killed.
    """
    if settings.uid is not None or settings.gid is not None:
        raise ClusterError("on Windows a worker runs as the user of its primary; leave out uid and gid")
    command = command_line(settings)
    address = pyipc.parse_address(f"pipe:pyipc-{secrets.token_hex(16)}")
    job = Job()
    try:
        # It is there before the process is, so nobody else can have it.
        listener = await transport_for("pipe").listen(address, {})
        reception = Reception(listener)
        try:
            process = await trio.lowlevel.open_process(
                command,
                env=worker_environment(
                    settings, dataclasses.replace(invitation, pipe=address.name, token=reception.token)
                ),
                **process_options(settings),
            )
        except BaseException:
            await listener.aclose()
            raise
    except BaseException:
        job.close()
        raise
    try:
        job.add(process.pid)
    except OSError as error:
        if process.returncode is None:
            logger.warning("worker %r may outlive its primary: Windows ties it to no job (%s)", invitation.id, error)
    courier = LinkCourier()

    async def run(adopt: Adopt) -> None:
        def sort(channel: Channel, link: Link) -> None:
            courier.attach(link) if channel is Channel.COURIER else adopt(channel, link)

        await reception.receive(sort)
        await courier.run()

    async def release() -> None:
        job.close()
        await courier.aclose()

    return Spawned(process, run, courier, release)


@asynccontextmanager
async def primary_links_on_windows(
    invited: Invitation,
) -> AsyncIterator[tuple[pyipc.Endpoint, pyipc.Endpoint, LinkMailbox]]:
    """Where a worker reaches its primary: for what rules it, and for messages; and where it is handed sockets.

    Args:
        invited: What the primary told it.

    Raises:
        ConnectError: The primary is gone.
    """
    pipe = transport_for("pipe")
    control, messages, courier = (Introduced(pipe, channel, invited.token) for channel in Channel)
    address = f"pipe:{invited.pipe}"
    mailbox = LinkMailbox(await courier.connect(pyipc.parse_address(address), {}))
    try:
        yield pyipc.Endpoint(address, transport=control), pyipc.Endpoint(address, transport=messages), mailbox
    finally:
        await mailbox.aclose()
