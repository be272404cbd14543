"""Listening on a named pipe for this process alone: trio waits for the clients, without a thread."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import trio

from pyipc.transports.pipe_backlog import ERROR_IO_PENDING, TAKEN_ALREADY, PipeBacklog
from pyipc.transports.port import Listener
from pyipc.transports.windows_api import Overlapped

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyipc.protocol.addresses import Address
    from pyipc.transports.port import Link
    from pyipc.transports.windows_api import Security, WindowsApi

__all__ = ["PipeListener"]


class PipeListener(PipeBacklog, Listener):
    """The instances of a pipe that wait for clients.

    Args:
        windows: The calls of Windows.
        address: Where it listens, as the user knows it.
        name: The name of the pipe.
        security: Who may use it.
        first: The first instance, registered with trio; the listener owns it from here on.
        make: Makes a link of an instance that a client has.
    """

    registers = True

    def __init__(
        self,
        windows: WindowsApi,
        address: Address,
        name: str,
        security: Security,
        *,
        first: int,
        make: Callable[[int], Link],
    ) -> None:
        self._make = make
        # Of the free ones, those on which a call of Windows is under way.
        self._watched: set[int] = set()
        super().__init__(windows, address, name, security, first=first)

    async def accept(self) -> Link:
        """Wait for the next client. Always a schedule point.

        Raises:
            ConnectionClosed: `aclose` was called.
            OSError: There can be no more instances for now; wait a little and go on.

        Cancellation: loses no client.
        """
        return self._adopt(await self._next())

    def retire(self) -> list[Link]:
        """Hand out the clients that wait in line. Only `aclose` lets no others in."""
        links: list[Link] = []
        while self._taken:
            with contextlib.suppress(OSError):  # it is gone already
                links.append(self._adopt(self._taken.popleft()))
        return links

    def _adopt(self, handle: int) -> Link:
        try:
            return self._make(handle)
        except BaseException:
            self._windows.close_handle(handle)
            raise

    def _close_free(self, handle: int) -> None:
        if handle in self._watched:
            self._windows.cancel_io(handle)  # whoever watches it closes it, once Windows is done with it
        else:
            self._windows.close_handle(handle)

    async def _wait_for_clients(self) -> None:
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
                known = error if isinstance(error, OSError) else OSError("the pipe was closed by somebody else")
                self._note_failure(handle, known)
        else:
            scope.cancel()
            if not self._closed:
                self._note_taken(handle)
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
        if code in TAKEN_ALREADY:
            await trio.lowlevel.cancel_shielded_checkpoint()  # Windows has nothing more to report
        elif code in (0, ERROR_IO_PENDING):
            await self._windows.wait_overlapped(handle, overlapped)
        else:
            raise self._windows.error(code)
