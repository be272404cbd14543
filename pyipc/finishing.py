"""Ending a connection without losing anything: when nothing is under way, and by half, so that the rest can come."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from pyipc.errors import ConnectionLost

if TYPE_CHECKING:
    from pyipc.connection import Connection

__all__ = ["check_hears", "end_of_stream", "end_when_done", "finish", "under_way", "wait_handled", "wait_quiet"]


def under_way(connection: Connection) -> int:
    """How much would be lost if the connection ended now, apart from what its outbox holds.

    Answers that are waited for, and what the peer has sent and is not handled yet. What else takes several frames is
    to be counted here, and is to `Lifecycle._note_quiet` when it ends.
    """
    inbox = connection._inbox
    handlers = connection._dispatcher.handlers_at_work
    unconfirmed = 0 if connection._window is None else connection._window.count(connection)
    streams = 0 if connection._streams is None else len(connection._streams.open)
    asked = len(connection._calls.pending) + streams + unconfirmed
    return asked + handlers + len(inbox.events) + len(inbox.requests) + connection._conversation.is_busy


async def wait_quiet(connection: Connection, besides: int = 0) -> None:
    """Wait until nothing is under way, or the connection has ended. Always a schedule point.

    Args:
        connection: Which.
        besides: So many things may be under way all the same.

    Cancellation: changes nothing.
    """
    await trio.lowlevel.checkpoint()
    while connection._reason is None and under_way(connection) > besides:
        if connection._calls.pending:
            # Whoever has its answer lets the next one make a call, which this is not.
            await connection._calls.wait_for_room()
            connection._calls.pass_on()
        else:
            if connection._quiet is None:
                connection._quiet = trio.lowlevel.ParkingLot()
            await connection._quiet.park()


async def wait_handled(connection: Connection) -> None:
    """Wait until nothing that has arrived is still to be handled, or the connection has ended. Always a schedule point.

    Cancellation: changes nothing.
    """
    await trio.lowlevel.checkpoint()
    while connection._reason is None and (_is_handling(connection) or connection._conversation.is_busy):
        if connection._quiet is None:
            connection._quiet = trio.lowlevel.ParkingLot()
        await connection._quiet.park()


async def finish(connection: Connection) -> bool:
    """Once nothing is under way, tell the peer that nothing more will be sent; what it still sends is handled.

    Returns:
        Whether the link can do that. If not, the connection is as it was.

    Cancellation: changes nothing.
    """
    outbox = connection._outbox
    try:
        while connection._reason is None:
            await wait_quiet(connection)
            await outbox.flush()
            await trio.lowlevel.checkpoint()  # whoever waited for the room that there is now has sent by then
            if not outbox.frames and not under_way(connection):
                connection.is_open = not outbox.finish()
                return not connection.is_open
    except ConnectionLost:
        pass  # its end is still being read
    return True


def end_of_stream(connection: Connection) -> None:
    """The peer will send nothing more.

    That is the end of the connection, unless the peer leaves because this side is being drained: then it has told that
    nothing of its own is under way, and still takes what handlers here have to say.
    """
    if connection._outbox.finished:
        connection._end("finished", "this side had finished sending, and so has the peer", by_peer=False)
    elif _may_still_say(connection):
        connection._hears = False
        if connection._quiet is None:
            connection._quiet = trio.lowlevel.ParkingLot()  # so that it is told when handlers end
        connection._fail_calls("the peer has finished sending", lost=True, maybe_handled=True)
        connection._note_quiet()
    else:
        connection._end("eof", "the peer closed the connection", by_peer=True)


def _may_still_say(connection: Connection) -> bool:
    if not connection._owner.is_draining or connection._conversation.protocol == "plain":
        return False
    return connection.is_open and not connection._closing and _is_handling(connection)


def _is_handling(connection: Connection) -> bool:
    inbox = connection._inbox
    return bool(connection._dispatcher.handlers_at_work or inbox.events or inbox.requests)


def end_when_done(connection: Connection) -> None:
    """End a connection to a peer that has finished sending, unless something that it has sent is being handled."""
    if connection._reason is None and not _is_handling(connection):
        connection._end("eof", "the peer closed the connection", by_peer=True)


def check_hears(connection: Connection) -> None:
    """Refuse to ask a peer that cannot answer any more.

    Raises:
        ConnectionLost: It has finished sending.
    """
    if not connection._hears:
        raise ConnectionLost("the peer is leaving: it has finished sending, and cannot answer")
