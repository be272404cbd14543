"""From bytes that arrived to what they say; of a large frame a block at a time, with turns for others in between."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from pyipc.finishing import end_of_stream
from pyipc.pace import Pace

if TYPE_CHECKING:
    from pyipc.connection import Connection
    from pyipc.protocol.conversation import Inbound

__all__ = ["digest", "digest_on"]


def digest(connection: Connection, chunk: bytes) -> list[Inbound] | None:
    """What bytes that arrived say; ``None`` where they are the end.

    If they complete a large frame, the conversation is busy with it: then `digest_on` goes on.
    """
    if not chunk and connection._link.reliable:
        end_of_stream(connection)
        connection._reading_ended.set()
        return None
    size = len(chunk)
    connection._bytes_received += size
    if connection._reason is not None or connection._closing:
        return []  # what comes after the end is read only so that the peer can finish in peace
    conversation = connection._conversation
    held = conversation.partial_size
    items = conversation.receive_data(chunk)
    if conversation.has_data_to_send:
        connection._answer(conversation.data_to_send())
    connection._reader.time = connection._now()
    if conversation.partial_size or held:
        size += held - conversation.partial_size
        if conversation.partial_size:
            connection._vigil.watch_frame()
    connection._inbox.read_size = size
    connection._inbox.read = None
    return items


async def digest_on(connection: Connection) -> list[Inbound]:
    """Read on in a large frame, until something can be told. Nothing, if the connection has ended before.

    Nobody waits for the whole of it: there is a schedule point between two blocks, if they took any time to speak of.
    Meanwhile nothing is read from the link, so the peer is not judged by its silence.

    Cancellation: the frame has been read in part.
    """
    conversation, dispatcher = connection._conversation, connection._dispatcher
    items: list[Inbound] = []
    dispatcher.paused = True
    try:
        await trio.lowlevel.checkpoint()
        pace = Pace(connection._now)
        while conversation.is_busy and not items:
            if pace.is_due():
                await trio.lowlevel.checkpoint()
            if connection._reason is not None or connection._closing:
                conversation.give_up()
                break
            held = conversation.partial_size
            items = conversation.go_on()
            connection._inbox.read_size = held - conversation.partial_size
    finally:
        dispatcher.paused = False
        dispatcher.resumed_at = trio.current_time()
    if conversation.has_data_to_send:
        connection._answer(conversation.data_to_send())
    if conversation.partial_size:
        connection._vigil.watch_frame()
    connection._inbox.read = None
    if connection._quiet is not None:
        connection._note_quiet()
    return items
