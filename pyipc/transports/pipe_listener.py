"""Listening on a named pipe.

Owns the instances of a pipe that no client has yet. Must not know who may talk.

A pipe is a name and any number of instances, each for one client. Clients take an instance that was created, whether
somebody waits for them or not, so those are the backlog; and whoever creates the first one decides who may create more.
Hence the rule here: a client is handed out only while another instance is there for the next one, and the last one is
not closed whatever becomes of it, so that the name is ours without a gap from the first instance to the end.
"""

from __future__ import annotations

import collections
import contextlib
from typing import TYPE_CHECKING, Final

import trio

from pyipc.errors import ConnectionClosed
from pyipc.transports.pipe_link import PipeLink
from pyipc.transports.port import Listener, Peer
from pyipc.transports.windows_api import Overlapped

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyipc.protocol.addresses import Address
    from pyipc.transports.port import Link
    from pyipc.transports.windows_api import Security, WindowsApi

__all__ = ["BACKLOG", "PipeListener", "create_instance"]

#: Instances that are there for clients to come. One that finds none tries again a little later.
BACKLOG: Final = 4

_BUFFER_SIZE: Final = 64 * 1024

_PIPE_ACCESS_DUPLEX: Final = 0x3
_FILE_FLAG_FIRST_PIPE_INSTANCE: Final = 0x8_0000
_FILE_FLAG_OVERLAPPED: Final = 0x4000_0000
# A stream of bytes, both ways: PIPE_TYPE_BYTE, PIPE_READMODE_BYTE and PIPE_WAIT are 0.
_PIPE_REJECT_REMOTE_CLIENTS: Final = 0x8
_PIPE_UNLIMITED_INSTANCES: Final = 255

#: ERROR_NO_DATA and ERROR_PIPE_CONNECTED: a client was here and has gone, whose bytes can be read; or it is here.
_TAKEN_ALREADY: Final = frozenset({232, 535})
_ERROR_IO_PENDING: Final = 997


