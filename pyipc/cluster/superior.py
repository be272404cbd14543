"""The primary, as far as a worker tells it things and asks it; by this the primaries of pyipc and of Node differ."""

from __future__ import annotations

import contextlib
import dataclasses
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, final

import pyipc
from pyipc.cluster import control
from pyipc.cluster.claiming import CODES
from pyipc.cluster.pulse import send_pulses

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ControllingPrimary", "Grant", "Superior"]


@dataclasses.dataclass(frozen=True, slots=True)
class Grant:
    """What a primary says to a worker that wants to listen.

    Attributes:
        claim: How the primary calls the address.
        address: The address, with the port that was really taken.
        sockets: How many listening sockets come, to accept on; none if connections are handed over.
    """

    claim: str
    address: pyipc.Address
    sockets: int


class Superior(ABC):
    """The primary of this worker."""

    @property
    @abstractmethod
    def is_connected(self) -> bool:
        """Whether it can be told anything."""

    # --- how far this worker has come ---

    @abstractmethod
    async def online(self) -> None:
        """The program of this worker begins.

        Raises:
            ConnectionClosed: The primary is gone.

        Cancellation: it may have been told.
        """

    @abstractmethod
    async def keep_in_touch(self) -> None:
        """Say again and again that this worker is alive, if the primary wants to hear it.

        Cancellation: nothing more is said.
        """

    @abstractmethod
    def ready(self) -> None:
        """This worker can do its work.

        Raises:
            ConnectionClosed: The primary is gone.
        """

    @abstractmethod
    async def flush(self) -> None:
        """Wait until the system has what was told.

        Raises:
            ConnectionClosed: The primary is gone.

        Cancellation: nothing is untold by it.
        """

    @abstractmethod
    async def failed(self, why: str) -> None:
        """The program has failed; why, in a line for people.

        Raises:
            ConnectionClosed: The primary is gone.

        Cancellation: it may have been told.
        """

    # --- messages ---

    @abstractmethod
    def taking(self, event: str) -> None:
        """There is a handler for a name that was wanted; see `pyipc.cluster.taking`.

        Raises:
            trio.WouldBlock: There is no room to tell it now.
            ConnectionClosed: The primary is gone.
        """

    @abstractmethod
    async def asking(self) -> None:
        """The program is about to wait for an answer, although this worker is not ready.

        Raises:
            ConnectionClosed: The primary is gone.

        Cancellation: it may have been told.
        """

    # --- listening ---

    @abstractmethod
    def shares(self, address: pyipc.Address) -> bool:
        """Whether servers listen on an address through it; on any other each worker does so by itself."""

    @abstractmethod
    async def listen(self, address: pyipc.Address, turn: int, options: Mapping[str, object]) -> Grant:
        """Have an address taken.

        Args:
            address: Where.
            turn: How often this worker has listened there before.
            options: As for the transport of the address, in JSON.

        Raises:
            AddressInUse, ListenError, AddressError: As the transport of the address.
            ConnectionClosed: The primary is gone.

        Cancellation: the address is given up after a while.
        """

    @abstractmethod
    async def listening(self, grant: Grant) -> None:
        """This worker takes what comes there.

        Raises:
            ConnectionClosed: The primary is gone.

        Cancellation: it may have been told.
        """

    @abstractmethod
    def unlisten(self, claim: str) -> None:
        """This worker listens on an address no more.

        Raises:
            trio.WouldBlock: There is no room to tell it now.
            ConnectionClosed: The primary is gone.
        """

    # --- leaving ---

    @abstractmethod
    async def leave(self, messages: pyipc.Client, *, for_good: bool) -> None:
        """Have the primary send nothing more, and wait until all that it has sent is handled.

        Args:
            messages: The client for what programs say.
            for_good: Whether this worker is not to be started again.

        Raises:
            ConnectionClosed: The primary is gone.

        Cancellation: nothing more may be sent.
        """


@final
class ControllingPrimary(Superior):
    """A primary of pyipc, which has a connection for what is not of programs.

    Args:
        client: The client of that connection.
        heartbeat_interval: How often the primary wants to hear that this worker is alive, in seconds.
    """

    def __init__(self, client: pyipc.Client, heartbeat_interval: float) -> None:
        self._client = client
        self._heartbeat_interval = heartbeat_interval

    @property
    def is_connected(self) -> bool:
        return self._client.connected

    async def online(self) -> None:
        await self._client.emit(control.ONLINE)

    async def keep_in_touch(self) -> None:
        await send_pulses(self._client, self._heartbeat_interval)

    def ready(self) -> None:
        self._client.emit_nowait(control.READY)

    async def flush(self) -> None:
        await self._client.flush()

    async def failed(self, why: str) -> None:
        await self._client.emit(control.FAILED, why)

    def taking(self, event: str) -> None:
        self._client.emit_nowait(control.TAKING, event)

    async def asking(self) -> None:
        await self._client.emit(control.ASKING)

    def shares(self, address: pyipc.Address) -> bool:
        return True

    async def listen(self, address: pyipc.Address, turn: int, options: Mapping[str, object]) -> Grant:
        told = {"address": str(address), "turn": turn, "options": dict(options)}
        try:
            answer = await self._client.request(control.LISTEN, told)
        except pyipc.RemoteError as error:
            raise CODES.get(error.code, pyipc.ListenError)(error.message) from None
        return Grant(str(answer["claim"]), pyipc.parse_address(answer["address"]), int(answer["sockets"]))

    async def listening(self, grant: Grant) -> None:
        await self._client.emit(control.LISTENING, str(grant.address))

    def unlisten(self, claim: str) -> None:
        self._client.emit_nowait(control.UNLISTEN, claim)

    async def leave(self, messages: pyipc.Client, *, for_good: bool) -> None:
        await self._client.request(control.LEAVE, for_good)
        # The answer may have overtaken what was sent before it, over another connection. Over that one a subscription
        # is confirmed behind all of it, whatever is published under that topic.
        with contextlib.suppress(pyipc.RemoteError):
            async with messages.subscribe("left"):
                await messages.wait_handled()
