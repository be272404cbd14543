"""What a worker does beside its program, and how it leaves in the end."""

from __future__ import annotations

import logging
import math
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

import trio

import pyipc
from pyipc.cluster.lifeline import ORPHAN_TIMEOUT
from pyipc.nursery import hidden_nursery

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pyipc.cluster.receiving import Receiving
    from pyipc.cluster.superior import Superior
    from pyipc.cluster.worker import Worker

__all__ = ["LAST_WORDS", "being"]

logger: logging.Logger = logging.getLogger("pyipc.cluster")

#: Seconds that what is said last may take until the primary has read it.
LAST_WORDS: Final = 30.0
# Seconds that it may take to say which connections were not taken.
_LAST_NOTES: Final = 1.0


@asynccontextmanager
async def being(
    worker: Worker,
    primary: Superior,
    messages: pyipc.Client,
    receiving: Receiving,
    orphaned: trio.Event,
) -> AsyncIterator[None]:
    """Do what a worker does beside its program, for the length of a block.

    Args:
        worker: The worker.
        primary: Its primary.
        messages: The client for what programs say, which is closed in the end.
        receiving: What the primary hands over.
        orphaned: Is set when the primary is gone.
    """
    try:
        async with hidden_nursery() as nursery:
            nursery.start_soon(_watch_primary, orphaned, worker)
            await nursery.start(receiving.run)
            async with worker.links.running():
                await primary.online()
                nursery.start_soon(primary.keep_in_touch)
                try:
                    yield
                    if not worker.draining:
                        worker.exited_after_disconnect = True
                    receiving.retire()
                    with suppress(pyipc.ConnectionClosed), trio.move_on_after(_patience(worker)):
                        await worker.leave()
                finally:
                    # However it ends: who waits to be served is for others.
                    receiving.retire()
                    with trio.move_on_after(_LAST_NOTES, shield=True):
                        await receiving.tell_now()
            nursery.cancel_scope.cancel()
    except (SystemExit, KeyboardInterrupt, BaseExceptionGroup):
        # To a client that would be as a cancellation, and it would close at once.
        soon = trio.CancelScope(deadline=trio.current_time() + ORPHAN_TIMEOUT, shield=True)
        with soon, suppress(pyipc.ConnectionClosed):
            await messages.aclose()
        raise
    with suppress(pyipc.ConnectionClosed):
        await messages.aclose()


def _patience(worker: Worker) -> float:
    """Seconds until what the primary's program waits for is cut off."""
    if worker.draining:
        return max(0.0, worker.drain_deadline - trio.current_time())
    return math.inf if worker.default_drain_timeout is None else worker.default_drain_timeout


async def _watch_primary(orphaned: trio.Event, worker: Worker) -> None:
    """When the primary is gone, nobody is left to work for."""
    await orphaned.wait()
    logger.warning("worker %r has lost its primary, and ends", worker.id)
    worker.begin_draining(ORPHAN_TIMEOUT / 2)
