"""R10: no descriptors are left. Nothing spins, those who are there are served, and it goes on when there are some."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import pyipc
from pyipc.transports.unix import UnixTransport
from tests.battery.leaks import leak_gate
from tests.battery.sizes import sized
from tests.certificates import authority_file, leaf, leaf_file
from tests.cli.processes import ROOT, eventually, start
from tests.conftest import CANNOT_RUN

if sys.platform != "win32":
    import resource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.battery.conftest import Tally

pytestmark = [
    pytest.mark.time_limit(120),
    pytest.mark.skipif(sys.platform == "win32", reason=f"{CANNOT_RUN} Windows has no limit of descriptors to run into"),
]

SHORTAGES = [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM]
GONE = [errno.ECONNABORTED, errno.EPROTO, errno.ENETDOWN, errno.EHOSTUNREACH]
#: Ten times what is promised: the machine may be busy.
SOON = 10.0


class Turns(trio.abc.Instrument):
    """Counts the steps that tasks take."""

    def __init__(self) -> None:
        self.count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += 1


@pytest.fixture
def accepting(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], list[float]]:
    """Lets accept(2) fail with a code from now on, or not any more; returns the times of all calls."""
    calls: list[float] = []
    code: list[int | None] = [None]
    accept = socket.socket.accept

    def perhaps(sock: socket.socket) -> Any:
        calls.append(trio.current_time())
        if code[0] is not None:
            raise OSError(code[0], os.strerror(code[0]))
        return accept(sock)

    def fail(with_code: int | None) -> list[float]:
        code[0] = with_code
        return calls

    monkeypatch.setattr(socket.socket, "accept", perhaps)
    return fail


@pytest.mark.parametrize("code", SHORTAGES, ids=errno.errorcode.get)
async def test_a_server_that_cannot_accept_waits_and_serves_those_it_has(
    code: int,
    tmp_path: Path,
    accepting: Callable[[int | None], list[float]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    router = pyipc.Router()
    router.on("echo", lambda message: message.data)
    addresses = (f"unix:{tmp_path}/s", "tcp://127.0.0.1:0")
    async with pyipc.Server(*addresses, router=router) as server, pyipc.connect(addresses[0]) as client:
        with ExitStack() as stack:
            calls = accepting(code)
            for address in server.addresses:
                for _ in range(50):
                    stack.enter_context(knock(address))
            await client.request("echo", 0)
            calls.clear()
            turns = Turns()
            trio.lowlevel.add_instrument(turns)
            began = trio.current_time()
            await trio.sleep(1.0)
            trio.lowlevel.remove_instrument(turns)
            seconds = trio.current_time() - began
            print(f"{len(calls) / seconds:.0f} calls of accept and {turns.count / seconds:.0f} turns a second")
            # Two listeners that try ten times a second each.
            assert 2 <= len(calls) <= 10 * 20 * seconds
            assert turns.count <= 10 * 100 * seconds
            for number in range(20):
                assert await client.request("echo", number, timeout=SOON) == number
            statistics = server.statistics()
            assert statistics.accepted == 1
            assert statistics.accept_errors >= len(calls)
            accepting(None)
            over = trio.current_time()
            await eventually(lambda: server.statistics().accepted == 101, "everybody to be let in")
            print(f"accepted again {trio.current_time() - over:.3f} s after there were descriptors")
            assert trio.current_time() - over <= SOON
    told = [record.getMessage() for record in caplog.records if "accept" in record.message]
    assert len([line for line in told if "cannot accept on " in line and os.strerror(code) in line]) == 2
    assert len([line for line in told if "accepts on " in line and "again, after " in line]) == 2
    assert len(told) == 4


@contextmanager
def knock(address: pyipc.Address) -> Iterator[socket.socket]:
    """A socket that has called somebody who need not have accepted."""
    is_tcp = address.scheme == "tcp"
    with socket.socket(socket.AF_INET if is_tcp else socket.AF_UNIX) as sock:
        sock.settimeout(SOON)
        sock.connect(("127.0.0.1", address.port) if is_tcp else address.name)
        yield sock


async def test_trouble_that_comes_and_goes_is_not_told_each_time(
    accepting: Callable[[int | None], list[float]],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As when one descriptor becomes free now and then, which the next in line takes."""
    monkeypatch.setattr("pyipc.accepting._ACCEPT_PAUSE", 0.001)

    async def come(server: pyipc.Server, stack: ExitStack) -> None:
        accepting(errno.EMFILE)
        stack.enter_context(knock(server.addresses[0]))
        before = server.statistics()
        await eventually(lambda: server.statistics().accept_errors > before.accept_errors + 2, "trouble")
        accepting(None)
        await eventually(lambda: server.statistics().accepted > before.accepted, "the next to be let in")

    async with pyipc.Server("tcp://127.0.0.1:0") as server, leak_gate():
        with ExitStack() as stack:
            for _ in range(20):
                await come(server, stack)
        await eventually(lambda: not server.connections, "all to have gone")
    told = [record for record in caplog.records if "accept" in record.message]
    assert len(told) == 2


