"""One connection: what a program can say to its peer, and what it can know about it.

Both sides use this class. How it lives and ends is in `pyipc.lifecycle`, what it can ask for in `pyipc.asking`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from pyipc.asking import Asking
from pyipc.attaching import AttachmentTally, emit_attached, emit_attached_nowait
from pyipc.confirming import confirm as confirm_event
from pyipc.errors import InvalidEventName
from pyipc.options import UNSET, Unset
from pyipc.protocol.features import TOPICS
from pyipc.protocol.parcels import NO_ATTACHMENTS, listed
from pyipc.protocol.traces import check_traceparent
from pyipc.statistics import ConnectionStatistics

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyipc.protocol.parcels import Buffer, Frame

__all__ = ["Connection"]


class Connection(Asking):
    """A connection to one peer. Made by servers and clients, which hand it to handlers."""

    __slots__ = ()

    def statistics(self) -> ConnectionStatistics:
        """A snapshot of the counters."""
        attached = self._attachments or AttachmentTally()
        asked, served = self._streams, self._responder.producers
        return ConnectionStatistics(
            bytes_sent=self._outbox.bytes_sent,
            bytes_received=self._bytes_received,
            events_sent=self._events_sent,
            events_received=self._dispatcher.received + self._responder.received,
            unheard=self._dispatcher.unheard,
            handler_errors=self._dispatcher.failed + self._responder.failed + (0 if served is None else served.failed),
            refusals=self._dispatcher.refused + self._responder.refused + (0 if served is None else served.refused),
            malformed=self._malformed,
            dropped=self._dropped + self._link.dropped,
            late_answers=self._calls.late_answers,
            attachments_sent=attached.sent,
            attachments_sent_size=attached.sent_size,
            attachments_received=attached.received,
            attachments_received_size=attached.received_size,
            outbox_size=self._outbox.size,
            inbox_size=self._inbox.size,
            pending_requests=len(self._calls.pending),
            concurrent_requests=self._responder.slots_used,
            streams_asked=0 if asked is None else asked.asked,
            streams_served=0 if served is None else served.served,
            open_streams=self._open_streams,
            items_sent=0 if served is None else served.sent,
            items_received=0 if asked is None else asked.received,
            reading_paused=self._dispatcher.paused,
        )

    @property
    def _open_streams(self) -> int:
        """How many streams are under way, of either side."""
        asked, served = self._streams, self._responder.producers
        return (0 if asked is None else len(asked.open)) + (0 if served is None else len(served))

    # --- sending ---

    async def emit(
        self,
        event: str,
        data: object = None,
        *,
        attachments: Iterable[Buffer] = NO_ATTACHMENTS,
        confirm: bool = False,
        timeout: float | Unset | None = UNSET,
        traceparent: str = "",
    ) -> None:
        """Send an event; nobody answers.

        Returns when the message is in the outbox, which is at once unless the outbox is above its
        high-water mark. Messages arrive in the order in which they were emitted. Over UDP nothing waits: above the
        high-water mark the event is dropped, which is counted, and so is any that gets lost on this side.

        Args:
            event: Its name.
            data: Anything that has a JSON form; bytes on a raw connection.
            attachments: Buffers of bytes that go beside the data as they are, to a pyipc peer. `bytes` are not copied;
                of what could change meanwhile a copy is made.
            confirm: Wait until the peer has handled it. Not to be used by a handler of this connection's events,
                nor by tasks in its nurseries.
            timeout: With ``confirm``: seconds to wait; ``None`` for ever; by default the option ``confirm_timeout``.
            traceparent: Which span of a trace it comes from, as W3C Trace Context writes it. It goes without to a peer
                that has not introduced itself (yet), and over UDP.

        Raises:
            LocalProtocolError: The name, the data or the attachments cannot be sent; nothing was. `PeerLacksFeature`:
                the peer takes no attachments, or did not say within ``handshake_timeout`` that it does.
            ConnectionClosed: The connection is closed, or lost; nothing was sent.
            PeerLacksFeature: With ``confirm``: the peer cannot confirm, or nobody can over this transport.
            RequestError: With ``confirm``: it was not handled, or a handler failed; as for `request`.
            Unconfirmed: With ``confirm``: its outcome is not known, and ``maybe_handled`` says what is.
            ConnectionLost: With ``confirm``: likewise, as the connection broke. (A client tries again first.)

        Cancellation: a cancelled emit has sent nothing, unless it was waiting to be confirmed: then the event may be
        handled all the same. Always a cancellation point, but a schedule point only once per high-water mark
        (64 KiB), and with ``confirm``: giving way to the scheduler costs ten times what a message does.
        """
        if confirm:
            await confirm_event(self, event, data, timeout, listed(attachments), traceparent)
            return
        await trio.lowlevel.checkpoint_if_cancelled()
        if attachments is not NO_ATTACHMENTS and (buffers := listed(attachments)):
            await emit_attached(self, event, data, buffers, traceparent)
            return
        is_traced = traceparent != "" and self._carries(traceparent)
        if not is_traced and self._emit_at_once(event, data):
            return
        if self._conversation.is_risky(event):
            await self.know_peer()
        if is_traced:
            frame = self._conversation.traced_event(event, data, traceparent)
        else:
            frame = self._conversation.event(event, data)
        outbox = self._outbox
        if outbox.size + outbox.shared >= outbox.high_water_size:
            if self._link.reliable:
                # Reading goes on meanwhile: two sides whose handlers both wait here would wait for ever.
                with self.waiting_for_peer():
                    await outbox.wait_for_room()
            elif not await outbox.make_room():
                self._dropped += 1  # where any of it may be lost, nobody waits
                return
            if not self.is_open:
                raise self._gone()
        outbox.push(frame)
        self._events_sent += 1
        if self._watch is not None:
            self._watch.sent("event", event, len(frame), self)

    def _carries(self, traceparent: str) -> bool:
        """Whether an event to this peer can say which span it comes from.

        Raises:
            LocalProtocolError: It is no span.
            ConnectionClosed: The connection is closed, or lost.
        """
        check_traceparent(traceparent)
        if not self.is_open:
            raise self._gone()
        return TOPICS in self._conversation.features

    def _emit_at_once(self, event: str, data: object) -> bool:
        """Send an event if that needs no waiting at all; say whether it was sent.

        Raises:
            LocalProtocolError, ConnectionClosed: As `emit`.
        """
        if not self.is_open:
            raise self._gone()
        outbox = self._outbox
        if outbox.size + outbox.shared >= outbox.high_water_size:
            return False
        try:
            frame = self._conversation.event(event, data)
        except InvalidEventName:
            if self._conversation.awaits_welcome and self._conversation.is_risky(event):
                return False  # it may still turn out that this peer can take it
            raise
        if not frame and self._has_no_room_for_nothing():
            self._dropped += 1
            return True
        if outbox.corked:
            outbox.push_share(frame)
        elif outbox.frames:
            outbox.frames.append(frame)
            outbox.size += len(frame)
        else:
            outbox.push(frame)
        self._events_sent += 1
        return True

    def emit_nowait(
        self,
        event: str,
        data: object = None,
        *,
        attachments: Iterable[Buffer] = NO_ATTACHMENTS,
        traceparent: str = "",
    ) -> None:
        """Send an event if that is possible without waiting. Takes what `emit` takes.

        Args:
            event: Its name.
            data: Anything that has a JSON form; bytes on a raw connection.
            attachments: Buffers of bytes; see `emit`.

        Raises:
            trio.WouldBlock: The outbox is above its high-water mark, or there are attachments and it is not known yet
                whether the peer takes any; nothing was sent.
            LocalProtocolError: The name, the data or the attachments cannot be sent; nothing was.
            ConnectionClosed: The connection is closed, or lost; nothing was sent.
        """
        if attachments is not NO_ATTACHMENTS and (buffers := listed(attachments)):
            emit_attached_nowait(self, event, data, buffers, traceparent)
            return
        if not self.is_open:
            raise self._gone()
        if traceparent != "" and self._carries(traceparent):
            frame = self._conversation.traced_event(event, data, traceparent)
        else:
            frame = self._conversation.event(event, data)
        if self._outbox.size >= self._outbox.high_water_size or (not frame and self._has_no_room_for_nothing()):
            raise trio.WouldBlock
        self._outbox.push(frame)
        self._events_sent += 1
        if self._watch is not None:
            self._watch.sent("event", event, len(frame), self)

    def encode(self, event: str, data: object) -> bytes:
        """The bytes of an event for every peer with this framing; see `_send_encoded`."""
        return self._conversation.encode(event, data)

    def _send_encoded(self, event: str | None, frame: Frame) -> bool:
        """Send bytes from `encode` without waiting, up to the outbox's cap.

        Args:
            event: The event's name; ``None`` for bytes from `Conversation.say`, whose names suit every peer.
            frame: The bytes.

        Returns:
            Whether they were queued. If not, the peer is too slow, and has been dealt with as the
            option ``slow_peer`` says.

        Raises:
            LocalProtocolError: The name or size does not suit this peer; nothing was sent.
            ConnectionClosed: The connection is closed, or lost; nothing was sent.
        """
        if not self.is_open:
            raise self._gone()
        conversation = self._conversation
        if event is None:
            conversation.check_size(frame)
        elif event not in conversation.known_names or len(frame) > conversation.known_size:
            conversation.check(event, frame)
            if not frame and self._has_no_room_for_nothing():
                self._dropped += 1
                return False
        outbox = self._outbox
        if not outbox.frames:
            outbox.push_later(frame)  # which takes any frame when it is empty, as `offer` does
        elif outbox.size + len(frame) <= outbox.max_size or outbox.takes_whole(frame):
            outbox.frames.append(frame)
            outbox.size += len(frame)
            outbox.common += len(frame)
        else:
            self._dropped += 1
            if self._options.slow_peer == "close" and self._link.reliable:
                self.abort("slow", f"the peer read too slowly: {outbox.size:,} bytes wait for it (max_outbox_size)")
            return False
        self._events_sent += 1
        return True

    def _has_no_room_for_nothing(self) -> bool:
        """Whether a datagram without bytes would have to wait: of what weighs nothing any number would find room."""
        if self._link.reliable or not self._outbox.frames:
            return False
        self._outbox.flush_nowait()
        return len(self._outbox.frames) > 0

    async def flush(self) -> None:
        """Wait until everything sent so far is with the operating system.

        Over UDP what a peer may not be sent yet, since nobody knows whether it is there, is not waited for.

        Raises:
            ConnectionClosed: The connection is closed, or lost; something may not have been sent.

        Cancellation: nothing is unsent by it.
        """
        if not self.is_open:
            await trio.lowlevel.checkpoint()
            raise self._gone()
        with self.waiting_for_peer():
            await self._outbox.flush()
