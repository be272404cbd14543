"""One end of Node's channel, with a bare socket at the other: what is written and read, and what waits."""

from __future__ import annotations

import array
import contextlib
import errno
import json
import os
import random
import socket
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import pyipc
from pyipc.cluster.node.channel import NodeChannel
from tests.battery.leaks import leak_gate, resident_size
from tests.cluster.diary import PATIENCE
from tests.conformance.sides import until
from tests.conftest import CANNOT_RUN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason=f"{CANNOT_RUN} only Node can make its channel on Windows"
)

LIMIT = 1_000_000
ONLINE = {"cmd": "NODE_CLUSTER", "act": "online", "seq": 0}


class Crowded(socket.socket):
    """A socket that the kernel often has no room for descriptors of."""

    refusals = 0

    def sendmsg(self, buffers: Any, ancillary: Any = (), *more: Any) -> int:
        if ancillary and Crowded.refusals:
            Crowded.refusals -= 1
            raise OSError(errno.ETOOMANYREFS, os.strerror(errno.ETOOMANYREFS))
        return super().sendmsg(buffers, ancillary, *more)


class Ends:
    """A channel, and what is at its other end.

    Attributes:
        channel: The channel.
        link: What programs say over it.
        other: The socket at the other end.
        received: What no program is to hear of, with the socket that came along.
        running: Of the channel's own task.
    """

    def __init__(self, kind: type[socket.socket], buffer_size: int | None) -> None:
        own, other = socket.socketpair()
        for sock in (own, other):
            if buffer_size is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_size)
        self.received: list[tuple[Any, socket.socket | None]] = []
        self.channel = NodeChannel(kind(fileno=own.detach()), "a test", self._note, max_message_size=LIMIT, pid=7)
        self.link = self.channel.link
        self.running = trio.CancelScope()
        self.other = trio.socket.from_stdlib_socket(other)
        self._rest = b""
        self._carried: list[int] = []

    async def run(self) -> None:
        """Do what the channel does by itself."""
        with self.running:
            await self.channel.run()

    def _note(self, message: Any, sock: socket.socket | None) -> None:
        self.received.append((message, sock))

    async def line(self) -> Any:
        """The next line at the other end."""
        with trio.fail_after(PATIENCE):
            while b"\n" not in self._rest:
                data, ancillary, _, _ = await self.other.recvmsg(65_536, 1024)
                assert data
                for _, _, content in ancillary:
                    self._carried += array.array("i", content)
                self._rest += data
        text, _, self._rest = self._rest.partition(b"\n")
        return json.loads(text)

    def carried(self) -> socket.socket:
        """The socket that came with what was read."""
        [descriptor] = self._carried
        self._carried.clear()
        return socket.socket(fileno=descriptor)

    async def say(self, *messages: Any, sock: socket.socket | None = None) -> None:
        """Write lines at the other end; a socket goes with the first byte."""
        await self.write(b"".join(json.dumps(each).encode() + b"\n" for each in messages), sock)

    async def write(self, data: bytes, sock: socket.socket | None = None) -> None:
        """Write bytes at the other end."""
        if sock is not None:
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [sock.fileno()]))
            sent = await self.other.sendmsg([data[:1]], [rights])
            data = data[sent:]
        while data:
            data = data[await self.other.send(data) :]

    async def frames(self, count: int) -> list[tuple[str, Any]]:
        """So many frames, as a connection reads them."""
        data = b""
        with trio.fail_after(PATIENCE):
            while data.count(b"\x0c") < count:
                more = await self.link.receive()
                assert more, "the end"
                data += more
        messages = [json.loads(each) for each in data.split(b"\x0c")[:-1]]
        assert len(messages) == count
        return [(each["type"], each["data"]) for each in messages]


@contextlib.asynccontextmanager
async def ends(kind: type[socket.socket] = socket.socket, buffer_size: int | None = None) -> AsyncIterator[Ends]:
    async with leak_gate():
        made = Ends(kind, buffer_size)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made.run)
            yield made
            await made.link.aclose()
        made.other.close()
        for _, sock in made.received:
            if sock is not None:
                sock.close()


def frame(data: Any, type: str = "message") -> bytes:
    return json.dumps({"type": type, "data": data}, separators=(",", ":")).encode() + b"\x0c"


def passed() -> socket.socket:
    """Some socket to pass on."""
    return socket.socket()


# --- messages ---