class PipeListener(Listener):
    """The instances of a pipe that wait for clients.

    Args:
        windows: The calls of Windows.
        address: Where it listens, as the user knows it.
        name: The name of the pipe.
        security: Who may use it.
        first: The first instance; the listener owns it from here on.
        identify: Finds out who the client of an instance is; ``None`` if that takes reading something first.
    """

    def __init__(
        self,
        windows: WindowsApi,
        address: Address,
        name: str,
        security: Security,
        *,
        first: int,
        identify: Callable[[int], Peer | None],
    ) -> None:
        self._windows = windows
        self._address = address
        self._name = name
        self._security = security
        self._identify = identify
        self._free = [first]
        self._taken: collections.deque[int] = collections.deque()
        # Of the free ones, those on which a call of Windows is under way.
        self._watched: set[int] = set()
        self._failure: OSError | None = None
        self._turn = trio.Lock()
        self._closed = False
        self._fill_up()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self._free)} instances free, {len(self._taken)} taken"
        return f"<PipeListener on {self._address}, {state}>"

    @property
    def address(self) -> Address:
        """Where it listens."""
        return self._address

    async def accept(self) -> Link:
        """Wait for the next client. Always a schedule point.

        Raises:
            ConnectionClosed: `aclose` was called.
            OSError: There can be no more instances for now; wait a little and go on.

        Cancellation: loses no client.
        """
        async with self._turn:
            while not self._closed:
                failure = self._fill_up()
                if not self._free:
                    raise failure or OSError(f"{self._address} has no free instance")
                if self._taken:
                    return self._adopt(self._taken.popleft())
                await self._wait_for_clients()
                if self._failure is not None:
                    failure, self._failure = self._failure, None
                    raise failure
        raise ConnectionClosed(f"the listener on {self._address} is closed")

    def retire(self) -> list[Link]:
        """Hand out the clients that wait in line. Only `aclose` lets no others in."""
        links: list[Link] = []
        while self._taken:
            with contextlib.suppress(OSError):  # it is gone already
                links.append(self._adopt(self._taken.popleft()))
        return links

    async def aclose(self) -> None:
        """Stop listening, at once and more than once. Wakes whoever is in `accept`.

        Clients that were not accepted find their pipe closed. Windows keeps the name until the last accepted one has
        gone, but lets no client in.

        Cancellation: everything is closed all the same.
        """
        if not self._closed:
            self._closed = True
            for handle in (*self._free, *self._taken):
                if handle in self._watched:
                    self._windows.cancel_io(handle)  # whoever watches it closes it, once Windows is done with it
                else:
                    self._windows.close_handle(handle)
            self._free.clear()
            self._taken.clear()
        await trio.lowlevel.checkpoint()

    def _adopt(self, handle: int) -> Link:
        try:
            peer = self._identify(handle)
            if peer is None:
                return PipeLink(self._windows, handle, Peer(address=str(self._address)), identify=self._identify)
            return PipeLink(self._windows, handle, peer)
        except BaseException:
            self._windows.close_handle(handle)
            raise

    def _fill_up(self) -> OSError | None:
        """Create the instances that are missing; returns why that was not possible."""
        while len(self._free) < BACKLOG:
            try:
                self._free.append(create_instance(self._windows, self._name, self._security))
            except OSError as error:
                return error
        return None

    async def _wait_for_clients(self) -> None:
        """Wait until a free instance is taken, or cannot be watched, or the listener is closed."""
        async with trio.open_nursery() as nursery:
            self._watched.update(self._free)
            for handle in self._free:
                nursery.start_soon(self._watch, handle, nursery.cancel_scope)

    async def _watch(self, handle: int, scope: trio.CancelScope) -> None:
        """Wait until an instance is taken. If another one is first this is canceled, and clients can take it still."""
        try:
            await self._wait_for_client(handle)
        except (OSError, trio.ClosedResourceError) as error:
            scope.cancel()
            if not self._closed:
                # Closing the last one would give the name away, and with clients connected Windows would not let us be
                # the first again. It is tried once more, by the next `accept`.
                if len(self._free) > 1:
                    self._free.remove(handle)
                    self._windows.close_handle(handle)
                self._failure = error if isinstance(error, OSError) else OSError("the pipe was closed by somebody else")
        else:
            scope.cancel()
            if not self._closed:
                self._free.remove(handle)
                self._taken.append(handle)
        finally:
            self._watched.remove(handle)
            if self._closed:
                self._windows.close_handle(handle)

    @trio.lowlevel.enable_ki_protection  # between the call and the waiting, Windows has the address of `overlapped`
    async def _wait_for_client(self, handle: int) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._closed:
            raise trio.ClosedResourceError
        overlapped = Overlapped()
        code = self._windows.connect_named_pipe(handle, overlapped)
        if code in _TAKEN_ALREADY:
            await trio.lowlevel.cancel_shielded_checkpoint()  # Windows has nothing more to report
        elif code in (0, _ERROR_IO_PENDING):
            await self._windows.wait_overlapped(handle, overlapped)
        else:
            raise self._windows.error(code)


def create_instance(windows: WindowsApi, name: str, security: Security, *, first: bool = False) -> int:
    """Create an instance of a pipe and register it with trio.

    Args:
        windows: The calls of Windows.
        name: The name of the pipe.
        security: Who may use it. Only that of the first instance counts.
        first: Whether it must be the first, so that nobody else can have decided who may use the pipe.

    Raises:
        OSError: Windows refuses.
    """
    handle = windows.create_named_pipe(
        name,
        _PIPE_ACCESS_DUPLEX | _FILE_FLAG_OVERLAPPED | (_FILE_FLAG_FIRST_PIPE_INSTANCE if first else 0),
        _PIPE_REJECT_REMOTE_CLIENTS,
        _PIPE_UNLIMITED_INSTANCES,
        _BUFFER_SIZE,
        _BUFFER_SIZE,
        0,
        security,
    )
    try:
        windows.register(handle)
    except BaseException:
        windows.close_handle(handle)
        raise
    return handle
