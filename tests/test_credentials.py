"""What the kernel says about peers: really on this system, and with a patched platform for the others."""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from typing import TYPE_CHECKING

import pytest

from pyipc.transports import credentials
from pyipc.transports.credentials import overflow_uid, peer_credentials
from tests.conftest import CANNOT_RUN

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

needs_unix = pytest.mark.skipif(sys.platform == "win32", reason=f"{CANNOT_RUN} needs Unix domain sockets")


class FakeSocket(socket.socket):
    """Answers `getsockopt` from a table, as another kernel would."""

    def __init__(self, answers: dict[tuple[int, int], bytes | OSError]) -> None:
        super().__init__()
        self.close()
        self._answers = answers

    def getsockopt(self, level: int, option: int, size: int = 0) -> bytes:  # type: ignore[override]
        answer = self._answers[level, option]
        if isinstance(answer, OSError):
            raise answer
        return answer[:size]


def xucred(*, version: int = 0, uid: int = 501, groups: tuple[int, ...] = (20, 12)) -> bytes:
    """A ``struct xucred`` as <sys/ucred.h> of macOS lays it out, spelled in C types with native padding."""
    return struct.pack("@IIh16I", version, uid, len(groups), *groups, *[0] * (16 - len(groups)))


PID = struct.pack("@i", 4321)


def darwin(cred: bytes | OSError, pid: bytes | OSError = PID) -> FakeSocket:
    return FakeSocket({(0, 1): cred, (0, 2): pid})


@needs_unix
def test_both_ends_of_a_pair_are_this_process() -> None:
    left, right = socket.socketpair()
    with left, right:
        assert peer_credentials(left) == peer_credentials(right) == (os.getpid(), os.geteuid(), os.getegid())


@needs_unix
def test_a_socket_that_was_never_connected_has_no_peer() -> None:
    with socket.socket(socket.AF_UNIX) as sock, pytest.raises(OSError, match=r"knows no peer|not connected"):
        peer_credentials(sock)


def test_macos_reports_in_two_options() -> None:
    assert peer_credentials(darwin(xucred()), platform="darwin") == (4321, 501, 20)


def test_macos_group_is_the_first_of_the_list() -> None:
    assert peer_credentials(darwin(xucred(uid=0, groups=(0, 1, 2, 3, 4))), platform="darwin") == (4321, 0, 0)


@pytest.mark.parametrize(
    "sock",
    [
        pytest.param(darwin(xucred(version=1)), id="another version of the structure"),
        pytest.param(darwin(xucred(groups=())), id="no group"),
        pytest.param(darwin(xucred()[:-4]), id="short structure"),
        pytest.param(darwin(b""), id="nothing"),
        pytest.param(darwin(xucred(), b"\1"), id="short pid"),
        pytest.param(darwin(xucred(uid=0xFFFF_FFFF)), id="nobody"),
        pytest.param(darwin(OSError(errno.ENOTCONN, "gone")), id="the peer is gone"),
        pytest.param(darwin(xucred(), OSError(errno.ENOTCONN, "gone")), id="the peer went in between"),
    ],
)
def test_macos_denies_what_it_does_not_understand(sock: FakeSocket) -> None:
    with pytest.raises(OSError, match=r"unknown form|knows no peer|gone"):
        peer_credentials(sock, platform="darwin")


@pytest.mark.skipif(not hasattr(socket, "SO_PEERCRED"), reason=f"{CANNOT_RUN} needs Linux")
def test_linux_denies_what_it_does_not_understand() -> None:
    for answer in (b"", struct.pack("ii", 1, 2), struct.pack("iii", 0, -1, -1)):
        sock = FakeSocket({(socket.SOL_SOCKET, socket.SO_PEERCRED): answer})
        with pytest.raises(OSError, match=r"unknown form|knows no peer"):
            peer_credentials(sock, platform="linux")


@pytest.mark.skipif(not hasattr(socket, "SO_PEERCRED"), reason=f"{CANNOT_RUN} needs Linux")
def test_linux_ids_above_two_billion_are_not_negative() -> None:
    answer = struct.pack("iII", 7, 4_000_000_000, 4_000_000_001)
    sock = FakeSocket({(socket.SOL_SOCKET, socket.SO_PEERCRED): answer})
    assert peer_credentials(sock, platform="linux") == (7, 4_000_000_000, 4_000_000_001)


@pytest.mark.parametrize("platform", ["freebsd14", "sunos5", "win32"])
def test_other_systems_deny(platform: str) -> None:
    with pytest.raises(OSError, match="cannot ask for the credentials") as caught:
        peer_credentials(darwin(xucred()), platform=platform)
    assert caught.value.errno == errno.EOPNOTSUPP


@pytest.fixture
def overflow_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    path = tmp_path / "overflowuid"
    monkeypatch.setattr(credentials, "_OVERFLOW_UID_FILE", str(path))
    return lambda text: (path.write_text(text), None)[1]


def test_the_overflow_uid_is_what_the_system_says(overflow_file: Callable[[str], None]) -> None:
    assert overflow_uid() == 65534  # no such file, as on macOS
    overflow_file("12345\n")
    assert overflow_uid() == 12345
    overflow_file("?")
    assert overflow_uid() == 65534
