"""Socket files: what may be replaced, what is refused and left alone, and who wins a race."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pyipc.errors import AddressError, AddressInUse, IPCError, ListenError, UnsafePath
from pyipc.transports.safe_paths import (
    PathClaim,
    check_length,
    default_directories,
    open_private_directory,
    open_socket_directory,
    socket_is_live,
)
from tests.conftest import CANNOT_RUN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Forge = Callable[[Path], None]

fcntl = pytest.importorskip("fcntl", reason=f"{CANNOT_RUN} needs Unix domain sockets")

ROOT = Path(__file__).resolve().parent.parent
STRANGER = 12345


@pytest.fixture
def place() -> Iterator[Path]:
    """A private directory with a short path: that of pytest is too long for sockets on macOS."""
    directory = Path(tempfile.mkdtemp(prefix="pyipc-", dir=os.path.realpath("/tmp")))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(autouse=True)
def no_descriptor_leaks() -> Iterator[None]:
    before = set(os.listdir("/dev/fd"))
    yield
    assert set(os.listdir("/dev/fd")) == before


@pytest.fixture(params=["really", "patched"])
def give_away(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Forge:
    """Makes a file belong to another user: really, where we are root, and in what ``os.stat`` says."""
    if request.param == "really":
        if os.geteuid() != 0:
            pytest.skip(f"{CANNOT_RUN} needs root to give files away; the patched variant covers it")
        return lambda path: os.chown(path, STRANGER, STRANGER, follow_symlinks=False)
    given: set[int] = set()

    def patch(name: str) -> None:
        real = getattr(os, name)

        def patched(*args: object, **options: object) -> os.stat_result:
            info: os.stat_result = real(*args, **options)
            return os.stat_result((*info[:4], STRANGER, *info[5:])) if info.st_ino in given else info

        monkeypatch.setattr(os, name, patched)

    def forge(path: Path) -> None:
        given.add(path.lstat().st_ino)

    patch("stat")
    patch("fstat")
    return forge


def claim(path: Path) -> PathClaim:
    return PathClaim(str(path), open_socket_directory(str(path.parent)))


@contextlib.contextmanager
def serving(path: Path) -> Iterator[PathClaim]:
    """A server of ours, for as long as the block runs."""
    held = claim(path)
    with socket.socket(socket.AF_UNIX) as sock:
        held.bind(sock, mode=0o600)
        sock.listen(5)
        try:
            yield held
        finally:
            held.release()


@contextlib.contextmanager
def listening(path: Path, backlog: int = 5) -> Iterator[socket.socket]:
    """A server that knows nothing of locks, as any node-ipc program."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen(backlog)
        yield sock


def leave_dead_socket(path: Path) -> None:
    with listening(path):
        pass


def state(path: Path) -> tuple[object, ...]:
    """Everything that would tell that somebody touched a file."""
    info = path.lstat()
    content: object = None
    if stat.S_ISREG(info.st_mode):
        content = path.read_bytes()
    elif stat.S_ISLNK(info.st_mode):
        content = path.readlink()
    elif stat.S_ISDIR(info.st_mode):
        content = os.listdir(path)
    return info.st_ino, info.st_mode, info.st_uid, info.st_gid, info.st_mtime_ns, info.st_ctime_ns, content


# --- what is at the path ----------------------------------------------------------------------------------------


def test_nothing_there_is_bound(place: Path) -> None:
    path = place / "s"
    with serving(path):
        assert stat.S_ISSOCK(path.lstat().st_mode)
        assert socket_is_live(str(path))
        lock = (place / "s.lock").lstat()
        assert stat.S_ISREG(lock.st_mode)
        assert stat.S_IMODE(lock.st_mode) == 0o600
    assert list(place.iterdir()) == []


def test_our_own_dead_socket_is_replaced(place: Path) -> None:
    path = place / "s"
    leave_dead_socket(path)
    (place / "s.lock").touch(mode=0o600)
    # The inode of the dead one cannot be used again while this holds it.
    os.link(path, place / "keep")
    before = path.lstat().st_ino
    with serving(path):
        assert path.lstat().st_ino != before
        assert socket_is_live(str(path))
    assert [file.name for file in place.iterdir()] == ["keep"]


