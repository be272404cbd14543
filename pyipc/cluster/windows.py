"""What a cluster needs of Windows: job objects, by which a process ends with another.

Owns the types and structures of those calls. Knows nothing of workers.
"""

from __future__ import annotations

import ctypes
from ctypes import wintypes
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Job"]

# Type checkers on other systems do not know what this has on Windows.
_ctypes: Any = ctypes

_EXTENDED_LIMIT_INFORMATION: Final = 9
_KILL_ON_JOB_CLOSE: Final = 0x2000
_SILENT_BREAKAWAY_OK: Final = 0x1000
# PROCESS_TERMINATE and PROCESS_SET_QUOTA.
_RIGHTS: Final = 0x101


class _BasicLimits(ctypes.Structure):
    _fields_ = (
        ("PerProcessUserTimeLimit", ctypes.c_int64),
        ("PerJobUserTimeLimit", ctypes.c_int64),
        ("LimitFlags", wintypes.DWORD),
        ("MinimumWorkingSetSize", ctypes.c_size_t),
        ("MaximumWorkingSetSize", ctypes.c_size_t),
        ("ActiveProcessLimit", wintypes.DWORD),
        ("Affinity", ctypes.c_size_t),
        ("PriorityClass", wintypes.DWORD),
        ("SchedulingClass", wintypes.DWORD),
    )


class _ExtendedLimits(ctypes.Structure):
    _fields_ = (
        ("BasicLimitInformation", _BasicLimits),
        ("IoInfo", ctypes.c_uint64 * 6),
        ("ProcessMemoryLimit", ctypes.c_size_t),
        ("JobMemoryLimit", ctypes.c_size_t),
        ("PeakProcessMemoryUsed", ctypes.c_size_t),
        ("PeakJobMemoryUsed", ctypes.c_size_t),
    )


class Job:
    """A job object. Its processes are ended by Windows when its last handle is closed, which is here.

    That happens in any case when this process ends, however it ends. What the processes start is not of the job.

    Raises:
        OSError: Windows refuses, or this is no Windows.
    """

    def __init__(self) -> None:
        if not hasattr(ctypes, "WinDLL"):
            raise OSError("this system is not Windows")
        kernel = _ctypes.WinDLL("kernel32", use_last_error=True)
        boolean, number, handle, address = wintypes.BOOL, wintypes.DWORD, wintypes.HANDLE, wintypes.LPVOID

        def function(name: str, result: object, *arguments: object) -> Callable[..., Any]:
            found: Any = getattr(kernel, name)
            # Without these ctypes would cut handles and addresses to 32 bits.
            found.restype, found.argtypes = result, arguments
            return found  # type: ignore[no-any-return]

        self._open_process = function("OpenProcess", handle, number, boolean, number)
        self._assign = function("AssignProcessToJobObject", boolean, handle, handle)
        self._close_handle = function("CloseHandle", boolean, handle)
        create = function("CreateJobObjectW", handle, address, wintypes.LPCWSTR)
        limit = function("SetInformationJobObject", boolean, handle, ctypes.c_int, address, number)
        self._job: int | None = _checked(create(None, None))
        limits = _ExtendedLimits()
        limits.BasicLimitInformation.LimitFlags = _KILL_ON_JOB_CLOSE | _SILENT_BREAKAWAY_OK
        try:
            _checked(limit(self._job, _EXTENDED_LIMIT_INFORMATION, ctypes.byref(limits), ctypes.sizeof(limits)))
        except OSError:
            self.close()
            raise

    def add(self, pid: int) -> None:
        """Make a process one of the job.

        Args:
            pid: Its id, which must not be that of another by now: somebody has to hold a handle of the process.

        Raises:
            OSError: Windows refuses; the process may have ended.
        """
        process = _checked(self._open_process(_RIGHTS, False, pid))
        try:
            _checked(self._assign(self._job, process))
        finally:
            self._close_handle(process)

    def close(self) -> None:
        """End what is left of the job, at once and more than once."""
        job, self._job = self._job, None
        if job is not None:
            self._close_handle(job)


def _checked(result: int | None) -> int:
    if not result:
        raise _ctypes.WinError(_ctypes.get_last_error())
    return result
