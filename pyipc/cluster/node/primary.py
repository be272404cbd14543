"""The primary of Node's cluster, as a worker tells it things and asks it: in Node's own words."""

from __future__ import annotations

import dataclasses
import errno
import itertools
import logging
from typing import TYPE_CHECKING, Any, Final, final

import trio

import pyipc
from pyipc.cluster.node.leftovers import remove_dead_socket
from pyipc.cluster.node.parent import NodeParent
from pyipc.cluster.node.places import grant_error, place_of
from pyipc.cluster.superior import Grant

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping

    from pyipc.cluster.node.lines import Message
    from pyipc.cluster.node.places import Place

__all__ = ["NodePrimary"]

logger: logging.Logger = logging.getLogger("pyipc.cluster")

_BACKLOG: Final = 511  # as Node has it
# Where nobody can listen.
_NOTHING: Final[Message] = {
    "index": 0,
    "data": None,
    "address": None,
    "port": -1,
    "addressType": -1,
    "fd": (1 << 31) - 1,
    "flags": 0,
    "backlog": _BACKLOG,
}


@dataclasses.dataclass(eq=False, slots=True)
class _Question:
    """A message to which there is an answer.

    Attributes:
        server: What is to listen, if it is about that.
        answered: Is set when the answer is there, or there will be none.
        answer: The answer.
        sock: What came along with it.
        is_abandoned: Whether nobody waits any more.
    """

    server: tuple[Place, int] | None = None
    answered: trio.Event = dataclasses.field(default_factory=trio.Event)
    answer: Message | None = None
    sock: socket.socket | None = None
    is_abandoned: bool = False


