"""How a command ends: its exit status, and the errors that it stands for."""

from __future__ import annotations

import enum
from typing import Any

import pyipc

__all__ = ["ExitCode", "Failed", "exit_code_of", "words_of"]


class ExitCode(enum.IntEnum):
    """The exit status of every command, with what it means."""

    meaning: str

    def __new__(cls, status: int, meaning: str) -> ExitCode:
        """A member with its meaning."""
        code = int.__new__(cls, status)
        code._value_ = status
        code.meaning = meaning
        return code

    OK = 0, "done"
    REFUSED = 1, "the other side answered with an error, or found a problem"
    USAGE = 2, "the command, an address or the data is wrong"
    UNREACHABLE = 3, "nobody is there to connect to, or the address cannot be listened on"
    TIMEOUT = 4, "what was waited for did not come in time"
    LOST = 5, "the connection was lost, or something could not be delivered"
    IO = 6, "the input could not be read or the output could not be written"
    HANGUP = 129, "the terminal was closed"
    INTERRUPTED = 130, "interrupted, as by Ctrl-C"
    BROKEN_PIPE = 141, "whoever read the output has gone"
    TERMINATED = 143, "asked to end, as by kill"


class Failed(Exception):
    """A command cannot go on.

    Attributes:
        code: The exit status.
        sentence: What is wrong and what to do, for people.
    """

    def __init__(self, code: ExitCode, sentence: str) -> None:
        self.code = code
        self.sentence = sentence
        super().__init__(sentence)


# The first that fits counts.
_CODES: tuple[tuple[type[pyipc.IPCError], ExitCode], ...] = (
    (pyipc.AddressError, ExitCode.USAGE),
    (pyipc.CertificateFileError, ExitCode.USAGE),
    (pyipc.PeerLacksFeature, ExitCode.REFUSED),
    (pyipc.LocalProtocolError, ExitCode.USAGE),
    (pyipc.ListenError, ExitCode.UNREACHABLE),
    (pyipc.ConnectError, ExitCode.UNREACHABLE),
    (pyipc.RequestTimeout, ExitCode.TIMEOUT),
    (pyipc.RequestError, ExitCode.REFUSED),
)


def exit_code_of(error: pyipc.IPCError) -> ExitCode:
    """The exit status that an error of the library stands for."""
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    return ExitCode.LOST


def words_of(error: pyipc.RequestError) -> tuple[str, str, Any]:
    """Code, message and data of an error, as the server sent them where it did."""
    match error:
        case pyipc.RemoteError(code=code, message=message, data=data):
            return code, message, data
        case pyipc.NoHandler():
            return "no-handler", str(error), None
        case pyipc.InvalidData(path=path):
            return "invalid-data", str(error), {"path": path}
        case pyipc.RequestTimeout():
            return "timeout", str(error), None
        case _:
            return "failed", str(error), None
