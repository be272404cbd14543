"""Taking the name of a named pipe for other processes to serve.

Owns noticing that a client has come without trio's completion port: a file belongs to one such port for the rest of its
life, and is to be that of whoever serves the client. Windows sets an event instead, for which one thread waits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from pyipc.transports.pipe_backlog import ERROR_IO_PENDING, TAKEN_ALREADY, PipeBacklog
from pyipc.transports.pipe_instance import PipeInstance
from pyipc.transports.port import Claim
from pyipc.transports.windows_api import Overlapped

if TYPE_CHECKING:
    from pyipc.protocol.addresses import Address
    from pyipc.transports.windows_api import Security, WindowsApi

__all__ = ["PipeClaim"]

_ERROR_IO_INCOMPLETE: Final = 996
#: What Windows may write to, of all claims there are: whatever becomes of a claim, it is not freed before that is over.
_UNDER_WAY: Final[dict[int, Overlapped]] = {}


class PipeClaim(PipeBacklog, Claim):
    """The instances of a pipe that wait for clients of other processes.

    Args:
        windows: The calls of Windows.
        address: Where it is, as the user knows it.
        name: The name of the pipe.
        security: Who may use it.
        first: The first instance; the claim owns it from here on.

    Raises:
        OSError: Windows refuses.
    """

    registers = False

    def __init__(self, windows: WindowsApi, address: Address, name: str, security: Security, *, first: int) -> None:
        # Set whenever a client has taken any of the instances: they are looked through then.
        self._event = windows.create_event()
        self._waits = False
        # Of the free ones, those on which a call of Windows is under way; it goes on between two calls of `accept`.
        self._pending: dict[int, Overlapped] = {}
        super().__init__(windows, address, name, security, first=first)

    async def accept(self) -> PipeInstance:
        """Wait for the next client. Always a schedule point.

        Raises:
            ConnectionClosed: `aclose` was called.
            OSError: There can be no more instances for now; wait a little and go on.

        Cancellation: loses no client.
        """
        return PipeInstance(await self._next(), windows=self._windows)

    def retire(self) -> list[PipeInstance]:
        """Hand out the clients that wait in line. Only `aclose` lets no others in."""
        self._look()
        instances = [PipeInstance(handle, windows=self._windows) for handle in self._taken]
        self._taken.clear()
        return instances

    async def _wait_for_clients(self) -> None:
        # First of all, so that whatever comes from here on is either seen by looking, or waited for.
        self._windows.reset_event(self._event)
        for handle in tuple(self._free):
            if handle not in self._pending:
                self._watch(handle)
        if self._look():
            await trio.lowlevel.checkpoint()
            return
        self._waits = True
        try:
            await self._windows.wait_event(self._event)
        finally:
            self._waits = False
            if self._closed:
                self._windows.close_handle(self._event)
        self._look()

    @trio.lowlevel.enable_ki_protection  # nothing that Windows writes to may be forgotten
    def _watch(self, handle: int) -> None:
        """Have the event set when a client takes an instance."""
        overlapped = Overlapped(hEvent=self._event)
        code = self._windows.connect_named_pipe(handle, overlapped)
        if code in TAKEN_ALREADY:
            self._note_taken(handle)
        elif code in (0, ERROR_IO_PENDING):
            self._pending[handle] = overlapped
            _UNDER_WAY[id(overlapped)] = overlapped
        else:
            self._note_failure(handle, self._windows.error(code))

    def _look(self) -> bool:
        """See which instances were taken meanwhile, or cannot be; whether there is anything to be told of."""
        for handle, overlapped in tuple(self._pending.items()):
            code = self._windows.overlapped_result(handle, overlapped)
            if code == _ERROR_IO_INCOMPLETE:
                continue
            del self._pending[handle]
            _UNDER_WAY.pop(id(overlapped), None)
            if code:
                self._note_failure(handle, self._windows.error(code))
            else:
                self._note_taken(handle)
        return bool(self._taken) or self._failure is not None

    def _close_free(self, handle: int) -> None:
        overlapped = self._pending.pop(handle, None)
        if overlapped is not None:
            self._windows.cancel_io(handle)
            if self._windows.overlapped_result(handle, overlapped) != _ERROR_IO_INCOMPLETE:
                _UNDER_WAY.pop(id(overlapped), None)
        self._windows.close_handle(handle)

    def _wake(self) -> None:
        if self._waits:
            self._windows.set_event(self._event)  # whoever waits for it closes it
        else:
            self._windows.close_handle(self._event)
