"""The instances of a named pipe that no client has yet.

Owns creating them and handing out those that were taken. Must not know who may talk, nor how it is noticed that a
client has come, of which there are two ways.

A pipe is a name and any number of instances, each for one client. Clients take an instance that was created, whether
somebody waits for them or not, so those are the backlog; and whoever creates the first one decides who may create more.
Hence the rule here: a client is handed out only while another instance is there for the next one, and the last one is
not closed whatever becomes of it, so that the name is ours without a gap from the first instance to the end.
"""

from __future__ import annotations

import collections
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Final

import trio

from pyipc.errors import ConnectionClosed

if TYPE_CHECKING:
    from pyipc.protocol.addresses import Address
    from pyipc.transports.windows_api import Security, WindowsApi

__all__ = ["BACKLOG", "ERROR_IO_PENDING", "TAKEN_ALREADY", "PipeBacklog", "create_instance"]

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
TAKEN_ALREADY: Final = frozenset({232, 535})
ERROR_IO_PENDING: Final = 997


class PipeBacklog(ABC):
    """The instances of a pipe that wait for clients, and those that were taken and not handed out yet.

    Args:
        windows: The calls of Windows.
        address: Where it is, as the user knows it.
        name: The name of the pipe.
        security: Who may use it.
        first: The first instance; the backlog owns it from here on.
    """

    #: Whether trio is to wait for what is done with an instance, in this process and thus in no other.
    registers: ClassVar[bool]

    def __init__(self, windows: WindowsApi, address: Address, name: str, security: Security, *, first: int) -> None:
        self._windows = windows
        self._address = address
        self._name = name
        self._security = security
        self._free = [first]
        self._taken: collections.deque[int] = collections.deque()
        self._failure: OSError | None = None
        self._turn = trio.Lock()
        self._closed = False
        self._fill_up()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self._free)} instances free, {len(self._taken)} taken"
        return f"<{type(self).__name__} on {self._address}, {state}>"

    @property
    def address(self) -> Address:
        """Where it is."""
        return self._address

    async def aclose(self) -> None:
        """Stop listening, at once and more than once. Wakes whoever is in `accept`.

        Clients that were not accepted find their pipe closed. Windows keeps the name until the last accepted one has
        gone, but lets no client in.

        Cancellation: everything is closed all the same.
        """
        if not self._closed:
            self._closed = True
            for handle in self._free:
                self._close_free(handle)
            for handle in self._taken:
                self._windows.close_handle(handle)
            self._free.clear()
            self._taken.clear()
            self._wake()
        await trio.lowlevel.checkpoint()

    async def _next(self) -> int:
        """Wait for the next client; returns its instance, which is the caller's. Always a schedule point.

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
                    return self._taken.popleft()
                await self._wait_for_clients()
                if self._failure is not None:
                    failure, self._failure = self._failure, None
                    raise failure
        raise ConnectionClosed(f"the listener on {self._address} is closed")

    @abstractmethod
    async def _wait_for_clients(self) -> None:
        """Wait until a free instance is taken, or cannot be watched, or this is closed.

        Cancellation: loses no client.
        """

    @abstractmethod
    def _close_free(self, handle: int) -> None:
        """Close an instance that no client has, as soon as Windows is done with it."""

    def _wake(self) -> None:
        """It was closed: wake whoever waits, if closing the instances does not."""
        return

    def _note_taken(self, handle: int) -> None:
        """A client has taken an instance."""
        self._free.remove(handle)
        self._taken.append(handle)

    def _note_failure(self, handle: int, error: OSError) -> None:
        """An instance cannot be watched."""
        # Closing the last one would give the name away, and with clients connected Windows would not let us be
        # the first again. It is tried once more, by the next `accept`.
        if len(self._free) > 1:
            self._free.remove(handle)
            self._windows.close_handle(handle)
        self._failure = error

    def _fill_up(self) -> OSError | None:
        """Create the instances that are missing; returns why that was not possible."""
        while len(self._free) < BACKLOG:
            try:
                handle = create_instance(self._windows, self._name, self._security, registers=self.registers)
            except OSError as error:
                return error
            self._free.append(handle)
        return None


def create_instance(windows: WindowsApi, name: str, security: Security, *, registers: bool, first: bool = False) -> int:
    """Create an instance of a pipe.

    Args:
        windows: The calls of Windows.
        name: The name of the pipe.
        security: Who may use it. Only that of the first instance counts.
        registers: Whether to register it with trio.
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
    if registers:
        try:
            windows.register(handle)
        except BaseException:
            windows.close_handle(handle)
            raise
    return handle
