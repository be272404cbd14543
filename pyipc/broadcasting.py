"""Sending one event to everybody: encoded once, and nobody waits for the slowest."""

from __future__ import annotations

import collections
import contextlib
import logging
from typing import TYPE_CHECKING

import trio

from pyipc.attaching import frozen, send_parcel
from pyipc.connection import Connection
from pyipc.endpoint import Endpoint
from pyipc.errors import ConnectionClosed, LocalProtocolError
from pyipc.identity import AGENT
from pyipc.protocol.conversation import Role
from pyipc.protocol.features import ATTACHMENTS, TOPICS, TracedEvent
from pyipc.protocol.framing import Json
from pyipc.protocol.names import check_event_name
from pyipc.protocol.parcels import NO_ATTACHMENTS, listed, pack
from pyipc.protocol.traces import check_traceparent
from pyipc.rounds import level_of
from pyipc.statistics import BroadcastReport

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from pyipc.attaching import Records
    from pyipc.hosting import Hosting
    from pyipc.options import Options
    from pyipc.protocol.conversation import Conversation
    from pyipc.protocol.features import Published
    from pyipc.protocol.framing import Framing
    from pyipc.protocol.parcels import Buffer, Frame
    from pyipc.transports.port import Link
    from pyipc.watch import Watch

__all__ = ["Audience", "BroadcastServer", "note_unsuited"]

logger: logging.Logger = logging.getLogger("pyipc.server")


class Audience:
    """The connections of a server, and how to tell all of them something.

    Args:
        endpoints: Where the server listens.
        options: Limits and times.
        watch: Knows which span something comes from that was given none, if there is an instrument.

    Attributes:
        broadcasts: Broadcasts made.
        dropped: Copies of them that slow peers did not get.
    """

    def __init__(self, endpoints: Sequence[Endpoint], options: Options, watch: Watch | None = None) -> None:
        self._watch = watch
        self._endpoints = endpoints
        self._options = options
        self._members: dict[Connection, Endpoint] = {}
        # Those over unreliable links, which are looked up for each call to one.
        self._by_link: dict[Link, Connection] = {}
        # How many connections have each: to ask them all for every broadcast would cost as much as sending it.
        self._framings: collections.Counter[Framing] = collections.Counter()
        # Encode what is broadcast, one for each framing.
        self._templates: dict[Framing, Conversation] = {}
        self.broadcasts: int = 0
        self.dropped: int = 0

    def __len__(self) -> int:
        return len(self._members)

    @property
    def connections(self) -> frozenset[Connection]:
        """The connections there are now."""
        return frozenset(self._members)

    def find(self, link: Link) -> Connection | None:
        """The connection over an unreliable link, if there is one."""
        return self._by_link.get(link)

    def join(self, connection: Connection, endpoint: Endpoint) -> None:
        """From now on a connection gets what is broadcast."""
        self._members[connection] = endpoint
        if not connection._link.reliable:
            self._by_link[connection._link] = connection
        self._framings[endpoint.framing] += 1

    def leave(self, connection: Connection) -> None:
        """From now on it does not."""
        endpoint = self._members.pop(connection)
        self._by_link.pop(connection._link, None)
        self._framings[endpoint.framing] -= 1

    def broadcast(
        self,
        event: str,
        data: object,
        exclude: Connection | Collection[Connection] | None,
        where: Callable[[Connection], bool] | None,
        attachments: Iterable[Buffer] = NO_ATTACHMENTS,
        traceparent: str = "",
    ) -> BroadcastReport:
        """Send an event to every connection, without waiting; see `Server.broadcast`.

        Raises:
            LocalProtocolError: The name or the data cannot be sent; nothing was.
        """
        if self._watch is not None and not traceparent:
            traceparent = self._watch.traceparent()
        buffers = [] if attachments is NO_ATTACHMENTS else listed(attachments)
        frames = self._encode(event, data, buffers)
        traced = self._encode_traced(event, data, traceparent, buffers) if traceparent else None
        excluded = (exclude,) if isinstance(exclude, Connection) else exclude or ()
        sent = dropped = 0
        framing: Framing | None = None
        frame: Frame | None = None
        for connection, endpoint in list(self._members.items()):
            if not connection.is_open or connection in excluded or (where is not None and not where(connection)):
                continue
            if not connection._link.verified:  # nobody may make us send to who did not ask for it
                continue
            if endpoint.framing is not framing:  # looked up for each run of connections to one endpoint
                framing = endpoint.framing
                frame = frames.get(framing)
            given = frame
            if traced and TOPICS in connection._conversation.features:
                given = traced.get(framing, frame)
            try:
                if buffers and given is not None:
                    taken = send_parcel(connection, event, given)
                else:
                    taken = given is not None and connection._send_encoded(event, given)
            except ConnectionClosed:
                continue
            except LocalProtocolError as error:
                # What this client cannot take is no reason for the others not to get it.
                note_unsuited(connection, event, error)
                taken = False
            if taken:
                sent += 1
            else:
                dropped += 1
        self.broadcasts += 1
        self.dropped += dropped
        return BroadcastReport(sent, dropped)

    def _encode(self, event: str, data: object, buffers: list[Buffer]) -> dict[Framing, Frame]:
        """The bytes of an event, with its attachments, for every framing that can carry it.

        Raises:
            LocalProtocolError: No framing can.
        """
        check_event_name(event, self._options.max_event_name_size)
        frames: dict[Framing, Frame] = {}
        records = frozen(buffers)
        error: LocalProtocolError | None = None
        for framing in {*(point.framing for point in self._endpoints), *+self._framings} or {Json()}:
            template = self._template(framing)
            try:
                if records and not isinstance(framing, Json):
                    template.check_feature(ATTACHMENTS)
                frame = template.encode(event, data)
                template.check_size(frame)
            except LocalProtocolError as refused:
                error = refused
            else:
                frames[framing] = pack(frame, records) if records else frame
        if error is not None and not frames:
            raise error
        return frames

    def _encode_traced(self, event: str, data: object, traceparent: str, buffers: list[Buffer]) -> dict[Framing, Frame]:
        """The bytes of an event that says which span it comes from, for every framing that can carry that.

        Raises:
            LocalProtocolError: It is no span.
        """
        check_traceparent(traceparent)
        frames: dict[Framing, Frame] = {}
        records = frozen(buffers)
        for framing in +self._framings:
            with contextlib.suppress(LocalProtocolError):  # better without than not at all
                frame = self._template(framing).say(TracedEvent(event, data, traceparent))
                frames[framing] = pack(frame, records) if records else frame
        return frames

    def _template(self, framing: Framing) -> Conversation:
        template = self._templates.get(framing)
        if template is None:
            point = Endpoint("memory:template", framing=framing)
            template = self._templates[framing] = point.converse(Role.SERVER, self._options, agent=AGENT)
        return template

    def publish(self, body: Published, subscribers: Iterable[Connection], records: Records = ()) -> BroadcastReport:
        """Send a frame to those who have subscribed to it, without waiting, as `broadcast` sends an event to all.

        Raises:
            LocalProtocolError: It cannot be sent; nothing was.
        """

        def encode(framing: Framing) -> Frame:
            frame = self._template(framing).say(body)
            return pack(frame, records) if records else frame

        default: Framing = Json()
        # Also where nobody gets it: whether something can be published is not to depend on who listens.
        frames: dict[Framing, Frame] = {default: encode(default)}
        sent = dropped = 0
        framing, frame = default, frames[default]
        for connection in subscribers:
            endpoint = self._members.get(connection)
            if endpoint is None or not connection.is_open:
                continue
            if endpoint.framing is not framing:
                framing = endpoint.framing
                frame = frames.get(framing) or encode(framing)
                frames[framing] = frame
            try:
                taken = send_parcel(connection, None, frame) if records else connection._send_encoded(None, frame)
            except ConnectionClosed:
                continue
            except LocalProtocolError as error:
                note_unsuited(connection, body.topic, error)
                taken = False
            if taken:
                sent += 1
                if connection._watch is not None:
                    connection._watch.sent("published", body.topic, len(frame), connection)
            else:
                dropped += 1
        return BroadcastReport(sent, dropped)


