"""Listeners of a worker: their connections were accepted by the primary, or on a socket that workers share.

One kind is for `pyipc.Server`, the other for whatever serves listeners of trio, such as an HTTP server.
"""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING

import trio

from pyipc.errors import ConnectionClosed
from pyipc.transports import Link, Listener, SocketListener

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyipc import Address
    from pyipc.cluster.courier import Carrier
    from pyipc.cluster.receiving import Inlet, Receiving

__all__ = ["HandedListener", "HandedSocket", "HandedStream", "SharedTrioListener", "TrioListener", "shared_listener"]

logger: logging.Logger = logging.getLogger("pyipc.cluster")


class HandedSocket(socket.socket):
    """A socket that tells when it is closed.

    Args:
        sock: The socket, which is taken over.
        closed: Called once, after it was closed.
    """

    __slots__ = ("_tell",)

    def __init__(self, sock: socket.socket, closed: Callable[[], None]) -> None:
        super().__init__(sock.family, sock.type, sock.proto, sock.detach())
        self._tell: Callable[[], None] | None = closed

    def close(self) -> None:
        """Close the socket, and tell."""
        super().close()
        tell, self._tell = self._tell, None
        if tell is not None:
            tell()


class HandedListener(Listener):
    """A listener for `pyipc.Server`: hands out links to those that the primary has accepted.

    Args:
        inlet: Where they arrive.
        address: Where the primary listens.
        adopt: Makes a link of a connection. If it raises `OSError` that peer is turned away.
    """

    def __init__(self, inlet: Inlet, address: Address, adopt: Callable[[Carrier], Link]) -> None:
        self._inlet = inlet
        self._address = address
        self._adopt = adopt

    def __repr__(self) -> str:
        return f"<HandedListener on {self._address}, {self._inlet!r}>"

    @property
    def address(self) -> Address:
        """Where the primary listens."""
        return self._address

    async def accept(self) -> Link:
        """Wait for the next peer.

        Raises:
            ConnectionClosed: `aclose` was called, or the primary is gone.

        Cancellation: loses no peer.
        """
        while True:
            carrier, closed = await self._inlet.accept()
            link = _adopted(carrier, closed, self._adopt, self._address)
            if link is not None:
                return link

    async def aclose(self) -> None:
        """Stop listening, at once and more than once; other workers get the peers that wait here.

        Cancellation: the same.
        """
        self._inlet.close()
        await trio.lowlevel.checkpoint()


def shared_listener(
    sockets: Sequence[socket.socket], address: Address, adopt: Callable[[Carrier], Link], receiving: Receiving
) -> Listener:
    """A listener for `pyipc.Server` that accepts by itself, on sockets that other workers listen on too.

    Args:
        sockets: The listening sockets; they belong to the listener from here on.
        address: Where they listen.
        adopt: Makes a link of a connection. If it raises `OSError` that peer is turned away.
        receiving: What counts the connections.
    """
    return SocketListener(sockets, address, adopt=lambda sock: adopt(HandedSocket(sock, receiving.keep())))


def _adopted(
    carrier: Carrier, closed: Callable[[], None], adopt: Callable[[Carrier], Link], address: Address
) -> Link | None:
    """A link, which tells when it is closed; ``None`` if the peer is turned away."""
    told: Carrier = carrier
    if isinstance(carrier, socket.socket):
        told = HandedSocket(carrier, closed)
    else:
        carrier.on_close = closed
    try:
        return adopt(told)
    except OSError as error:
        told.close()
        logger.warning("turned away a peer on %s, because it cannot be identified: %s", address, error)
    except BaseException:
        told.close()
        raise
    return None


