"""R17: fifty servers start at once at one address, and exactly one gets it, whatever is in the way.

A dead socket and a lock that was left behind are cleared away. A symbolic link, a directory, a file, another user's
socket and a live server that knows nothing of locks stay as they are, and nobody gets the address. Where the server
that has it is killed in the middle of the race, one of the others may follow, and never two. Whoever loses is told so.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

import pyipc
from tests.battery.leaks import leak_gate
from tests.battery.sizes import sized
from tests.conftest import CANNOT_RUN, ROOT, is_wine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from tests.battery.conftest import Tally

needs_unix = pytest.mark.skipif(sys.platform == "win32", reason=f"{CANNOT_RUN} needs Unix domain sockets")

not_enforced = pytest.mark.xfail(is_wine(), reason="Wine does not enforce it", strict=True)

PROCESSES, THREADS = (2, 5) if is_wine() else (5, 10)
STRANGER = 12_345
#: What is said to whoever comes second.
IN_USE = re.compile(
    r"another (server|program) (holds|listens on) .*; stop it, or|was taken by another program just now"
)

LEFT_ALONE = re.compile(r" (is a|belongs to user) .* and was left untouched; remove it, or listen on another address")


class Racers:
    """Some of the processes in which servers start."""

    def __init__(self, processes: list[trio.Process]) -> None:
        self.processes = processes

    async def race(self, address: str, when: float) -> list[list[list[str]]]:
        """Start all servers at once; how each start went, by process."""
        await self._tell("race", address, when)
        return [await _answer(each) for each in self.processes]

    async def stop(self) -> None:
        """Stop those that have won."""
        await self._tell("stop")
        assert [await _answer(each) for each in self.processes] == ["stopped"] * len(self.processes)

    async def _tell(self, *words: object) -> None:
        for process in self.processes:
            assert process.stdin is not None
            await process.stdin.send_all(json.dumps(words).encode() + b"\n")


async def _answer(process: trio.Process) -> Any:
    line = b""
    assert process.stdout is not None
    while not line.endswith(b"\n"):
        more = await process.stdout.receive_some()
        assert more, "a process of the race has ended"
        line += more
    return json.loads(line)


@contextlib.asynccontextmanager
async def racers(processes: int, threads: int) -> AsyncIterator[Racers]:
    """Processes with so many servers each, for the length of a block."""
    command = [sys.executable, "-m", "tests.battery.race_program", str(threads)]
    started: list[trio.Process] = []
    try:
        for _ in range(processes):
            started.append(  # noqa: PERF401 - those that there are must be ended
                await trio.lowlevel.open_process(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            )
        yield Racers(started)
    finally:
        with trio.CancelScope(shield=True):
            for process in started:
                assert process.stdin is not None
                await process.stdin.aclose()
                with trio.move_on_after(10):
                    await process.wait()
                process.kill()
                await process.wait()
                assert process.stdout is not None
                await process.stdout.aclose()


async def who_won(field: Racers, address: str, when: float) -> trio.Process | None:
    """Hold a race; the winner's process, after a look at what everybody was told."""
    answers = await field.race(address, when)
    winners = [process for process, each in zip(field.processes, answers, strict=True) if ["won", ""] in each]
    outcomes = [outcome for each in answers for outcome in each]
    assert sum(kind == "won" for kind, _ in outcomes) == len(winners) <= 1, outcomes
    for kind, text in outcomes:
        assert kind == "won" or (kind == "AddressInUse" and IN_USE.search(text)), (kind, text)
    return winners[0] if winners else None


def soon() -> float:
    """When a race begins: once all processes have heard of it."""
    return time.monotonic() + 0.01