@pytest.mark.parametrize("code", GONE, ids=errno.errorcode.get)
async def test_a_peer_that_is_gone_already_delays_nobody(
    code: int, accepting: Callable[[int | None], list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyipc.accepting._ACCEPT_PAUSE", 3_600.0)  # a pause would not end in time
    async with pyipc.Server("tcp://127.0.0.1:0") as server:
        calls = accepting(code)
        with knock(server.addresses[0]):
            await eventually(lambda: len(calls) > 3, "accept to be tried")
            accepting(None)
            await eventually(lambda: server.statistics().accepted == 1, "the next to be let in")
        assert server.statistics().accept_errors == 0


async def test_a_socket_that_cannot_be_waited_for_costs_its_own_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Accepted, but the selector has no room for it (``fs.epoll.max_user_watches``)."""
    router = pyipc.Router()
    router.on("echo", lambda message: message.data)
    ended: list[tuple[str, str]] = []
    async with pyipc.Server(f"unix:{tmp_path}/s", router=router) as server, leak_gate():
        server.on_disconnect(lambda why: ended.append((why.code, why.message)))
        async with pyipc.connect(server.addresses[0]) as client:
            assert await client.request("echo", 1) == 1
            wait_readable = trio.lowlevel.wait_readable
            known = {int(name) for name in os.listdir("/proc/self/fd")}

            async def full(sock: Any) -> None:
                if (sock if isinstance(sock, int) else sock.fileno()) not in known:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                await wait_readable(sock)

            with monkeypatch.context() as patch:
                patch.setattr(trio.lowlevel, "wait_readable", full)
                with knock(server.addresses[0]):
                    await eventually(lambda: len(ended) == 1, "the newcomer to be given up")
                assert await client.request("echo", 2, timeout=SOON) == 2
            with knock(server.addresses[0]):
                await eventually(lambda: len(server.connections) == 2, "the next to be let in")
            await eventually(lambda: len(server.connections) == 1, "it to have gone")
    assert ended[0] == ("lost", f"the connection broke: the link to unix:{tmp_path}/s is broken: {_NO_SPACE}")


_NO_SPACE = os.strerror(errno.ENOSPC)


async def test_a_listener_that_cannot_be_waited_for_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = 0
    wait_readable = trio.lowlevel.wait_readable

    async def full(sock: Any) -> None:
        nonlocal failures
        if isinstance(sock, socket.socket) and failures < 3:
            failures += 1
            raise OSError(errno.ENOSPC, _NO_SPACE)
        await wait_readable(sock)

    monkeypatch.setattr(trio.lowlevel, "wait_readable", full)
    async with pyipc.Server(f"unix:{tmp_path}/s") as server:
        await eventually(lambda: failures == 3, "trouble")
        async with pyipc.connect(server.addresses[0]):
            assert server.statistics().accept_errors == 3


# --- really none left ----------------------------------------------------------------------------------------------


@contextmanager
def no_descriptors() -> Iterator[None]:
    """A block in which this process can open nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    try:
        with contextlib.suppress(OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 3, hard))
            while True:
                taken.append(os.dup(0))
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason=f"{CANNOT_RUN} the system does not list descriptors")
@pytest.mark.parametrize("kind", ["unix", "bare", "tcp", "tls", "tls with files to read"])
async def test_a_client_tries_again_until_it_has_a_descriptor(kind: str, tmp_path: Path) -> None:
    certificate = pyipc.TLS(cert=leaf_file(tmp_path / "server.pem", leaf("127.0.0.1")))
    own = tmp_path / "client.pem"
    trust = pyipc.TLS(ca=authority_file(tmp_path))
    if kind == "tls with files to read":  # which are not read before they are needed
        trust = pyipc.TLS(cert=leaf_file(own, leaf("client")), insecure=True)
    where: Any = f"unix:{tmp_path}/s" if kind == "unix" else f"r10-{os.getpid()}" if kind == "bare" else None
    if where is None:
        where = pyipc.Endpoint("tls://127.0.0.1:0", tls=certificate) if "tls" in kind else "tcp://127.0.0.1:0"
    errors: list[pyipc.IPCError] = []
    async with pyipc.Server(where) as server:
        target: Any = server.addresses[0]
        if "tls" in kind:
            target = pyipc.Endpoint(target, tls=trust)
        server.on("echo", lambda message: message.data)
        async with pyipc.connect(
            target, wait=False, reconnect_max_interval=0.2, on_failed_connect=errors.append
        ) as client:
            with no_descriptors():
                await eventually(lambda: len(errors) >= 3, "attempts that fail")
            assert await client.request("echo", 1, timeout=SOON) == 1
    assert {type(error) for error in errors} == {pyipc.ConnectError}
    for error in errors:
        assert "start the server" not in str(error) or kind == "bare", "nothing is wrong with the server"
        assert "oo many" in str(error)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason=f"{CANNOT_RUN} the system does not list descriptors")