async def test_messages_are_lines_there_and_frames_here() -> None:
    async with ends() as end:
        assert end.link.peer.pid == 7
        assert end.link.send_nowait(frame({"a": 1}) + frame("two")) > 0
        assert [await end.line(), await end.line()] == [{"a": 1}, "two"]
        await end.say({"b": 2}, None, {"type": "pyipc.event", "data": {"event": "x", "data": 3}})
        assert await end.frames(3) == [("message", {"b": 2}), ("message", None), ("x", 3)]


@pytest.mark.parametrize("seed", range(10))
async def test_however_the_bytes_are_cut_the_messages_are_the_same(seed: int) -> None:
    chance = random.Random(seed)
    values = ["x" * chance.choice([0, 1, 10, 1000, 100_000]) for _ in range(20)]
    async with ends(buffer_size=5_000) as end:

        async def write() -> None:
            data = b"".join(json.dumps(each).encode() + b"\n" for each in values)
            while data:
                size = chance.choice([1, 7, 1000, 70_000])
                await end.write(data[:size])
                data = data[size:]

        async def send() -> None:
            data = b"".join(frame(each) for each in values)
            while data:
                size = chance.choice([1, 7, 1000, 70_000])
                await end.link.send(data[:size])
                data = data[size:]

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            nursery.start_soon(send)
            assert await end.frames(len(values)) == [("message", each) for each in values]
            assert [await end.line() for _ in values] == values


async def test_who_sends_waits_while_the_other_does_not_read() -> None:
    async with ends() as end:
        sent, before = 0, resident_size()
        data = frame("x" * 50_000)
        with trio.move_on_after(0.3):
            while True:
                await end.link.send(data)
                sent += 1
        assert 0 < sent < 100
        assert end.link.send_nowait(data) == 0
        assert resident_size() - before < 10_000_000
        for _ in range(sent + 1):
            assert len(await end.line()) == 50_000


async def test_a_line_that_is_too_long_is_a_frame_that_is_too_long_and_is_not_gathered_for_ever() -> None:
    async with ends() as end, trio.open_nursery() as nursery:

        async def flood() -> None:
            with contextlib.suppress(OSError):
                await end.write(b"x" * 10 * LIMIT)

        nursery.start_soon(flood)
        with trio.fail_after(PATIENCE):
            found = await end.link.receive()
        assert LIMIT < len(found) < LIMIT + 1_000_000
        assert b"\x0c" not in found
        nursery.cancel_scope.cancel()


# --- while nobody receives ---


async def test_what_is_nodes_own_is_told_although_what_is_before_it_was_not_received() -> None:
    async with ends() as end:
        await end.say("first")
        assert await end.frames(1) == [("message", "first")]
        with trio.fail_after(PATIENCE):
            await end.say(*[[number, "x" * 1000] for number in range(1000)], ONLINE)
            await until(lambda: end.received == [(ONLINE, None)])
        assert [data[0] for _, data in await end.frames(1000)] == list(range(1000))


async def test_who_says_too_much_that_is_not_received_is_read_no_further() -> None:
    async with ends() as end, trio.open_nursery() as nursery:
        written = 0

        async def flood() -> None:
            nonlocal written
            for number in range(200):
                await end.say([number, "x" * 65_536])
                written += 1

        await end.say("first")
        assert await end.frames(1) == [("message", "first")]
        nursery.start_soon(flood)
        last = 0
        while not end.channel.is_behind or written != last:
            last = written
            await trio.sleep(0.3)
        assert 128 <= written < 145  # what is kept for programs, and what was read and written beyond
        assert [data[0] for _, data in await end.frames(200)] == list(range(200))


async def test_what_is_there_is_received_in_order_although_the_channel_does_nothing_by_itself_any_more() -> None:
    async with ends() as end:
        await end.say("first")
        assert await end.frames(1) == [("message", "first")]
        with trio.fail_after(PATIENCE):
            await end.say(*range(10), ONLINE)
            await until(lambda: bool(end.received))
            end.running.cancel()
            await end.say(*range(10, 20))
        assert await end.frames(20) == [("message", number) for number in range(20)]


@pytest.mark.parametrize("seed", range(3))
async def test_messages_stay_in_order_whoever_reads_them(seed: int) -> None:
    chance = random.Random(seed)
    told: list[int] = []
    async with ends(buffer_size=5_000) as end, trio.open_nursery() as nursery:

        async def write() -> None:
            for number in range(300):
                await end.say([number, "x" * chance.choice([0, 100, 3000])])

        nursery.start_soon(write)
        with trio.fail_after(PATIENCE):
            while len(told) < 300:
                found = b""
                while not found.endswith(b"\x0c"):
                    found += await end.link.receive()
                told += [json.loads(each)["data"][0] for each in found.split(b"\x0c")[:-1]]
                await trio.sleep(chance.choice([0, 0, 0.05]))  # some of it is read ahead meanwhile
    assert told == list(range(300))