# --- what is in the way -----------------------------------------------------------------------------------------


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory with a short path: that of pytest is too long for sockets on macOS."""
    directory = Path(tempfile.mkdtemp(prefix="pyipc-", dir=os.path.realpath(tempfile.gettempdir())))
    yield directory
    shutil.rmtree(directory)


def dead_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


def dead_lock(path: Path) -> None:
    path.with_name(f"{path.name}.lock").touch(mode=0o600)


def dead_server(path: Path) -> None:
    dead_socket(path)
    dead_lock(path)


def strangers_socket(path: Path) -> None:
    dead_socket(path)
    os.chown(path, STRANGER, STRANGER)


def live_server(path: Path) -> socket.socket:
    """One that knows nothing of locks, as any node-ipc program."""
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.listen(1_000)
    return sock


#: What was left behind by servers that were killed, and is cleared away.
DEAD: tuple[Callable[[Path], object], ...] = (lambda path: None, dead_socket, dead_lock, dead_server)
#: What is not a server's to remove.
FOREIGN: dict[str, Callable[[Path], object]] = {
    "a live server": live_server,
    "a link": lambda path: path.symlink_to("/dev/null"),
    "a link to nothing": lambda path: path.symlink_to(path.with_name("elsewhere")),
    "a directory": lambda path: path.mkdir(),
    "a file": lambda path: path.write_text("somebody's work"),
    "a lock with something in it": lambda path: path.with_name(f"{path.name}.lock").write_text("somebody's work"),
}
if sys.platform != "win32" and os.geteuid() == 0:
    FOREIGN["another user's socket"] = strangers_socket


def contents(folder: Path) -> dict[str, tuple[object, ...]]:
    """What is there, so that any change is noticed."""
    found: dict[str, tuple[object, ...]] = {}
    for path in folder.iterdir():
        info = path.lstat()
        text = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        found[path.name] = (info.st_dev, info.st_ino, info.st_mode, info.st_uid, info.st_mtime_ns, text)
    return found


def clear(folder: Path) -> None:
    for path in folder.iterdir():
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


# --- the races --------------------------------------------------------------------------------------------------


@needs_unix
@pytest.mark.time_limit(120)
async def test_of_fifty_servers_exactly_one_gets_the_path(place: Path, tally: Tally) -> None:
    rounds, draw = sized(150, least=8), random.Random(17)
    winners: set[int] = set()
    path = place / "s"
    async with leak_gate(place), racers(PROCESSES, THREADS) as field:
        for number in range(rounds):
            draw.choice(DEAD)(path)
            winner = await who_won(field, f"unix:{path}", soon())
            assert winner is not None, f"nobody got the path in round {number}"
            async with pyipc.connect(f"unix:{path}") as client:
                assert client.peer is not None
                assert client.peer.pid in {None, winner.pid}, "what is at the path is not the winner's"
            await field.stop()
            assert contents(place) == {}, f"something was left behind in round {number}"
            winners.add(winner.pid)
    assert len(winners) > 1, "one process won each time, so this was no race"
    tally.add(races=rounds)


@needs_unix
@pytest.mark.time_limit(120)
async def test_what_is_not_a_servers_to_remove_stays(place: Path, tally: Tally) -> None:
    rounds = sized(5)
    path = place / "s"
    async with leak_gate(place), racers(PROCESSES, THREADS) as field:
        for kind, put in [*FOREIGN.items()] * rounds:
            put_there = put(path)
            before = contents(place)
            outcomes = [each for answer in await field.race(f"unix:{path}", soon()) for each in answer]
            for name, text in outcomes:
                # Whoever finds the lock taken looks no further.
                said = IN_USE if name == "AddressInUse" else LEFT_ALONE
                assert name in {"AddressInUse", "UnsafePath"}, (kind, name, text)
                assert said.search(text), (kind, text)
            assert contents(place) == before, f"{kind} was changed"
            if isinstance(put_there, socket.socket):
                put_there.close()
            else:
                assert "UnsafePath" in {name for name, _ in outcomes}
            clear(place)
            await field.stop()
    tally.add(races=rounds * len(FOREIGN))


@needs_unix
@pytest.mark.time_limit(120)
async def test_when_the_owner_is_killed_one_may_follow(place: Path, tally: Tally) -> None:
    rounds, draw = sized(20, least=4), random.Random(17)
    path = place / "s"
    async with leak_gate(place), racers(PROCESSES, THREADS) as field:
        for _ in range(rounds):
            async with racers(1, 1) as owner:
                (process,) = owner.processes
                assert await who_won(owner, f"unix:{path}", soon()) is process
                when = soon()

                async def kill(at: float = when + draw.uniform(-0.005, 0.01), pid: int = process.pid) -> None:
                    await trio.sleep(max(0.0, at - time.monotonic()))
                    os.kill(pid, signal.SIGKILL)

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(kill)
                    winner = await who_won(field, f"unix:{path}", when)
                await process.wait()
            if winner is None:  # all came too early; nothing keeps them now
                await field.stop()
                assert await who_won(field, f"unix:{path}", soon()) is not None
            await field.stop()
            assert contents(place) == {}
    tally.add(races=rounds, kills=rounds)


@pytest.mark.skipif(sys.platform != "win32", reason=f"{CANNOT_RUN} needs Windows named pipes")
@not_enforced
@pytest.mark.time_limit(120)
async def test_of_many_servers_exactly_one_gets_the_pipe(tally: Tally) -> None:
    rounds = sized(200, least=4)
    async with racers(PROCESSES, THREADS) as field:
        for _ in range(rounds):
            address = f"pipe:pyipc-{secrets.token_hex(16)}"
            assert await who_won(field, address, soon()) is not None
            async with pyipc.connect(address) as client:
                assert client.connected
            await field.stop()
            assert await who_won(field, address, soon()) is not None, "the name was not given back"
            await field.stop()
    tally.add(races=2 * rounds)