async def test_a_server_that_finds_none_when_it_starts_leaves_nothing(tmp_path: Path) -> None:
    async with leak_gate(tmp_path):
        with no_descriptors():
            for address in (f"unix:{tmp_path}/s", f"r10-{os.getpid()}", "tcp://127.0.0.1:0"):
                with pytest.raises(pyipc.ListenError, match="oo many"):
                    await pyipc.Server(address).run()
        async with pyipc.Server(f"unix:{tmp_path}/s"):
            pass


async def test_a_name_is_not_taken_by_whoever_cannot_look_for_its_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bare name may be in one of two directories. Its owner is in the second, where it could not be looked."""
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir(mode=0o700)
    owner = UnixTransport(directories=[str(folders[1])])
    other = UnixTransport(directories=[str(folder) for folder in folders])

    def none_left(path: str) -> bool:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async with leak_gate(tmp_path), pyipc.Server(pyipc.Endpoint("shop", transport=owner)):
        with monkeypatch.context() as patch:
            patch.setattr("pyipc.transports.unix.socket_is_live", none_left)
            with pytest.raises(pyipc.ListenError, match="oo many files"):
                await pyipc.Server(pyipc.Endpoint("shop", transport=other)).run()
        with pytest.raises(pyipc.AddressInUse, match="second"):
            await pyipc.Server(pyipc.Endpoint("shop", transport=other)).run()
        assert list(folders[0].iterdir()) == []


@pytest.mark.parametrize("scheme", ["unix", "tcp"])
async def test_a_storm_on_a_process_that_has_64(scheme: str, tmp_path: Path, tally: Tally) -> None:
    """Waves of 250 that come and stay for a while, ten times more than have room."""
    waves, crowd = sized(4, least=2), 250
    address = f"unix:{tmp_path}/s" if scheme == "unix" else "tcp://127.0.0.1:0"
    program = (sys.executable, "-m", "tests.battery.crowded_program")
    async with leak_gate(tmp_path), start(address, command=program, cwd=ROOT) as server:
        there = pyipc.parse_address((await server.line("^(unix|tcp):.*"))[0])
        async with pyipc.connect(there) as client, pyipc.connect(there) as other:
            before = await client.request("usage")
            for _ in range(waves):
                with ExitStack() as stack:
                    for _ in range(crowd):
                        stack.enter_context(knock(there))
                    # It has taken as many as it can, and now they only wait.
                    first, began = await _full(client, before["accept_errors"]), trio.current_time()
                    await trio.sleep(1.0)
                    last = await other.request("usage", timeout=SOON)
                    seconds = trio.current_time() - began
                    tries = (last["accept_errors"] - first["accept_errors"]) / seconds
                    cpu = (last["cpu"] - first["cpu"]) / seconds
                    print(f"{tries:.0f} times a second accepting was tried; {cpu:.1%} of a processor was used")
                    assert 0 < tries <= 100, "ten times a second are enough"
                    assert cpu <= 0.5, "it spins"
                    before = last
                freed = trio.current_time()
                async with pyipc.connect(there, connect_timeout=SOON) as newcomer:
                    assert await newcomer.request("echo", 1, timeout=SOON) == 1
                print(f"accepted again {trio.current_time() - freed:.3f} s after there were descriptors")
                assert trio.current_time() - freed <= SOON
            lines = (await client.request("usage"))["lines"]
            assert client.statistics().connects == other.statistics().connects == 1
            trouble = [line for line in lines if "accept" in line]
            assert trouble
            assert len(trouble) <= 4 * waves, lines
            tally.add(connects=waves * crowd)
        assert server.process.stdin is not None
        await server.process.stdin.aclose()
        await server.process.wait()


async def _full(client: pyipc.Client, before: int) -> dict[str, Any]:
    """Wait until the server has tried in vain, and say what it has used by then."""
    while True:
        usage: dict[str, Any] = await client.request("usage", timeout=SOON)
        if usage["accept_errors"] > before:
            return usage
        await trio.sleep(0.01)