@final
class NodePrimary(NodeParent):
    """The primary of this worker. Servers listen through it, beside those of workers that are Node programs.

    Args:
        sock: The channel; it belongs to this object from here on.
        max_message_size: The largest message that is taken, in bytes.
        dismissed: Called when the primary wants this worker to leave.
    """

    name = "the Node primary"

    def __init__(self, sock: socket.socket, max_message_size: int, dismissed: Callable[[], None]) -> None:
        super().__init__(sock, max_message_size)
        self._numbers = itertools.count()
        self._questions: dict[int, _Question] = {}
        self._dismissed = dismissed
        self._is_dismissed = False
        self._is_lost = False
        self._is_retired = False
        # Servers by how the primary calls their address: where each is, and which of those that are there. That is also
        # kept of those about which there is no answer yet: a Node that is asked twice is ended by an assertion.
        self._servers: dict[str, tuple[Place, int]] = {}
        self._in_use: set[tuple[Place, int]] = set()
        # Connections that came before the listener that is to take them.
        self._early: dict[str, list[tuple[int, socket.socket]]] = {}

    # --- what it says ---

    def received(self, message: Message, sock: socket.socket | None) -> None:
        match message:
            case {"cmd": "NODE_CLUSTER", "ack": int(number)} if number in self._questions:
                self._take_answer(self._questions.pop(number), message, sock)
            case {"cmd": "NODE_CLUSTER", "act": "newconn", "key": str(key), "seq": int(number)} if sock is not None:
                if key in self._early:
                    self._early[key].append((number, sock))
                else:
                    self.mailbox.put({"claim": key, "number": number}, sock)
            case {"cmd": "NODE_CLUSTER", "act": "disconnect"}:
                self._is_dismissed = True
                self._end_questions()
                self._dismissed()
            case _:
                super().received(message, sock)

    def _take_answer(self, question: _Question, message: Message, sock: socket.socket | None) -> None:
        key = None if message.get("errno") else message.get("key")
        if key is not None and sock is None:
            self._early[key] = []
        question.answer, question.sock = message, sock
        if question.is_abandoned:
            self._throw_away(question)
        question.answered.set()

    def _throw_away(self, question: _Question) -> None:
        """Nobody waits for an answer, and it is here."""
        answer, sock = question.answer, question.sock
        assert answer is not None
        if sock is not None:
            sock.close()
        if answer.get("key") is not None and not answer.get("errno"):
            self._close(answer["key"])
        if question.server is not None:
            self._in_use.discard(question.server)

    def lost(self) -> None:
        super().lost()
        self._is_lost = True
        self._end_questions()

    def _end_questions(self) -> None:
        """There will be no answers; a primary that wants this worker to leave gives none either."""
        for question in self._questions.values():
            question.answered.set()
        self._questions.clear()

    # --- what it is told ---

    def _tell(self, message: Message) -> int:
        number = next(self._numbers)
        self.channel.tell({"cmd": "NODE_CLUSTER", **message, "seq": number})
        return number

    async def _ask(self, message: Message, server: tuple[Place, int] | None = None) -> _Question:
        """Ask, and wait for the answer.

        Args:
            message: The question.
            server: What is to listen, if it is about that.

        Raises:
            ConnectionLost: The primary is gone, or answers no more.

        Cancellation: the answer is thrown away, and with it what it grants.
        """
        if self._is_lost or self._is_dismissed:
            raise self._gone()
        question = _Question(server)
        number = self._tell(message)
        self._questions[number] = question
        try:
            await question.answered.wait()
        except trio.Cancelled:
            question.is_abandoned = True
            if question.answer is not None:  # it has come in this very turn
                self._throw_away(question)
            raise
        if question.answer is None:
            raise self._gone()
        return question

    def _gone(self) -> pyipc.ConnectionLost:
        if self._is_lost:
            return pyipc.ConnectionLost("the Node primary is gone, and does nothing more for this worker")
        return pyipc.ConnectionLost("this worker is to leave, and the Node primary does nothing more for it")

    def answer(self, number: int, is_taken: bool) -> None:
        if self.channel.is_closed:
            raise trio.BrokenResourceError("the Node primary is gone")
        self._tell({"ack": number, "accepted": is_taken})

    async def online(self) -> None:
        self._tell({"act": "online"})
        await trio.lowlevel.checkpoint()

    # --- listening ---

    def shares(self, address: pyipc.Address) -> bool:
        is_path = address.scheme in ("local", "unix", "node-ipc") and not address.name.startswith("@")
        return is_path or address.scheme in ("tcp", "tls")

    async def listen(self, address: pyipc.Address, turn: int, options: Mapping[str, object]) -> Grant:
        if not self.shares(address):
            return await super().listen(address, turn, options)
        place = await place_of(address, options)
        try:
            return await self._grant(address, place)
        except pyipc.AddressInUse:
            if place.port >= 0:
                raise
        # By what a killed program has left, perhaps; which another worker may have removed by now.
        await remove_dead_socket(place.address)
        return await self._grant(address, place)

    async def _grant(self, address: pyipc.Address, place: Place) -> Grant:
        if self._is_retired:
            raise self._gone()
        for question in list(self._questions.values()):
            if question.is_abandoned and question.server is not None and question.server[0] == place:
                await question.answered.wait()  # or it would stand in this one's way
        server = next((place, index) for index in itertools.count() if (place, index) not in self._in_use)
        self._in_use.add(server)
        question = await self._ask({"act": "queryServer", **_query(*server)}, server)
        answer, sock = question.answer, question.sock
        assert answer is not None
        if self._is_retired:
            self._throw_away(question)
            raise self._gone()
        if answer.get("errno"):
            self._in_use.discard(server)
            raise grant_error(address, answer["errno"])
        key = str(answer["key"])
        self._servers[key] = server
        port = _port(answer.get("sockname"))
        if sock is not None:
            try:
                port = _begin_listening(sock, address)
            except pyipc.IPCError:
                self.unlisten(key)
                raise
            self.mailbox.put({"listening": key}, sock)
        where = dataclasses.replace(address, port=port) if port else address
        return Grant(key, where, 0 if sock is None else 1)

    async def listening(self, grant: Grant) -> None:
        if grant.claim not in self._servers:
            await super().listening(grant)
            return
        place, index = self._servers[grant.claim]
        self._tell({"act": "listening", **_query(place, index), "port": grant.address.port or place.port})
        for number, sock in self._early.pop(grant.claim, ()):
            self.mailbox.put({"claim": grant.claim, "number": number}, sock)
        await trio.lowlevel.checkpoint()

    def unlisten(self, claim: str) -> None:
        if claim not in self._servers:
            super().unlisten(claim)
            return
        self._in_use.discard(self._servers.pop(claim))
        self._close(claim)

    def _close(self, key: str) -> None:
        self._tell({"act": "close", "key": key})
        for number, sock in self._early.pop(key, ()):
            sock.close()
            self._tell({"ack": number, "accepted": False})

    def retire(self) -> None:
        """This worker takes no more connections of any address: others get them."""
        self._is_retired = True
        for claim in list(self._servers):
            self.unlisten(claim)

    # --- leaving ---

    async def leave(self, messages: pyipc.Client, *, for_good: bool) -> None:
        if not self._is_dismissed:
            # Behind the answer no connection comes any more. What this worker does not mean for good it must not say;
            # so it asks for what there cannot be.
            question = {"act": "exitedAfterDisconnect"} if for_good else {"act": "queryServer", **_NOTHING}
            await self._ask(question)
        await super().leave(messages, for_good=for_good)


def _query(place: Place, index: int) -> dict[str, Any]:
    return {"index": index, "data": None, **dataclasses.asdict(place), "flags": 0, "backlog": _BACKLOG}


def _port(sockname: object) -> int:
    match sockname:
        case {"port": int(port)}:
            return port
    return 0


def _begin_listening(sock: socket.socket, address: pyipc.Address) -> int:
    """Listen on a socket that all workers share; the port, if it has one.

    Raises:
        AddressInUse, ListenError: It cannot be listened on.
    """
    try:
        match sock.getsockname():
            case (str(), 0, *_):  # Node keeps to itself that it could not bind it, and the system would choose a port
                raise OSError(errno.EADDRINUSE, "the socket is not bound")
            case (str(), int(port), *_):
                pass
            case _:
                port = 0
        sock.setblocking(False)
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise grant_error(address, -(error.errno or 0)) from error
    return port