class HandedStream(trio.abc.HalfCloseableStream):
    """The stream of a connection that came through the primary, with all that a `trio.SocketStream` has.

    Args:
        stream: The stream, which is taken over.
        closed: Called once, after it was closed.

    Attributes:
        socket: The socket, as `trio.SocketStream.socket`.
    """

    def __init__(self, stream: trio.SocketStream, closed: Callable[[], None]) -> None:
        self._stream = stream
        self._tell = closed
        self._is_told = False
        self.socket: trio.socket.SocketType = stream.socket

    def __repr__(self) -> str:
        return f"<HandedStream {self.socket!r}>"

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """As `trio.SocketStream.send_all`.

        Cancellation: an unknown part of ``data`` may have been sent.
        """
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """As `trio.SocketStream.wait_send_all_might_not_block`.

        Cancellation: nothing happens.
        """
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """As `trio.SocketStream.receive_some`.

        Cancellation: loses nothing.
        """
        return await self._stream.receive_some(max_bytes)

    async def send_eof(self) -> None:
        """As `trio.SocketStream.send_eof`.

        Cancellation: whether the end was sent is not known.
        """
        await self._stream.send_eof()

    async def aclose(self) -> None:
        """Close the stream, and tell.

        Cancellation: it is closed all the same.
        """
        try:
            await self._stream.aclose()
        finally:
            if not self._is_told:
                self._is_told = True
                self._tell()

    def setsockopt(self, level: int, option: int, value: int | bytes) -> None:
        """As `trio.SocketStream.setsockopt`."""
        self._stream.setsockopt(level, option, value)

    def getsockopt(self, level: int, option: int, buffersize: int = 0) -> int | bytes:
        """As `trio.SocketStream.getsockopt`."""
        return self._stream.getsockopt(level, option, buffersize)


class TrioListener(trio.abc.Listener[HandedStream]):
    """A listener for `trio.serve_listeners`: hands out the connections that the primary has accepted.

    Once the worker drains, `accept` waits for ever, and the task that serves ends with the program.

    Args:
        inlet: Where they arrive.
    """

    def __init__(self, inlet: Inlet) -> None:
        self._inlet = inlet

    def __repr__(self) -> str:
        return f"<TrioListener, {self._inlet!r}>"

    async def accept(self) -> HandedStream:
        """Wait for the next connection. Always a schedule point.

        Raises:
            trio.ClosedResourceError: `aclose` was called, or the primary is gone.

        Cancellation: loses no connection.
        """
        await trio.lowlevel.checkpoint()
        while True:
            try:
                carrier, closed = await self._inlet.accept()
            except ConnectionClosed as error:
                raise trio.ClosedResourceError(str(error)) from None
            if (stream := _stream(carrier, closed)) is not None:
                return stream

    async def aclose(self) -> None:
        """Stop listening, at once and more than once; other workers get the connections that wait here.

        Cancellation: the same.
        """
        self._inlet.close()
        await trio.lowlevel.checkpoint()


class SharedTrioListener(trio.abc.Listener[HandedStream]):
    """A listener for `trio.serve_listeners` that accepts by itself, on a socket that other workers listen on too.

    Once the worker drains, `accept` waits for ever, and the task that serves ends with the program.

    Args:
        sock: The listening socket, which belongs to the listener from here on.
        receiving: What counts the connections, and knows of the drain.
    """

    def __init__(self, sock: socket.socket, receiving: Receiving) -> None:
        sock.setblocking(False)
        self._listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
        self._receiving = receiving
        self._closed = trio.Event()
        receiving.when_retired(self.socket.close)

    def __repr__(self) -> str:
        return f"<SharedTrioListener {self.socket!r}>"

    @property
    def socket(self) -> trio.socket.SocketType:
        """The listening socket, as `trio.SocketListener.socket`."""
        return self._listener.socket

    async def accept(self) -> HandedStream:
        """Wait for the next connection. Always a schedule point.

        Raises:
            trio.ClosedResourceError: `aclose` was called.
            OSError: Accepting failed for now, as for `trio.SocketListener.accept`.

        Cancellation: loses no connection.
        """
        try:
            return HandedStream(await self._listener.accept(), self._receiving.keep())
        except trio.ClosedResourceError:
            if self._receiving.is_retired:
                await self._closed.wait()
            raise

    async def aclose(self) -> None:
        """Stop listening here, at once and more than once. Other workers go on.

        Cancellation: the same.
        """
        self._closed.set()
        await self._listener.aclose()


def _stream(carrier: Carrier, closed: Callable[[], None]) -> HandedStream | None:
    """A stream of a connection; ``None`` if that is broken already."""
    if not isinstance(carrier, socket.socket):
        raise TypeError(f"trio has no stream for {carrier!r}; listen there with a pyipc.Server")
    carrier.setblocking(False)
    try:
        return HandedStream(trio.SocketStream(trio.socket.from_stdlib_socket(carrier)), closed)
    except OSError as error:
        carrier.close()
        closed()
        logger.debug("a connection was broken before it was served: %s", error)
    return None
