"""What named pipes need of Windows: one method a call.

Owns the types and structures of those calls. Knows nothing of addresses, links or who may talk. The object can be
replaced by another, so that what is asked of Windows can be tested anywhere.

Handles are numbers. What fails raises `OSError`, whose ``winerror`` is the number that `error_code` returns.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from ctypes import wintypes
from typing import TYPE_CHECKING, Any, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Overlapped", "Security", "WindowsApi", "error_code"]

# Type checkers on other systems do not know what these two have on Windows.
_ctypes: Any = ctypes
_lowlevel: Any = trio.lowlevel

_INVALID_HANDLE: Final = ctypes.c_void_p(-1).value

# Which handle, which part of its security, which fact about a token.
_SE_KERNEL_OBJECT: Final = 6
_OWNER_SECURITY_INFORMATION: Final = 1
_TOKEN_QUERY: Final = 8
_TOKEN_USER: Final = 1
_SDDL_REVISION_1: Final = 1
# For handles of other processes.
_PROCESS_DUP_HANDLE: Final = 0x40
_DUPLICATE_SAME_ACCESS: Final = 2


class Overlapped(ctypes.Structure):
    """What Windows writes to while a call is under way; it must stay where it is until then."""

    _fields_ = (
        ("Internal", ctypes.c_size_t),
        ("InternalHigh", ctypes.c_size_t),
        ("Offset", wintypes.DWORD),
        ("OffsetHigh", wintypes.DWORD),
        ("hEvent", wintypes.HANDLE),
    )


class _SecurityAttributes(ctypes.Structure):
    _fields_ = (
        ("nLength", wintypes.DWORD),
        ("lpSecurityDescriptor", wintypes.LPVOID),
        ("bInheritHandle", wintypes.BOOL),
    )


class Security:
    """Who may do what with a pipe, as Windows wants it. Handles made with it are not inherited by other programs.

    Args:
        sddl: The same as text, in the security descriptor definition language.
        descriptor: The security descriptor.
    """

    def __init__(self, sddl: str, descriptor: bytes) -> None:
        self.sddl = sddl
        self._descriptor = ctypes.create_string_buffer(descriptor, len(descriptor))
        address = ctypes.cast(self._descriptor, wintypes.LPVOID)
        self.attributes: ctypes.Structure = _SecurityAttributes(ctypes.sizeof(_SecurityAttributes), address, False)


class WindowsApi:
    """The calls.

    Raises:
        OSError: This is no Windows.
    """

    def __init__(self) -> None:
        if not hasattr(ctypes, "WinDLL"):
            raise OSError("this system is not Windows")
        kernel = _ctypes.WinDLL("kernel32", use_last_error=True)
        security = _ctypes.WinDLL("advapi32", use_last_error=True)
        boolean, number, handle, text = wintypes.BOOL, wintypes.DWORD, wintypes.HANDLE, wintypes.LPCWSTR
        address, addresses, numbers = wintypes.LPVOID, ctypes.POINTER(wintypes.LPVOID), ctypes.POINTER(wintypes.DWORD)

        def function(library: Any, name: str, result: object, *arguments: object) -> Callable[..., Any]:
            found: Any = getattr(library, name)
            # Without these ctypes would cut handles and addresses to 32 bits.
            found.restype, found.argtypes = result, arguments
            return found  # type: ignore[no-any-return]

        self._create_named_pipe = function(
            kernel, "CreateNamedPipeW", handle, text, *[number] * 6, ctypes.POINTER(_SecurityAttributes)
        )
        self._create_file = function(
            kernel, "CreateFileW", handle, text, number, number, address, number, number, handle
        )
        self._connect_named_pipe = function(kernel, "ConnectNamedPipe", boolean, handle, ctypes.POINTER(Overlapped))
        self._cancel_io = function(kernel, "CancelIoEx", boolean, handle, address)
        self._close_handle = function(kernel, "CloseHandle", boolean, handle)
        self._create_event = function(kernel, "CreateEventW", handle, address, boolean, boolean, text)
        self._set_event = function(kernel, "SetEvent", boolean, handle)
        self._reset_event = function(kernel, "ResetEvent", boolean, handle)
        self._overlapped_result = function(
            kernel, "GetOverlappedResult", boolean, handle, ctypes.POINTER(Overlapped), numbers, boolean
        )
        self._open_process = function(kernel, "OpenProcess", handle, number, boolean, number)
        self._duplicate_handle = function(
            kernel, "DuplicateHandle", boolean, *[handle] * 3, ctypes.POINTER(wintypes.HANDLE), number, boolean, number
        )
        self._client_process = function(kernel, "GetNamedPipeClientProcessId", boolean, handle, numbers)
        self._server_process = function(kernel, "GetNamedPipeServerProcessId", boolean, handle, numbers)
        self._current_process = function(kernel, "GetCurrentProcess", handle)
        self._current_thread = function(kernel, "GetCurrentThread", handle)
        self._local_free = function(kernel, "LocalFree", address, address)
        self._process_token = function(
            security, "OpenProcessToken", boolean, handle, number, ctypes.POINTER(wintypes.HANDLE)
        )
        self._thread_token = function(
            security, "OpenThreadToken", boolean, handle, number, boolean, ctypes.POINTER(wintypes.HANDLE)
        )
        self._token_information = function(
            security, "GetTokenInformation", boolean, handle, ctypes.c_int, address, number, numbers
        )
        self._impersonate = function(security, "ImpersonateNamedPipeClient", boolean, handle)
        self._revert = function(security, "RevertToSelf", boolean)
        self._sid_to_text = function(
            security, "ConvertSidToStringSidW", boolean, address, ctypes.POINTER(wintypes.LPWSTR)
        )
        self._text_to_descriptor = function(
            security,
            "ConvertStringSecurityDescriptorToSecurityDescriptorW",
            boolean,
            text,
            number,
            addresses,
            numbers,
        )
        self._security_info = function(
            security, "GetSecurityInfo", number, handle, ctypes.c_int, number, addresses, *[address] * 3, addresses
        )

    # --- pipes ---

    def create_named_pipe(
        self,
        name: str,
        open_mode: int,
        pipe_mode: int,
        max_instances: int,
        out_buffer_size: int,
        in_buffer_size: int,
        default_timeout: int,
        security: Security,
    ) -> int:
        """``CreateNamedPipeW``: one more instance of a pipe, for one client; the first one makes the name."""
        made = self._create_named_pipe(
            name,
            open_mode,
            pipe_mode,
            max_instances,
            out_buffer_size,
            in_buffer_size,
            default_timeout,
            ctypes.byref(security.attributes),
        )
        return self._valid(made)

    def create_file(self, name: str, access: int, share_mode: int, disposition: int, flags: int) -> int:
        """``CreateFileW``: opens a pipe as its client."""
        return self._valid(self._create_file(name, access, share_mode, None, disposition, flags, None))

    def connect_named_pipe(self, handle: int, overlapped: Overlapped) -> int:
        """``ConnectNamedPipe``: begins to wait for a client.

        Returns:
            0, or why there is nothing to wait for, or that there is (997).
        """
        return 0 if self._connect_named_pipe(handle, ctypes.byref(overlapped)) else self._last_error()

    def cancel_io(self, handle: int) -> None:
        """``CancelIoEx``: ends all that is under way on a handle, if there is anything."""
        self._cancel_io(handle, None)

    def close_handle(self, handle: int) -> None:
        """``CloseHandle``."""
        self._close_handle(handle)

    def duplicate_handle(self, handle: int, pid: int) -> int:
        """``DuplicateHandle``: a handle of the same file for another process; returns its number there."""
        process = self._valid(self._open_process(_PROCESS_DUP_HANDLE, False, pid))
        try:
            there = wintypes.HANDLE()
            self._check(
                self._duplicate_handle(
                    self._current_process(), handle, process, ctypes.byref(there), 0, False, _DUPLICATE_SAME_ACCESS
                )
            )
            return there.value or 0
        finally:
            self._close_handle(process)

    # --- waiting without trio's completion port ---

    def create_event(self) -> int:
        """``CreateEventW``: an event that is not set, and stays set until it is reset."""
        return self._valid(self._create_event(None, True, False, None))

    def set_event(self, event: int) -> None:
        """``SetEvent``."""
        self._check(self._set_event(event))

    def reset_event(self, event: int) -> None:
        """``ResetEvent``."""
        self._check(self._reset_event(event))

    async def wait_event(self, event: int) -> None:
        """Wait, in a thread, until an event is set.

        Cancellation: changes nothing.
        """
        await _lowlevel.WaitForSingleObject(event)

    def overlapped_result(self, handle: int, overlapped: Overlapped) -> int:
        """``GetOverlappedResult``, without waiting.

        Returns:
            0 if the call is done, 996 if it is under way, or why it failed.
        """
        count = wintypes.DWORD()
        done = self._overlapped_result(handle, ctypes.byref(overlapped), ctypes.byref(count), False)
        return 0 if done else self._last_error()

    # --- trio's completion port ---

    def register(self, handle: int) -> None:
        """Let the running trio wait for what is done with a handle. Can be done once in the life of a handle."""
        _lowlevel.register_with_iocp(handle)

    async def wait_overlapped(self, handle: int, overlapped: Overlapped) -> None:
        """Wait for a call that is under way. There must be no checkpoint between the call and this."""
        await _lowlevel.wait_overlapped(handle, ctypes.addressof(overlapped))

    async def read(self, handle: int, buffer: bytearray) -> int:
        """Read what is there, or comes, into a buffer; returns the number of bytes.

        Cancellation: loses nothing. What was read is returned instead.
        """
        count: int = await _lowlevel.readinto_overlapped(handle, buffer)
        return count

    async def write(self, handle: int, data: memoryview) -> int:
        """Write; returns the number of bytes.

        Cancellation: an unknown part may have been written.
        """
        count: int = await _lowlevel.write_overlapped(handle, data)
        return count

    # --- who ---

    def client_process_id(self, handle: int) -> int:
        """``GetNamedPipeClientProcessId``. A client can lie about it."""
        return self._process_id(self._client_process, handle)

    def server_process_id(self, handle: int) -> int:
        """``GetNamedPipeServerProcessId``."""
        return self._process_id(self._server_process, handle)

    def own_sid(self) -> str:
        """The user whom this process runs as."""
        token = wintypes.HANDLE()
        self._check(self._process_token(self._current_process(), _TOKEN_QUERY, ctypes.byref(token)))
        return self._user_of(token)

    def owner_sid(self, handle: int) -> str:
        """The user, or group, who owns a pipe: who made its name."""
        owner, descriptor = wintypes.LPVOID(), wintypes.LPVOID()
        code = self._security_info(
            handle,
            _SE_KERNEL_OBJECT,
            _OWNER_SECURITY_INFORMATION,
            ctypes.byref(owner),
            None,
            None,
            None,
            ctypes.byref(descriptor),
        )
        if code:
            raise self.error(code)
        try:
            return self._sid_text(owner)
        finally:
            self._local_free(descriptor)

    @trio.lowlevel.enable_ki_protection  # an interruption must not leave us as somebody else
    def client_sid(self, handle: int) -> str:
        """The user whom the client of a pipe runs as, found out by acting as this user for a moment."""
        token = wintypes.HANDLE()
        try:
            self._check(self._impersonate(handle))
            self._check(self._thread_token(self._current_thread(), _TOKEN_QUERY, True, ctypes.byref(token)))
        finally:
            if not self._revert():
                # Whatever ran from here on, the unwinding of an error too, would run as the client.
                code = self._last_error()
                with contextlib.suppress(OSError):
                    os.write(2, b"pyipc: Windows does not give us back our own identity (error %d); aborting\n" % code)
                os.abort()
        return self._user_of(token)

    def security(self, sddl: str) -> Security:
        """``ConvertStringSecurityDescriptorToSecurityDescriptorW``."""
        descriptor, size = wintypes.LPVOID(), wintypes.DWORD()
        self._check(
            self._text_to_descriptor(sddl, _SDDL_REVISION_1, ctypes.byref(descriptor), ctypes.byref(size)),
        )
        try:
            return Security(sddl, ctypes.string_at(descriptor, size.value))
        finally:
            self._local_free(descriptor)

    # --- small things ---

    def error(self, code: int) -> OSError:
        """The error of a number, in the words of Windows."""
        error: OSError = _ctypes.WinError(code)
        return error

    def _process_id(self, ask: Callable[..., Any], handle: int) -> int:
        process = wintypes.DWORD()
        self._check(ask(handle, ctypes.byref(process)))
        return process.value

    def _user_of(self, token: wintypes.HANDLE) -> str:
        """The user that a token is about. Closes it."""
        try:
            size = wintypes.DWORD()
            self._token_information(token, _TOKEN_USER, None, 0, ctypes.byref(size))  # tells the size, and fails
            buffer = ctypes.create_string_buffer(size.value)
            self._check(self._token_information(token, _TOKEN_USER, buffer, size, ctypes.byref(size)))
            # It begins with the address of the SID.
            return self._sid_text(wintypes.LPVOID.from_buffer(buffer))
        finally:
            self._close_handle(token)

    def _sid_text(self, sid: wintypes.LPVOID) -> str:
        text = wintypes.LPWSTR()
        self._check(self._sid_to_text(sid, ctypes.byref(text)))
        try:
            return text.value or ""
        finally:
            self._local_free(ctypes.cast(text, wintypes.LPVOID))

    def _valid(self, handle: int | None) -> int:
        if handle is None or handle == _INVALID_HANDLE:
            raise self.error(self._last_error())
        return handle

    def _check(self, succeeded: int) -> None:
        if not succeeded:
            raise self.error(self._last_error())

    def _last_error(self) -> int:
        code: int = _ctypes.get_last_error()
        return code


def error_code(error: OSError) -> int:
    """The number of a Windows error, such as 231; 0 for an error that has none."""
    return getattr(error, "winerror", None) or 0