# --- Node's own ---


async def test_nodes_own_messages_do_not_reach_programs_and_those_of_sockets_are_answered() -> None:
    async with ends() as end:
        await end.say(
            {"cmd": "NODE_SOCKET_NOTIFY_CLOSE", "key": "k"},
            {"cmd": "NODE_SOCKET_GET_COUNT", "key": "k"},
            {"cmd": "NODE_SOCKET_COUNT", "key": "k", "count": 1},
            {"cmd": "NODE_HANDLE"},
            {"cmd": "NODE_HANDLE_ACK"},
            {"cmd": "NODE_HANDLE_NACK"},
            {"cmd": "NODE_CLUSTER", "act": "online", "seq": 0},
            "said",
        )
        assert await end.frames(1) == [("message", "said")]
        assert [message["cmd"] for message, _ in end.received] == ["NODE_SOCKET_COUNT", "NODE_CLUSTER"]
        assert [await end.line() for _ in range(3)] == [
            {"cmd": "NODE_SOCKET_ALL_CLOSED", "key": "k"},
            {"cmd": "NODE_SOCKET_COUNT", "key": "k", "count": 0},
            {"cmd": "NODE_HANDLE_NACK"},
        ]


async def test_who_asks_again_and_again_and_does_not_read_is_read_no_further() -> None:
    async with ends() as end, trio.open_nursery() as nursery:
        written = 0

        async def flood() -> None:
            nonlocal written
            while True:
                written += await end.other.send(b'{"cmd":"NODE_HANDLE"}\n' * 1000)

        before = resident_size()
        nursery.start_soon(flood)
        nursery.start_soon(end.link.receive)
        last = -1
        while written != last:  # until nothing is read any more
            assert written < 4_000_000
            last = written
            await trio.sleep(0.3)
        assert resident_size() - before < 20_000_000
        nursery.cancel_scope.cancel()


# --- sockets ---


async def test_a_socket_goes_along_and_the_next_one_when_it_was_acknowledged() -> None:
    async with ends() as end, trio.open_nursery() as nursery:
        nursery.start_soon(end.link.receive)
        with passed() as first, passed() as second:
            inodes = [os.fstat(each.fileno()).st_ino for each in (first, second)]
            end.channel.hand({"number": 1}, first, lost=pytest.fail)
            end.channel.hand({"number": 2}, second, lost=pytest.fail)
        end.link.send_nowait(frame("between"))
        ping = end.channel.ping()
        assert await end.line() == {"cmd": "NODE_HANDLE", "type": "net.Native", "msg": {"number": 1}}
        with end.carried() as sock:
            assert os.fstat(sock.fileno()).st_ino == inodes[0]
        assert await end.line() == "between"
        await end.say({"cmd": "NODE_HANDLE_ACK"})
        assert (await end.line())["msg"] == {"number": 2}
        with end.carried() as sock:
            assert os.fstat(sock.fileno()).st_ino == inodes[1]
        assert not ping.is_set()
        await end.say({"cmd": "NODE_HANDLE_ACK"})
        assert await end.line() == {"cmd": "NODE_HANDLE"}
        await end.say({"cmd": "NODE_HANDLE_NACK"})
        with trio.fail_after(PATIENCE):
            await ping.wait()
        nursery.cancel_scope.cancel()


async def test_a_socket_that_does_not_arrive_is_sent_again_and_given_up_after_four_times() -> None:
    lost: list[int] = []
    async with ends() as end, trio.open_nursery() as nursery:
        nursery.start_soon(end.link.receive)
        with passed() as sock:
            for number in (1, 2):
                end.channel.hand({"number": number}, sock, lost=lambda number=number: lost.append(number))  # type: ignore[misc]
        for _ in range(4):
            assert (await end.line())["msg"] == {"number": 1}
            end.carried().close()
            assert not lost
            await end.say({"cmd": "NODE_HANDLE_NACK"})
        assert (await end.line())["msg"] == {"number": 2}
        end.carried().close()
        assert lost == [1]
        nursery.cancel_scope.cancel()


