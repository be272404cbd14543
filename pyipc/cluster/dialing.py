"""How a worker process that inherits nothing comes to its primary: it dials, and says first that it is the one.

The primary listens at an address that only the process is told, and for a token that is good for one connection of
each kind. It answers with one byte once a connection is its own, so that a worker which ends right afterwards has been
heard.
"""

from __future__ import annotations

import enum
import hmac
import logging
import secrets
from typing import TYPE_CHECKING, Final, NoReturn, TypeAlias, final

import trio

import pyipc
from pyipc.nursery import hidden_nursery
from pyipc.transports import Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pyipc.transports import Link, Listener

__all__ = ["Adopt", "Channel", "Introduced", "Reception"]

logger: logging.Logger = logging.getLogger("pyipc.cluster")

_TOKEN_SIZE: Final = 32
_WELCOME: Final = b"\x06"
# Seconds that somebody may take to say who it is.
_INTRODUCTION_TIMEOUT: Final = 5.0
# After a failed accept, such as for want of handles, others get the chance to close theirs.
_ACCEPT_PAUSE: Final = 0.1


class Channel(enum.Enum):
    """What a connection of a worker process with its primary is for; as a byte, how the process says so."""

    CONTROL = b"c"
    MESSAGES = b"m"
    COURIER = b"h"


#: Is called with each link of a worker process.
Adopt: TypeAlias = "Callable[[Channel, Link], None]"


class Reception:
    """Where the primary waits for one worker process.

    Args:
        listener: Where it dials; it belongs to the reception from here on.

    Attributes:
        token: What the process is to show, in hexadecimal digits.
    """

    def __init__(self, listener: Listener) -> None:
        self.token: str = secrets.token_hex(_TOKEN_SIZE)
        self._listener = listener
        self._missing = set(Channel)
        self._is_complete = trio.Event()

    async def receive(self, adopt: Adopt) -> None:
        """Wait until the process has come for all that it needs. Whoever else comes is sent away.

        Args:
            adopt: Is called with each link of the process, before the process hears that it has arrived.

        Cancellation: nobody is waited for any more; what was adopted stays.
        """
        try:
            async with hidden_nursery() as nursery:
                nursery.start_soon(self._accept, nursery, adopt)
                await self._is_complete.wait()
        finally:
            await self._listener.aclose()

    async def _accept(self, nursery: trio.Nursery, adopt: Adopt) -> None:
        while True:
            try:
                link = await self._listener.accept()
            except OSError as error:
                logger.warning("a worker cannot be let in at %s for now: %s", self._listener.address, error)
                await trio.sleep(_ACCEPT_PAUSE)
            else:
                nursery.start_soon(self._meet, link, adopt)

    async def _meet(self, link: Link, adopt: Adopt) -> None:
        channel: Channel | None = None
        try:
            with trio.move_on_after(_INTRODUCTION_TIMEOUT):
                channel = await self._listen_to(link)
        finally:
            if channel is None:
                await link.aclose()
        if channel is None:
            logger.warning("somebody else than the worker came to %s, and was sent away", self._listener.address)
            return
        adopt(channel, link)
        with trio.CancelScope(shield=True):
            try:
                await link.send(_WELCOME)
            except pyipc.ConnectionLost:
                return  # whoever adopted it hears of that too
        if not self._missing:
            self._is_complete.set()

    async def _listen_to(self, link: Link) -> Channel | None:
        """What a link is for; ``None`` if it is not the process who is there."""
        said = b""
        try:
            while len(said) <= _TOKEN_SIZE:
                chunk = await link.receive()
                if not chunk:
                    return None
                said += chunk
        except pyipc.ConnectionLost:
            return None
        # More than that it says only once it is welcome.
        if not hmac.compare_digest(said[1:], bytes.fromhex(self.token)):
            return None
        for channel in self._missing:
            if channel.value == said[:1]:
                self._missing.remove(channel)
                return channel
        return None


@final
class Introduced(Transport):
    """A worker's way to its primary: connects as another transport does, and says first who it is.

    Args:
        transport: The other one.
        channel: What the connection is for.
        token: What the primary told.
    """

    def __init__(self, transport: Transport, channel: Channel, token: str) -> None:
        self._transport = transport
        self._words = channel.value + bytes.fromhex(token)

    async def connect(self, address: pyipc.Address, options: Mapping[str, object]) -> Link:
        """Open a link to the primary, and wait until it is welcome.

        Raises:
            ConnectError: The primary is gone, or does not know this process.

        Cancellation: nothing stays open.
        """
        link = await self._transport.connect(address, options)
        answer = b""
        try:
            await link.send(self._words)
            answer = await link.receive()
        except pyipc.ConnectionLost:
            pass  # no answer is one too
        finally:
            if answer != _WELCOME:
                await link.aclose()
        if answer != _WELCOME:
            raise pyipc.ConnectError("the primary is gone, or does not take this process for its worker")
        return link

    async def listen(self, address: pyipc.Address, options: Mapping[str, object]) -> NoReturn:
        """Refuse: it is the primary who listens.

        Raises:
            AddressError: Always.

        Cancellation: it is refused before anything is waited for.
        """
        raise pyipc.AddressError(f"{address} is where a primary is reached; nobody else listens there")
