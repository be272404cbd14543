"""What systemd says about the sockets that it opened for this process.

Owns the reading of ``LISTEN_PID``, ``LISTEN_FDS`` and ``LISTEN_FDNAMES``, as sd_listen_fds(3) describes them, and the
sentences about what is wrong with them. Opens and looks at nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pyipc.errors import AddressError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["passed_descriptors"]

_FIRST_DESCRIPTOR: Final = 3
#: No process has as many, so the number is nonsense.
_MOST_DESCRIPTORS: Final = 2**16
#: What systemd calls a socket whose name it was not told.
_NAMELESS: Final = "unknown"


def passed_descriptors(name: str, environment: Mapping[str, str], pid: int) -> list[int]:
    """The descriptors of the sockets with a name.

    Args:
        name: The ``FileDescriptorName=`` of the unit, by default that of the unit itself, such as ``app.socket``. Empty
            for all sockets there are.
        environment: As ``os.environ``.
        pid: Of this process.

    Raises:
        AddressError: There are none; the sentence says why.
    """
    address = f"systemd:{name}"
    count = _number(address, environment, "LISTEN_FDS")
    meant_for = _number(address, environment, "LISTEN_PID")
    if meant_for != pid:
        raise AddressError(
            f"{address} cannot be used: systemd passed its sockets to process {meant_for}, and this is {pid}; start "
            "Python by ExecStart= itself, and from a shell script with exec"
        )
    if not 0 < count < _MOST_DESCRIPTORS:
        raise AddressError(f"{address} cannot be used: systemd passed {count} sockets; add one to the .socket unit")
    descriptors = range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + count)
    listed = environment.get("LISTEN_FDNAMES", "")
    names = listed.split(":") if listed else [_NAMELESS] * count
    if len(names) != count:
        raise AddressError(
            f"{address} cannot be used: there are {count} sockets (LISTEN_FDS) and {len(names)} names for them "
            "(LISTEN_FDNAMES); leave both as systemd sets them"
        )
    found = [descriptor for descriptor, each in zip(descriptors, names, strict=True) if name in ("", each)]
    if not found:
        raise AddressError(
            f"{address} cannot be used: systemd passed no socket of this name; there are "
            f"{', '.join(sorted(set(names)))}. Set FileDescriptorName= in the .socket unit"
        )
    return found


def _number(address: str, environment: Mapping[str, str], variable: str) -> int:
    text = environment.get(variable)
    if text is None:
        raise AddressError(
            f"{address} cannot be used: systemd passed no sockets to this process ({variable} is not set); start it "
            "by its .socket unit, or with systemd-socket-activate to try it out"
        )
    if not text.isascii() or not text.isdigit() or len(text) > 10:
        raise AddressError(f"{address} cannot be used: {variable} is {text!r}, which is not a number; systemd sets it")
    return int(text)