async def test_descriptors_under_way_that_are_too_many_for_the_kernel_go_a_moment_later() -> None:
    Crowded.refusals = 5
    async with ends(Crowded) as end, trio.open_nursery() as nursery:
        nursery.start_soon(end.link.receive)
        with passed() as sock:
            end.channel.hand({"number": 1}, sock, lost=pytest.fail)
        end.channel.tell({"cmd": "NODE_x"})
        assert (await end.line())["msg"] == {"number": 1}
        end.carried().close()
        assert await end.line() == {"cmd": "NODE_x"}
        assert Crowded.refusals == 0
        nursery.cancel_scope.cancel()


async def test_a_socket_that_comes_with_a_message_of_nodes_own_is_passed_on() -> None:
    told = {"cmd": "NODE_CLUSTER", "act": "x"}
    async with ends() as end:
        with passed() as sock:
            await end.say({"cmd": "NODE_HANDLE", "type": "net.Native", "msg": told}, sock=sock)
        await end.say("said")
        assert await end.frames(1) == [("message", "said")]
        [(message, sock_here)] = end.received
        assert message == told
        assert sock_here is not None
        assert not sock_here.get_inheritable()
        assert await end.line() == {"cmd": "NODE_HANDLE_ACK"}


@pytest.mark.parametrize("what", ["a file", "two sockets", "with no message of its kind", "in the middle of a line"])
async def test_descriptors_that_should_not_be_there_are_closed(what: str) -> None:
    async with ends() as end:
        with passed() as sock, open(os.devnull, "rb") as file:  # noqa: ASYNC230 - it does not wait
            descriptors = {"a file": [file.fileno()], "two sockets": [sock.fileno()] * 2}.get(what, [sock.fileno()])
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
            text = b'{"cmd":"NODE_HANDLE","msg":"with"}\n' if what in ("a file", "two sockets") else b'"with"\n'
            if what == "in the middle of a line":
                await end.write(text[:3])
                text = text[3:]
            await end.other.sendmsg([text], rights)
        await end.say("said")
        told = await end.frames(1 if what == "a file" else 2)
        assert told == [("message", each) for each in (["said"] if what == "a file" else ["with", "said"])]
        assert not end.received


# --- the end ---


async def test_closing_wakes_whoever_waits_and_nothing_can_be_done_afterwards() -> None:
    async with ends() as end:
        woken: list[str] = []

        async def wait(name: str, what: Callable[[], Any]) -> None:
            with contextlib.suppress(pyipc.ConnectionLost):
                await what()
            woken.append(name)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, "receive", end.link.receive)
            nursery.start_soon(wait, "send", lambda: end.link.send(frame("x" * 5_000_000)))
            with passed() as sock:
                for _ in range(3):
                    end.channel.hand({}, sock, lost=pytest.fail)
            nursery.start_soon(wait, "ping", end.channel.ping().wait)
            await trio.testing.wait_all_tasks_blocked()
            end.channel.close()
            end.channel.close()
        assert sorted(woken) == ["ping", "receive", "send"]
        assert end.channel.is_closed
        assert "closed" in repr(end.channel)
        with pytest.raises(pyipc.ConnectionLost):
            end.link.send_nowait(frame(1))
        with pytest.raises(pyipc.ConnectionLost):
            await end.link.send(frame(1))
        with pytest.raises(pyipc.ConnectionLost):
            await end.link.receive()
        end.channel.tell({"cmd": "NODE_x"})
        assert end.channel.ping().is_set()
        with passed() as sock:
            end.channel.hand({}, sock, lost=pytest.fail)


async def test_the_other_end_is_gone() -> None:
    async with ends() as end:
        await end.write(b'"last"\n"cut o')
        end.other.close()
        assert await end.frames(1) == [("message", "last")]
        assert await end.link.receive() == b""
        end.channel.tell({"cmd": "NODE_x"})
        await end.link.send(frame(1))  # as into any connection whose end was not seen yet


async def test_once_the_process_is_gone_its_last_words_are_read_and_then_there_is_an_end() -> None:
    """Also if something that the process has started holds the other end."""
    async with ends() as end:
        await end.write(b'"last"\n"cut o')
        end.channel.hang_up()
        assert await end.frames(1) == [("message", "last")]
        assert await end.link.receive() == b""


async def test_there_is_an_end_although_answers_could_not_be_written() -> None:
    async with ends() as end, trio.open_nursery() as nursery:

        async def flood() -> None:
            with contextlib.suppress(OSError):
                while True:
                    await end.other.send(b'{"cmd":"NODE_HANDLE"}\n' * 1000)

        nursery.start_soon(flood)
        with trio.move_on_after(0.5):
            await end.link.receive()
        end.channel.hang_up()
        with trio.fail_after(PATIENCE):
            assert await end.link.receive() == b""
