"""Sending an event to many workers, and to the processes that are about to take the places of theirs."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import trio

import pyipc

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyipc.cluster.keeper import Keeper
    from pyipc.cluster.process import WorkerProcess

__all__ = ["broadcast"]


async def broadcast(
    keepers: Sequence[Keeper], event: str, data: object, attachments: Sequence[Any]
) -> pyipc.BroadcastReport:
    """Send an event to workers.

    Args:
        keepers: Those of the workers.
        event: The name.
        data: The data.
        attachments: What goes with it.

    Returns:
        To how many workers it was sent, and how many ended before. New processes of theirs do not count.

    Raises:
        LocalProtocolError: The event cannot be sent; nothing was.

    Cancellation: it may have been sent to some.
    """
    lost = 0
    errors: list[pyipc.LocalProtocolError] = []

    async def send(keeper: Keeper) -> None:
        nonlocal lost
        # Whichever takes the place of the other meanwhile, each gets it once: both are chosen in the same step.
        if keeper.successor_process is not None:
            nursery.start_soon(send_to, keeper.successor_process)
        try:
            await keeper.handle.emit(event, data, attachments=attachments)
        except pyipc.ConnectionClosed:
            lost += 1
        except pyipc.LocalProtocolError as error:
            errors.append(error)  # as it will be for all of them

    async def send_to(process: WorkerProcess) -> None:
        with contextlib.suppress(pyipc.ConnectionClosed, pyipc.LocalProtocolError):
            await process.taking.wait(event)
            if process.messages is not None and not process.is_closed:
                with process.waited_for():
                    await process.messages.emit(event, data, attachments=attachments)

    for keeper in keepers:
        for process in (keeper.handle.current, keeper.successor_process):
            if process is not None:
                process.check_sendable(event, data, attachments)
    async with trio.open_nursery() as nursery:
        for keeper in keepers:
            nursery.start_soon(send, keeper)
    if errors:
        raise errors[0]
    return pyipc.BroadcastReport(len(keepers) - lost, lost)
