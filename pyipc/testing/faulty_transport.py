"""A transport all of whose links misbehave.

Owns the wrapping of whatever another transport opens. Knows nothing of that transport but the port.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, final

from pyipc.testing.faulty_link import FaultyLink
from pyipc.transports import Link, Listener, Transport, transport_for

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pyipc import Address
    from pyipc.testing.faults import Faults
    from pyipc.transports import Place

__all__ = ["FaultyTransport"]


@final
class FaultyTransport(Transport):
    """Opens links as the scheme's own transport does, and wraps each in a `FaultyLink`.

    Give it to one endpoint, of a client or a server: ``Endpoint(address, transport=...)``. The
    first link gets the seed as it is and each further one the next number, so that links differ and
    a run can still be repeated.

    Args:
        faults: What happens to what this side sends.
        inbound: What happens to what this side receives; nothing if left out.
        transport: Opens the links, instead of the one registered for the scheme.

    Attributes:
        faults: For links that are opened from now on; may be set.
        inbound: Likewise.
    """

    def __init__(self, faults: Faults, *, inbound: Faults | None = None, transport: Transport | None = None) -> None:
        self.faults = faults
        self.inbound = inbound
        self._transport = transport
        self._opened = 0
        self._links: list[FaultyLink] = []

    @property
    def links(self) -> tuple[FaultyLink, ...]:
        """The links that this side has not closed, the newest last."""
        self._links = [link for link in self._links if not link.closed]
        return tuple(self._links)

    def __repr__(self) -> str:
        inbound = "" if self.inbound is None else f" inbound={self.inbound!r}"
        return f"<FaultyTransport {self.faults!r}{inbound}, {len(self.links)} links>"

    def wrap(self, link: Link) -> FaultyLink:
        """Wrap a link that was opened in another way, such as one that a server is to adopt.

        Raises:
            ValueError: The faults are not for this kind of link.
        """
        faults = dataclasses.replace(self.faults, seed=self.faults.seed + self._opened)
        inbound = self.inbound and dataclasses.replace(self.inbound, seed=self.inbound.seed + self._opened)
        faulty = FaultyLink(link, faults, inbound=inbound)
        self._opened += 1
        self._links = [*self.links, faulty]
        return faulty

    async def connect(self, address: Address, options: Mapping[str, object]) -> Link:
        """Open a link and wrap it.

        Raises:
            ConnectError: Nobody answered.
            AddressError: The address cannot be used on this system.
            ValueError: The faults are not for this kind of link.

        Cancellation: nothing stays open.
        """
        return await self.wrap_or_close(await self._for(address).connect(address, options))

    async def listen(self, address: Address, options: Mapping[str, object]) -> Listener:
        """Start to listen; what is accepted will be wrapped.

        Raises:
            ListenError: The address is in use, or not ours to take.
            AddressError: The address cannot be used on this system.

        Cancellation: nothing stays open.
        """
        return _FaultyListener(self, await self._for(address).listen(address, options))

    def places(self, address: Address) -> Sequence[Place]:
        """The places that an address stands for, as the transport that opens the links says.

        Raises:
            AddressError: The address cannot be used on this system.
        """
        return self._for(address).places(address)

    def max_chunk_size(self, address: Address) -> int | None:
        """The largest chunk that can be sent to an address, as the transport that opens the links says."""
        return self._for(address).max_chunk_size(address)

    async def wrap_or_close(self, link: Link) -> FaultyLink:
        """Wrap a link that nobody else would close.

        Raises:
            ValueError: The faults are not for this kind of link.

        Cancellation: the link is wrapped or closed all the same.
        """
        try:
            return self.wrap(link)
        except ValueError:
            await link.aclose()
            raise

    def _for(self, address: Address) -> Transport:
        return self._transport or transport_for(address.scheme)


class _FaultyListener(Listener):
    def __init__(self, transport: FaultyTransport, listener: Listener) -> None:
        self._transport = transport
        self._listener = listener

    @property
    def address(self) -> Address:
        return self._listener.address

    def __repr__(self) -> str:
        return f"<FaultyListener of {self._transport!r} on {self._listener!r}>"

    async def accept(self) -> Link:
        return await self._transport.wrap_or_close(await self._listener.accept())

    def retire(self) -> list[Link]:
        return [self._transport.wrap(link) for link in self._listener.retire()]

    async def aclose(self) -> None:
        await self._listener.aclose()
