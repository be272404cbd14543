"""A Windows that is not there: the calls that named pipes make, noted, and answered as a test says.

It has pipes with names, instances and the order in which clients take them, so far as the transport depends on it.
What is written and read stays with the test.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
from typing import Any, cast

import trio

from pyipc.transports.windows_api import Overlapped, Security, WindowsApi

__all__ = ["ME", "SOMEBODY", "FakeWindows", "windows_error"]

ME = "S-1-5-21-1-2-3-1001"
SOMEBODY = "S-1-5-21-1-2-3-1002"

FIRST_INSTANCE = 0x8_0000


def windows_error(code: int) -> OSError:
    """An error as Windows reports it, on any system."""
    error = OSError(f"[WinError {code}]")
    cast("Any", error).winerror = code
    return error


@dataclasses.dataclass
class Instance:
    """One instance of a pipe."""

    name: str
    security: Security
    watched: trio.Event | None = None
    is_taken: bool = False
    is_cancelled: bool = False
    event: int = 0


class FakeWindows(WindowsApi):
    """Windows, with the user `ME`.

    Attributes:
        calls: What was asked of it: the name of the call, and its arguments.
        instances: The open instances of pipes, by their handles.
        open: All open handles.
        failures: Errors to raise instead of doing what is asked, by the name of the call; each is used once.
        connecting: What `connect_named_pipe` answers for a handle, if not what is so.
        reads: What `read` returns or raises next; it waits when there is nothing.
        client: Who the clients are; ``None`` if they do not let themselves be identified.
        is_client_dynamic: Whether clients did not ask to be identified, so that it takes something read from them.
        heard: Handles from which something was read.
        events: Those there are, by their handles.
        is_slow: Whether what is under way goes on for a while after it was canceled.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.instances: dict[int, Instance] = {}
        self.open: set[int] = set()
        self.registered: set[int] = set()
        self.failures: dict[str, collections.deque[int]] = collections.defaultdict(collections.deque)
        self.connecting: dict[int, int] = {}
        self.reads: collections.deque[bytes | int] = collections.deque()
        self.written: bytearray = bytearray()
        self.busy: dict[int, trio.Event] = {}
        self.owner = ME
        self.client: str | None = ME
        self.is_client_dynamic = False
        self.heard: set[int] = set()
        self.events: dict[int, trio.Event] = {}
        self.is_slow = False
        self._handles = itertools.count(100, 4)

    def named(self, name: str) -> list[tuple[Any, ...]]:
        """The arguments of all calls of one kind."""
        return [arguments for call, arguments in self.calls if call == name]

    def names(self) -> list[str]:
        """The calls, without their arguments."""
        return [call for call, _ in self.calls]

    def _note(self, name: str, *arguments: object) -> None:
        self.calls.append((name, arguments))
        if self.failures[name]:
            raise windows_error(self.failures[name].popleft())

    def _new_handle(self) -> int:
        handle = next(self._handles)
        self.open.add(handle)
        return handle

    def take(self, handle: int) -> None:
        """Be a client that takes an instance."""
        instance = self.instances[handle]
        instance.is_taken = True
        if instance.watched is not None:
            instance.watched.set()
        if instance.event:
            self.events[instance.event].set()

    # --- the calls ---

    def create_named_pipe(self, name: str, open_mode: int, *rest: Any) -> int:
        self._note("create_named_pipe", name, open_mode, *rest)
        if open_mode & FIRST_INSTANCE and any(instance.name == name for instance in self.instances.values()):
            raise windows_error(5)
        handle = self._new_handle()
        self.instances[handle] = Instance(name, rest[-1])
        return handle

    def create_file(self, name: str, access: int, share_mode: int, disposition: int, flags: int) -> int:
        self._note("create_file", name, access, share_mode, disposition, flags)
        return self._new_handle()

    def connect_named_pipe(self, handle: int, overlapped: Overlapped) -> int:
        self._note("connect_named_pipe", handle)
        assert trio.lowlevel.currently_ki_protected(), "Windows would write where nothing is any more"
        event = overlapped.hEvent
        assert event or handle in self.registered, "nobody would hear of it"
        assert not (event and handle in self.registered), "no other process could wait for it"
        if handle in self.connecting:
            return self.connecting[handle]
        if self.instances[handle].is_taken:
            return 535
        if event:
            assert not self.instances[handle].event, "it is under way already"
            self.instances[handle].event = event
        else:
            self.instances[handle].watched = trio.Event()
        return 997

    async def wait_overlapped(self, handle: int, overlapped: Overlapped) -> None:
        self._note("wait_overlapped", handle)
        instance = self.instances[handle]
        assert instance.watched is not None, "nothing is under way, so trio would wait forever"
        try:
            # As trio does, it returns what has happened, even if it is cancelled as well.
            await instance.watched.wait()
        except trio.Cancelled:
            assert handle in self.open, "trio cannot cancel what is under way on a closed handle"
            if not instance.is_taken:
                raise
        finally:
            instance.watched = None
        if instance.is_cancelled:
            raise trio.ClosedResourceError

    def create_event(self) -> int:
        self._note("create_event")
        handle = self._new_handle()
        self.events[handle] = trio.Event()
        return handle

    def set_event(self, event: int) -> None:
        self.events[event].set()

    def reset_event(self, event: int) -> None:
        if self.events[event].is_set():
            self.events[event] = trio.Event()

    async def wait_event(self, event: int) -> None:
        self._note("wait_event", event)
        await self.events[event].wait()

    def overlapped_result(self, handle: int, overlapped: Overlapped) -> int:
        self._note("overlapped_result", handle)
        instance = self.instances[handle]
        assert instance.event == overlapped.hEvent, "nothing is under way"
        if handle in self.connecting:
            return self.connecting[handle]
        if instance.is_cancelled and not self.is_slow:
            return 995
        return 0 if instance.is_taken else 996

    def duplicate_handle(self, handle: int, pid: int) -> int:
        self._note("duplicate_handle", handle, pid)
        assert handle in self.open
        return handle + 1

    def cancel_io(self, handle: int) -> None:
        self._note("cancel_io", handle)
        if handle in self.instances and self.instances[handle].event:
            self.instances[handle].is_cancelled = True
        if handle in self.instances and (watched := self.instances[handle].watched) is not None:
            self.instances[handle].is_cancelled = True
            trio.lowlevel.spawn_system_task(_set_later, watched)
        if handle in self.busy:
            trio.lowlevel.spawn_system_task(_set_later, self.busy[handle])

    def close_handle(self, handle: int) -> None:
        self._note("close_handle", handle)
        self.open.remove(handle)
        self.events.pop(handle, None)
        instance = self.instances.pop(handle, None)
        assert instance is None or instance.watched is None, "closed while Windows is at work on it"
        assert handle not in self.busy, "closed while Windows is at work on it"

    def register(self, handle: int) -> None:
        self._note("register", handle)
        assert handle not in self.registered, "a handle can be registered once"
        self.registered.add(handle)

    async def read(self, handle: int, buffer: bytearray) -> int:
        self._note("read", handle, len(buffer))
        await trio.lowlevel.checkpoint()
        if not self.reads:
            await self._be_busy(handle)
        result = self.reads.popleft()
        if isinstance(result, int):
            raise windows_error(result)
        buffer[: len(result)] = result
        self.heard.add(handle)
        return len(result)

    async def write(self, handle: int, data: memoryview) -> int:
        self._note("write", handle, len(data))
        await trio.lowlevel.checkpoint()
        self.written += data
        return len(data)

    async def _be_busy(self, handle: int) -> None:
        self.busy[handle] = trio.Event()
        try:
            await self.busy[handle].wait()
        except trio.Cancelled:
            assert handle in self.open, "trio cannot cancel what is under way on a closed handle"
            raise
        finally:
            del self.busy[handle]
        raise trio.ClosedResourceError

    def client_process_id(self, handle: int) -> int:
        self._note("client_process_id", handle)
        return 4321

    def server_process_id(self, handle: int) -> int:
        self._note("server_process_id", handle)
        return 1234

    def own_sid(self) -> str:
        return ME

    def owner_sid(self, handle: int) -> str:
        self._note("owner_sid", handle)
        return self.owner

    def client_sid(self, handle: int) -> str:
        self._note("client_sid", handle)
        if self.is_client_dynamic and handle not in self.heard:
            raise windows_error(1368)
        if self.client is None:
            raise windows_error(1347)
        return self.client

    def security(self, sddl: str) -> Security:
        self._note("security", sddl)
        return Security(sddl, sddl.encode())

    def error(self, code: int) -> OSError:
        return windows_error(code)


async def _set_later(event: trio.Event) -> None:
    """Trio hears of what Windows has done after a while."""
    for _ in range(4):
        await trio.lowlevel.checkpoint()
    event.set()
