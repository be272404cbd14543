"""One process of a Node worker, as its primary sees it."""

from __future__ import annotations

import contextlib
import logging
import math
from typing import TYPE_CHECKING, Any, Final

import trio

import pyipc
from pyipc.cluster.node.lines import Message, is_internal
from pyipc.cluster.node.listening import NodeListening, address_of
from pyipc.cluster.node.spawning import spawn_node
from pyipc.cluster.process import WorkerProcess

if TYPE_CHECKING:
    import socket
    from collections.abc import Collection

    from pyipc.cluster.claiming import Claims
    from pyipc.cluster.environment import Invitation
    from pyipc.cluster.events import EventQueue
    from pyipc.cluster.handle import WorkerHandle
    from pyipc.cluster.node.channel import NodeChannel
    from pyipc.cluster.node.courier import NodeCourier
    from pyipc.cluster.settings import Settings
    from pyipc.cluster.spawning import Spawned
    from pyipc.cluster.switchboard import Switchboard

__all__ = ["NodeProcess"]

logger: logging.Logger = logging.getLogger("pyipc.cluster")

# Seconds between looks at whether what has arrived was read.
_PAUSE: Final = 0.01


class NodeProcess(WorkerProcess):
    """A process of Node. All that is said goes over its one channel, in one order.

    It is ready when its first server listens; or, if it has none, when it begins to listen for messages; or when it
    says so, ``process.send({type: "pyipc.ready"})``, and with the setting ``wait_ready`` only then. What it is sent
    before it listens for messages waits with its sender.

    Args:
        claims: Takes the addresses that it listens on.

    The others are those of `WorkerProcess`.
    """

    way_to_join: str = "see whether node_executable is Node"
    way_to_be_ready: str = 'open a server, listen for messages, or process.send({type: "pyipc.ready"})'

    def __init__(
        self,
        handle: WorkerHandle,
        invitation: Invitation,
        settings: Settings,
        switchboard: Switchboard,
        queue: EventQueue,
        claims: Claims,
    ) -> None:
        super().__init__(handle, invitation, settings, switchboard, queue)
        self._claims = claims
        self._channel: NodeChannel | None = None
        self._node_courier: NodeCourier | None = None
        self._listening: NodeListening | None = None
        # Servers that it wants to open, and has not been answered about.
        self._wanted, self._servers = trio.open_memory_channel[Message](math.inf)
        # For what takes a while to answer; there is none once the process has ended.
        self._nursery: trio.Nursery | None = None
        self._hears = False
        self._has_listened = False

    # --- its life ---

    async def _spawn(self) -> Spawned:
        spawned, channel, courier = await spawn_node(self._invitation, self.settings, self._received, self._accompany)
        self._channel, self._node_courier = channel, courier
        self._listening = NodeListening(self, channel, courier, self._claims)
        return spawned

    async def _accompany(self) -> None:
        try:
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(self._open_servers)
                await self._take_pulse()
        finally:
            self._nursery = None

    async def _take_pulse(self) -> None:
        """Find out again and again whether it turns its event loop, and how soon."""
        assert self._channel is not None
        assert self._node_courier is not None
        await self.online.wait()
        while not self._channel.is_closed:
            asked = trio.current_time()
            answered = self._channel.ping()
            while not answered.is_set():
                with trio.move_on_after(self.settings.heartbeat_interval):
                    await answered.wait()
                if self._channel.is_behind and not answered.is_set():
                    self.on_pulse(self.pulse)  # its answer may wait behind what the program here has not taken
            self.on_pulse({"lag": round(trio.current_time() - asked, 6)})
            self._node_courier.heard_of()
            await trio.sleep(self.settings.heartbeat_interval)

    async def _ask_to_leave(self, message: str) -> None:
        logger.info("worker %r, process %s is asked to leave: %s", self.handle.id, self.pid, message)
        await self._finish_talking()
        channel = self._channel
        assert channel is not None
        # What it was sent before is there by then, and what it has said until then was written.
        await channel.ping().wait()
        channel.tell({"cmd": "NODE_CLUSTER", "act": "disconnect", "seq": 0})

    async def _finish_talking(self) -> None:
        """It means to end, or is to: what is under way comes to its end, and what it was sent is written."""
        await self.on_leave(voluntary=True)
        if self.messages is not None:
            with contextlib.suppress(pyipc.ConnectionClosed):
                await self.messages.flush()

    async def _ask_for(self, event: str) -> None:
        """It tells by itself when it listens for messages."""
        await trio.lowlevel.checkpoint()

    def on_disconnect(self, ended: pyipc.Disconnected) -> None:
        """Its channel has ended, and all that came over it was handled."""
        assert self._node_courier is not None
        self._node_courier.end()
        if isinstance(ended.error, pyipc.RemoteProtocolError):
            # Node ends by the loss of its channel, with a code as if all were well.
            self.on_failed(f"its channel was closed: {ended.message}")
        super().on_disconnect(ended)

    # --- talking to it ---

    @property
    def can_be_asked(self) -> bool:
        """Whether its program answers requests: it has said so with its first frame of pyipc's."""
        messages = self.messages
        return messages is not None and messages.is_open and messages.peer.protocol != "plain"

    def check_sendable(self, event: str, data: object, attachments: Collection[Any] = ()) -> None:
        """See whether its program can be sent something.

        Raises:
            LocalProtocolError: Node would take it for its own, or has no room for attachments in its messages.
        """
        if attachments:
            raise pyipc.PeerLacksFeature(
                "attachments", f"worker {self.handle.id!r} is a Node program, whose messages have no attachments"
            )
        if event == "message" and is_internal(data):
            raise pyipc.UnencodableData(
                "Node takes a message whose `cmd` begins with NODE_ for its own, and its program would never see it; "
                "use another value, or another key"
            )

    # --- what it says of itself ---

    def _received(self, message: Message, sock: socket.socket | None) -> None:
        """It has sent what no program is to hear of."""
        if sock is not None:
            sock.close()
        assert self._listening is not None
        assert self._node_courier is not None
        match message:
            case {"cmd": "NODE_CLUSTER", "ack": int()}:
                self._node_courier.answered(message)
            case {"cmd": "NODE_CLUSTER", "act": "online"}:
                self.on_online()
            case {"cmd": "NODE_CLUSTER", "act": "queryServer"}:
                self._listening.wanted()
                self._wanted.send_nowait(message)
            case {"cmd": "NODE_CLUSTER", "act": "listening"}:
                self._listens(message)
            case {"cmd": "NODE_CLUSTER", "act": "close"}:
                self._listening.closed(message)
                self._consider_ready()
            case {"cmd": "NODE_CLUSTER", "act": "exitedAfterDisconnect"}:
                self.voluntary = True
                if self._nursery is not None:
                    self._nursery.start_soon(self._let_go, message)
            case {"type": "pyipc.taking"}:
                self._hears = True
                self.taking.settle()
                self._consider_ready()
            case {"type": "pyipc.ready"}:
                self.on_ready()
            case {"type": "pyipc.hello"} if self._nursery is not None:
                self._nursery.start_soon(self._become_askable)
            case {"type": "pyipc.request"}:
                self.is_listened_to.set()  # it may not become ready before it has the answer
            case _:
                logger.debug("worker %r has sent what is of Node's own, and means nothing here", self.handle.id)

    async def _become_askable(self) -> None:
        """It has introduced itself: once that was read there is somebody more to take jobs."""
        while not self.can_be_asked and self.messages is not None and self.messages.is_open:  # noqa: ASYNC110
            await trio.sleep(_PAUSE)  # a connection tells nobody when it has read that
        self.handle.process_changed(self)

    async def _open_servers(self) -> None:
        """Open servers for it, in the order in which it wants them: of two at one address the first has it."""
        assert self._listening is not None
        async for question in self._servers:
            await self._listening.answer(question)
            self._consider_ready()

    def _listens(self, message: Message) -> None:
        """A server of it is open."""
        assert self._listening is not None
        self._listening.opened(message)
        self._has_listened = True
        try:
            address, _ = address_of(message)
        except pyipc.AddressError:
            return  # a server that it has opened by itself, and which is nothing that there is here
        self.on_listening(address)
        self._consider_ready()

    def _consider_ready(self) -> None:
        assert self._listening is not None
        is_able = self._has_listened or (self._hears and not self._listening.is_opening)
        if is_able and not self.settings.wait_ready:
            self.on_ready()

    async def _let_go(self, message: Message) -> None:
        """It means to end, and waits until it may."""
        timeout = self.settings.drain_timeout
        with trio.move_on_after(math.inf if timeout is None else timeout):
            await self._finish_talking()
        assert self._channel is not None
        self._channel.tell({"cmd": "NODE_CLUSTER", "ack": message.get("seq")})