def test_a_live_server_with_a_lock_is_left_alone(place: Path) -> None:
    path = place / "s"
    with serving(path):
        before = state(path), state(place / "s.lock")
        with pytest.raises(AddressInUse, match="another server holds"):
            claim(path)
        assert (state(path), state(place / "s.lock")) == before
        assert socket_is_live(str(path))


@pytest.mark.parametrize("backlog", [5, 0], ids=["idle", "full backlog"])
def test_a_live_server_without_a_lock_is_left_alone(place: Path, backlog: int) -> None:
    path = place / "s"
    with listening(path, backlog) as server, contextlib.ExitStack() as callers:
        while backlog == 0:
            caller = callers.enter_context(socket.socket(socket.AF_UNIX))
            caller.setblocking(False)
            try:
                caller.connect(str(path))
            except BlockingIOError:
                break
            except ConnectionRefusedError:
                pytest.skip(f"{CANNOT_RUN} a full backlog looks like a dead server on this system")
        before = state(path)
        with pytest.raises(AddressInUse, match="another program listens"):
            claim(path)
        assert state(path) == before
        assert [file.name for file in place.iterdir()] == ["s"]
        server.accept()[0].close()


def make_socket_of_another_kind(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(str(path))
    return sock


def test_a_socket_that_cannot_be_judged_is_left_alone(place: Path) -> None:
    path = place / "s"
    with make_socket_of_another_kind(path):
        before = state(path)
        with pytest.raises(AddressInUse, match="cannot be told"):
            claim(path)
        assert state(path) == before
        assert [file.name for file in place.iterdir()] == ["s"]


def make_symlink(path: Path) -> None:
    (path.parent / "other").mkdir()
    leave_dead_socket(path.parent / "other" / "target")
    path.symlink_to(path.parent / "other" / "target")


def make_file(path: Path) -> None:
    path.write_text("precious")


def make_dangling_symlink(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere")


IN_THE_WAY = [
    pytest.param(make_symlink, "a symbolic link", id="symlink to a dead socket"),
    pytest.param(make_dangling_symlink, "a symbolic link", id="dangling symlink"),
    pytest.param(Path.mkdir, "a directory", id="directory"),
    pytest.param(make_file, "a regular file", id="regular file"),
    pytest.param(os.mkfifo, "a device or a pipe", id="fifo"),
]


@pytest.mark.parametrize(("make", "kind"), IN_THE_WAY)
def test_what_is_no_socket_is_left_alone(place: Path, make: Callable[[Path], None], kind: str) -> None:
    path = place / "s"
    make(path)
    before = state(path), sorted(place.rglob("*"))
    with pytest.raises(UnsafePath, match=kind):
        claim(path)
    assert (state(path), sorted(place.rglob("*"))) == before


@pytest.mark.parametrize("make", [leave_dead_socket, make_file, make_dangling_symlink, Path.mkdir])
def test_what_belongs_to_somebody_else_is_left_alone(
    place: Path, give_away: Forge, make: Callable[[Path], None]
) -> None:
    path = place / "s"
    make(path)
    give_away(path)
    before = state(path)
    with pytest.raises(UnsafePath, match="belongs to user 12345"):
        claim(path)
    assert state(path) == before
    assert [file.name for file in place.iterdir()] == ["s"]


def test_a_live_server_of_somebody_else_is_left_alone(place: Path, give_away: Forge) -> None:
    path = place / "s"
    with listening(path) as server:
        give_away(path)
        with pytest.raises(UnsafePath, match="belongs to user 12345"):
            claim(path)
        server.setblocking(False)
        with pytest.raises(BlockingIOError):  # it was not even knocked at
            server.accept()


# --- the lock file ----------------------------------------------------------------------------------------------


def make_socket(path: Path) -> None:
    leave_dead_socket(path)


@pytest.mark.parametrize(("make", "kind"), [*IN_THE_WAY, pytest.param(make_socket, "a socket", id="socket")])
def test_a_lock_that_is_no_file_is_left_alone(place: Path, make: Callable[[Path], None], kind: str) -> None:
    lock = place / "s.lock"
    make(lock)
    before = state(lock), sorted(place.rglob("*"))
    with pytest.raises(UnsafePath, match=kind):
        claim(place / "s")
    assert (state(lock), sorted(place.rglob("*"))) == before


def test_a_lock_of_somebody_else_is_left_alone(place: Path, give_away: Forge) -> None:
    lock = place / "s.lock"
    make_file(lock)
    give_away(lock)
    before = state(lock)
    with pytest.raises(UnsafePath, match=r"s\.lock' belongs to user 12345"):
        claim(place / "s")
    assert state(lock) == before
    assert [file.name for file in place.iterdir()] == ["s.lock"]


def test_a_lock_that_is_removed_while_it_is_taken_proves_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between opening and locking, its last holder removes it and a third server makes and takes a new one."""
    lock = place / "s.lock"
    real = fcntl.flock
    third: list[int] = []

    def flock(descriptor: int, how: int) -> None:
        if not third:
            lock.unlink()
            third.append(os.open(lock, os.O_RDWR | os.O_CREAT, 0o600))
            real(third[0], fcntl.LOCK_EX)
        real(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(AddressInUse, match="another server holds"):
        claim(place / "s")
    assert lock.exists()
    os.close(third[0])


def test_a_lock_that_vanishes_for_ever_ends_in_an_error(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(_descriptor: int, _how: int) -> None:
        (place / "s.lock").unlink()

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(AddressInUse, match="changes hands"):
        claim(place / "s")


def test_a_file_system_without_locks_is_a_clear_error(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(_descriptor: int, _how: int) -> None:
        raise OSError(45, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(ListenError, match="cannot be locked: Operation not supported"):
        claim(place / "s")


# --- the directory ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o720])
def test_a_directory_in_which_others_may_write_is_refused(place: Path, mode: int) -> None:
    (place / "d").mkdir()
    (place / "d").chmod(mode)
    with pytest.raises(UnsafePath, match=r"other users may write .* chmod go-w"):
        claim(place / "d" / "s")
    assert list((place / "d").iterdir()) == []


@pytest.mark.parametrize("mode", [0o1777, 0o755, 0o700, 0o711])
def test_a_directory_in_which_others_cannot_replace_our_files_is_fine(place: Path, mode: int) -> None:
    (place / "d").mkdir()
    (place / "d").chmod(mode)
    with serving(place / "d" / "s"):
        pass


@pytest.mark.parametrize("mode", [0o700, 0o1777])
def test_a_directory_of_somebody_else_is_refused(place: Path, give_away: Forge, mode: int) -> None:
    (place / "d").mkdir()
    (place / "d").chmod(mode)
    give_away(place / "d")
    with pytest.raises(UnsafePath, match="belongs to user 12345"):
        claim(place / "d" / "s")
    with pytest.raises(UnsafePath, match="belongs to user 12345"):
        open_private_directory(str(place / "d"), create=True)


def test_a_directory_that_is_a_link_is_refused(place: Path) -> None:
    (place / "d").mkdir(mode=0o700)
    (place / "link").symlink_to("d")
    with pytest.raises(UnsafePath, match="is a symbolic link") as caught:
        claim(place / "link" / "s")
    assert str(place / "d") in str(caught.value)
    with pytest.raises(UnsafePath, match="is a symbolic link"):
        open_private_directory(str(place / "link"), create=True)


def test_a_missing_directory_is_a_clear_error(place: Path) -> None:
    with pytest.raises(ListenError, match="its directory is missing"):
        claim(place / "d" / "s")


def test_a_directory_that_takes_no_files_is_a_clear_error(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:
        (place / "d").mkdir(mode=0o500)
        with pytest.raises(ListenError, match="cannot be written"):
            claim(place / "d" / "s")
    elif Path("/proc/self").exists():  # there not even root can make files
        with pytest.raises(ListenError, match="takes no files"):
            claim(Path("/proc/s"))
    real = os.open

    def refuse(path: str, flags: int, *args: int, **options: int) -> int:
        if flags & os.O_CREAT:
            raise PermissionError(13, "Permission denied")
        return real(path, flags, *args, **options)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ListenError, match=r"cannot be written \(Permission denied\); give us the right"):
        claim(place / "s")


def test_a_directory_exchanged_after_it_was_verified_is_noticed(place: Path) -> None:
    (place / "d").mkdir()
    held = claim(place / "d" / "s")
    (place / "d").rename(place / "moved")
    (place / "d").mkdir()
    with socket.socket(socket.AF_UNIX) as sock, pytest.raises(UnsafePath, match="was exchanged"):
        held.bind(sock, mode=0o600)
    held.release()
    assert list((place / "moved").iterdir()) == []


def test_a_path_without_a_name_is_refused(place: Path) -> None:
    for path in (f"{place}/", f"{place}/.", f"{place}/.."):
        with pytest.raises(AddressError, match="name of a file"):
            PathClaim(path, open_socket_directory(str(place)))
    assert list(place.iterdir()) == []


# --- private directories ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_a_private_directory_is_made_with_mode_0700(place: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        os.close(open_private_directory(str(place / "d"), create=True))
    finally:
        os.umask(before)
    assert stat.S_IMODE((place / "d").stat().st_mode) == 0o700
    os.close(open_private_directory(str(place / "d"), create=True))
    os.close(open_private_directory(str(place / "d"), create=False))


@pytest.mark.parametrize("mode", [0o750, 0o701, 0o704, 0o1777])
def test_a_private_directory_is_open_to_nobody_else(place: Path, mode: int) -> None:
    (place / "d").mkdir()
    (place / "d").chmod(mode)
    for create in (True, False):
        with pytest.raises(UnsafePath, match=f"mode {mode:04o}.*chmod 700"):
            open_private_directory(str(place / "d"), create=create)


def test_a_private_directory_can_only_be_as_safe_as_the_one_above(place: Path) -> None:
    place.chmod(0o777)
    for create in (True, False):
        with pytest.raises(UnsafePath, match="other users may write"):
            open_private_directory(str(place / "d"), create=create)
    assert list(place.iterdir()) == []


def test_a_private_directory_that_is_missing_is_only_made_if_asked_for(place: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_private_directory(str(place / "d"), create=False)
    with pytest.raises(FileNotFoundError):
        open_private_directory(str(place / "d" / "e"), create=True)
    assert list(place.iterdir()) == []


def test_the_default_directories_come_from_the_user_id_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_RUNTIME_DIR", "TMPDIR", "HOME", "UID"):
        monkeypatch.setenv(name, "/somewhere/else")
    assert default_directories(1000, "linux") == ("/run/user/1000/pyipc", "/tmp/pyipc-1000")
    assert default_directories(0, "freebsd14") == ("/run/user/0/pyipc", "/tmp/pyipc-0")
    asked: list[object] = []

    def confstr(parameter: object) -> str | None:
        asked.append(parameter)
        return answer

    monkeypatch.setattr(os, "confstr", confstr)
    answer: str | None = "/var/folders/xx/yyy/T/"
    assert default_directories(501, "darwin") == ("/var/folders/xx/yyy/T/pyipc",)
    answer = None
    assert default_directories(501, "darwin") == ("/tmp/pyipc-501",)
    assert asked == [65537, 65537]  # CS_DARWIN_USER_TEMP_DIR


# --- length -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("platform", "limit"), [("linux", 107), ("darwin", 103), ("freebsd14", 103)])
def test_the_length_of_a_path_is_limited_in_bytes(platform: str, limit: int) -> None:
    check_length("/" + "x" * (limit - 1), platform)
    with pytest.raises(AddressError, match=f"takes {limit + 1} bytes and this system allows {limit}"):
        check_length("/" + "x" * limit, platform)
    with pytest.raises(AddressError, match=f"takes {2 * limit} bytes"):
        check_length("é" * limit, platform)


def test_the_limit_is_that_of_this_system(place: Path) -> None:
    limit = 107 if sys.platform == "linux" else 103
    path = place / ("x" * (limit - len(os.fsencode(place)) - 1))
    check_length(str(path))
    with serving(path):
        assert socket_is_live(str(path))


# --- binding and releasing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_the_socket_has_the_mode_before_anybody_can_connect(place: Path, mode: int, umask: int) -> None:
    held = claim(place / "s")
    before = os.umask(umask)
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            held.bind(sock, mode=mode, gid=os.getegid())
            info = (place / "s").stat()
            assert stat.S_IMODE(info.st_mode) == mode
            assert info.st_gid == os.getegid()
            assert not socket_is_live(str(place / "s"))
            held.release()
    finally:
        os.umask(before)


def test_a_mode_or_group_that_cannot_be_given_leaves_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def chown(*_args: object, **_options: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chown", chown)
    held = claim(place / "s")
    with socket.socket(socket.AF_UNIX) as sock, pytest.raises(ListenError, match="group 7 and mode 0660"):
        held.bind(sock, mode=0o660, gid=7)
    held.release()
    assert list(place.iterdir()) == []


def test_whoever_binds_without_a_lock_meanwhile_keeps_the_path(place: Path) -> None:
    held = claim(place / "s")
    with listening(place / "s"):
        before = state(place / "s")
        with socket.socket(socket.AF_UNIX) as sock, pytest.raises(AddressInUse, match="taken by another program"):
            held.bind(sock, mode=0o600)
        held.release()
        assert state(place / "s") == before


def test_a_second_server_never_removes_the_socket_of_the_first(place: Path) -> None:
    """Also when somebody removed the lock, so that the second gets as far as it can."""
    path = place / "s"
    with serving(path):
        (place / "s.lock").unlink()
        before = state(path)
        with pytest.raises(AddressInUse, match="another program listens"):
            claim(path)
        assert state(path) == before
        assert socket_is_live(str(path))


def test_the_first_server_never_removes_the_socket_of_the_second(place: Path) -> None:
    """Somebody removed both files of the first, so the second rightly took the path."""
    path = place / "s"
    with contextlib.ExitStack() as first:
        first.enter_context(serving(path))
        path.unlink()
        (place / "s.lock").unlink()
        with serving(path):
            before = state(path), state(place / "s.lock")
            first.close()
            assert (state(path), state(place / "s.lock")) == before
            assert socket_is_live(str(path))
            with pytest.raises(AddressInUse):
                claim(path)


def test_a_forked_copy_of_a_server_removes_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = claim(place / "s")
    with socket.socket(socket.AF_UNIX) as sock:
        held.bind(sock, mode=0o600)
        monkeypatch.setattr(os, "getpid", lambda: 1)
        held.release()
    assert sorted(file.name for file in place.iterdir()) == ["s", "s.lock"]


def test_releasing_twice_does_nothing(place: Path) -> None:
    path = place / "s"
    first = claim(path)
    first.release()
    with serving(path):
        first.release()
        assert socket_is_live(str(path))
    assert repr(first).endswith("released>")


def test_a_socket_that_cannot_be_removed_is_logged(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unlink(*_args: object, **_options: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch, serving(place / "s"):
        patch.setattr(os, "unlink", unlink)
    assert "cannot remove the socket" in caplog.text
    claim(place / "s").release()


def test_a_dead_socket_that_cannot_be_removed_is_a_clear_error(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_dead_socket(place / "s")
    real = os.unlink

    def unlink(name: str, **options: int) -> None:
        if name == "s":
            raise PermissionError(13, "Permission denied")
        real(name, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", unlink)
        with pytest.raises(ListenError, match=r"dead socket .* cannot be removed: Permission denied"):
            claim(place / "s")


# --- races ------------------------------------------------------------------------------------------------------

PROCESSES = 5
THREADS = 10
ROUNDS = 200
TURNS = 20


def race_worker() -> None:
    """One of the racing processes: ten servers, each in a thread, told what to do by lines on stdin."""
    gate = threading.Barrier(THREADS + 1)
    results: list[str] = [""] * THREADS
    held: list[tuple[PathClaim, socket.socket]] = []
    command: list[str] = []

    def start(path: Path) -> str:
        try:
            taken = claim(path)
        except AddressInUse:
            return "in use"
        sock = socket.socket(socket.AF_UNIX)
        taken.bind(sock, mode=0o600)
        sock.listen(PROCESSES * THREADS)
        held.append((taken, sock))
        return "won"

    def start_and_stop(path: Path, marker: Path) -> str:
        """Until it had its turns; the marker tells if two are ever there at once."""
        for _ in range(TURNS):
            while True:
                try:
                    with serving(path):
                        marker.touch(exist_ok=False)
                        marker.unlink()
                        break
                except AddressInUse:
                    time.sleep(0.001)
        return "done"

    def server(number: int) -> None:
        while True:
            gate.wait()
            action, path, when = command
            # The clock is the same in all processes, so all begin within microseconds.
            time.sleep(max(0.0, float(when) - time.monotonic()))
            try:
                if action == "start":
                    results[number] = start(Path(path))
                else:
                    results[number] = start_and_stop(Path(path), Path(f"{path}.marker"))
            except (IPCError, OSError) as error:
                results[number] = repr(error)
            gate.wait()

    for number in range(THREADS):
        threading.Thread(target=server, args=[number], daemon=True).start()
    for line in sys.stdin:
        if line == "stop\n":
            while held:
                taken, sock = held.pop()
                taken.release()
                sock.close()
            print("stopped", flush=True)
            continue
        command[:] = line.rstrip("\n").split("\t")
        gate.wait()
        gate.wait()
        print("\t".join(results), flush=True)
    os._exit(0)  # the threads wait at the gate


class Racers:
    """The processes, and one answer from each."""

    def __init__(self) -> None:
        code = "from tests.test_safe_paths import race_worker; race_worker()"
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            for _ in range(PROCESSES)
        ]

    def all_do(self, line: str) -> list[list[str]]:
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write(line + "\n")
            process.stdin.flush()
        answers = []
        for process in self.processes:
            assert process.stdout is not None
            answers.append(process.stdout.readline().rstrip("\n").split("\t"))
        return answers

    def race(self, action: str, path: Path) -> list[list[str]]:
        return self.all_do(f"{action}\t{path}\t{time.monotonic() + 0.002}")

    def close(self) -> None:
        for process in self.processes:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.close()
            process.wait()
            process.stdout.close()


@pytest.fixture(scope="module")
def racers() -> Iterator[Racers]:
    processes = Racers()
    yield processes
    processes.close()


@pytest.mark.slow
def test_of_fifty_servers_that_want_one_path_exactly_one_gets_it(racers: Racers, place: Path, scale: int) -> None:
    winners: set[int] = set()
    for number in range(ROUNDS * scale):
        path = place / "s"
        if number % 2:
            leave_dead_socket(path)
        if number % 3:
            (place / "s.lock").touch(mode=0o600)
        answers = racers.race("start", path)
        outcomes = [outcome for answer in answers for outcome in answer]
        assert sorted(outcomes) == ["in use"] * (PROCESSES * THREADS - 1) + ["won"], f"round {number}"
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            client.connect(str(path))  # what is at the path is really the socket of the winner
        winners |= {place for place, answer in enumerate(answers) if "won" in answer}
        racers.all_do("stop")
        assert list(place.iterdir()) == [], f"round {number}"
    assert len(winners) > 1, "one process won each time, so this was no race"


@pytest.mark.slow
def test_servers_that_come_and_go_are_never_there_at_once(racers: Racers, place: Path, scale: int) -> None:
    for _ in range(scale):
        outcomes = [outcome for answer in racers.race("start and stop", place / "s") for outcome in answer]
        assert outcomes == ["done"] * (PROCESSES * THREADS)
        assert list(place.iterdir()) == []