class BroadcastServer:
    """What a server can send to all its clients."""

    _audience: Audience
    # Brings it to other servers, too.
    _hosting: Hosting | None = None

    async def broadcast(
        self,
        event: str,
        data: object = None,
        *,
        attachments: Iterable[Buffer] = NO_ATTACHMENTS,
        exclude: Connection | Collection[Connection] | None = None,
        where: Callable[[Connection], bool] | None = None,
        traceparent: str = "",
    ) -> BroadcastReport:
        """Send an event to every client on every address.

        It is encoded once, and nobody waits for the slowest: a client whose outbox is full is
        closed, or misses this event, as the option ``slow_peer`` says.

        Args:
            event: The name.
            data: Anything that has a JSON form.
            attachments: Buffers of bytes; see `Connection.emit`. Clients that take none do not get the event, which is
                logged, and they count as those for which it was dropped.
            exclude: Connections that do not get it.
            where: Only connections for which this is true get it.
            traceparent: As for `Connection.emit`.

        Returns:
            To how many it was sent, and for how many it was dropped.

        Raises:
            LocalProtocolError: The name, the data or the attachments cannot be sent; nothing was.

        Cancellation: a cancelled broadcast has sent nothing. Always a schedule point.
        """
        await trio.lowlevel.checkpoint()
        return self.broadcast_nowait(
            event, data, attachments=attachments, exclude=exclude, where=where, traceparent=traceparent
        )

    def broadcast_nowait(
        self,
        event: str,
        data: object = None,
        *,
        attachments: Iterable[Buffer] = NO_ATTACHMENTS,
        exclude: Connection | Collection[Connection] | None = None,
        where: Callable[[Connection], bool] | None = None,
        traceparent: str = "",
    ) -> BroadcastReport:
        """Like `broadcast`, for plain functions: without giving way to other tasks.

        Raises:
            LocalProtocolError: The name or the data cannot be sent; nothing was.
        """
        if self._hosting is None or where is not None:
            return self._audience.broadcast(event, data, exclude, where, attachments, traceparent)
        buffers = listed(attachments)
        report = self._audience.broadcast(event, data, exclude, None, buffers, traceparent)
        self._hosting.broadcast(event, data, buffers, traceparent)
        return report

    def hand_in_broadcast(
        self, event: str, data: object, *, attachments: Iterable[Buffer] = NO_ATTACHMENTS, traceparent: str = ""
    ) -> BroadcastReport:
        """Send an event to every client that another server has broadcast: for the `Host` of both.

        Like `broadcast_nowait`, except that the host is not told of it again.

        Args:
            event: The name.
            data: Anything that has a JSON form.
            attachments: Buffers of bytes.
            traceparent: As for `Connection.emit`.

        Raises:
            LocalProtocolError: The name or the data cannot be sent; nothing was.
        """
        return self._audience.broadcast(event, data, None, None, attachments, traceparent)


def note_unsuited(connection: Connection, name: str, error: LocalProtocolError) -> None:
    """A peer does not get what is sent to many, since it takes no such thing.

    What it takes is its own choice, and so is what it subscribes to: with a line a message it would fill the log.
    """
    connection._dropped += 1
    logger.log(level_of(connection._dropped), "%s does not get %r: %s", connection.peer.address, name, error)
