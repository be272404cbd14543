"""A node-ipc program in a child process, and a tap on the wire between it and pyipc."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import trio

import pyipc

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "PATIENCE",
    "Heard",
    "NodeFailed",
    "NodePeer",
    "Place",
    "Report",
    "Tap",
    "eventually",
    "frame",
    "node_environment",
    "place_of",
    "start_node",
    "start_tap",
]

Report = dict[str, Any]

DRIVER = Path(__file__).with_name("node_peer.js")
#: Seconds that anything a child process does may take on a busy machine.
PATIENCE = 20.0


class NodeFailed(AssertionError):
    """The node program did not do what the test waits for; the message shows all that it reported."""


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where somebody listens, in the words of everyone who has to get there."""

    transport: Literal["unix", "tcp", "tls", "udp4", "udp6"]
    path: str = ""
    port: int = 0

    @property
    def host(self) -> str:
        """Where, on a network; over TLS by name, for which there are certificates."""
        return {"tls": "localhost", "udp6": "::1"}.get(self.transport, "127.0.0.1")

    @property
    def address(self) -> str:
        """As pyipc says it."""
        if self.transport == "unix":
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.transport.rstrip('46')}://{host}:{self.port}"

    @property
    def node(self) -> dict[str, Any]:
        """As a command to the driver says it."""
        if self.transport == "unix":
            return {"path": self.path}
        udp = {"udp": self.transport} if self.transport.startswith("udp") else {}
        return {"host": self.host, "port": self.port, **udp}

    async def listen(self) -> tuple[trio.SocketListener, Place]:
        """Listen here with a bare socket."""
        if self.transport == "unix":
            sock = trio.socket.socket(trio.socket.AF_UNIX)
            await sock.bind(self.path)
            sock.listen(64)
            return trio.SocketListener(sock), self
        (listener,) = await trio.open_tcp_listeners(self.port, host="127.0.0.1")
        return listener, Place("tcp", port=listener.socket.getsockname()[1])

    async def open(self) -> trio.SocketStream:
        """Connect a bare socket to whoever listens here."""
        if self.transport == "unix":
            return await trio.open_unix_socket(self.path)
        return await trio.open_tcp_stream("127.0.0.1", self.port)


class NodePeer:
    """One node-ipc program. Made by `start_node`; whoever made it has to `aclose` it.

    Attributes:
        process: The program.
        reports: All that it reported, in order.
    """

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.reports: list[Report] = []
        self._fresh: list[Report] = []
        self._news = trio.Event()
        self._ended = False
        self._stderr = b""
        self._number = 0

    async def serve(
        self, place: Place, *, on: list[str] | None = None, echo: list[str] | None = None, **config: Any
    ) -> Place:
        """Start a node-ipc server, and wait until it listens."""
        await self.command("serve", **place.node, on=on or [], echo=echo or [], config=config)
        started = await self.wait_for("started")
        return dataclasses.replace(place, port=0 if place.transport == "unix" else started["address"]["port"])

    async def connect(self, place: Place, *, id: str = "world", on: list[str] | None = None, **config: Any) -> None:
        """Start a node-ipc client, and wait until it is connected."""
        await self.command("connect", id=id, **place.node, on=on or [], config=config)
        await self.event("connect", id=id)

    async def command(self, name: str, /, **arguments: Any) -> None:
        """Have the driver do something, and wait until it has.

        Raises:
            NodeFailed: node-ipc threw an exception.
        """
        self._number += 1
        number = self._number
        await self.post(name, number=number, **arguments)
        answer = await self.wait_for("done", "failed", number=number)
        if answer["report"] == "failed":
            raise NodeFailed(f"{name} failed: {answer['message']}")

    async def post(self, name: str, /, **arguments: Any) -> None:
        """Have the driver do something, without waiting: it may not live to tell."""
        assert self.process.stdin is not None
        await self.process.stdin.send_all(json.dumps({"cmd": name, **arguments}).encode() + b"\n")

    async def event(self, name: str, **fields: Any) -> Report:
        """Wait for the next event of this name that was not yet waited for."""
        return await self.wait_for("event", name=name, **fields)

    async def wait_for(self, *kinds: str, timeout: float = PATIENCE, **fields: Any) -> Report:
        """Wait for the next report of one of these kinds with these fields that was not yet waited for.

        Raises:
            NodeFailed: It did not come within ``timeout`` seconds, or the program ended first.
        """
        deadline = trio.current_time() + timeout
        while True:
            for report in self._fresh:
                if report["report"] in kinds and all(report.get(key, ...) == value for key, value in fields.items()):
                    self._fresh.remove(report)
                    return report
            if self._ended:
                raise NodeFailed(self._story(f"the program ended before it reported {kinds} {fields}"))
            with trio.move_on_at(deadline) as scope:
                await self._news.wait()
            if scope.cancelled_caught:
                raise NodeFailed(self._story(f"no report {kinds} {fields} within {timeout:g} s"))

    def seen(self, name: str, **fields: Any) -> list[Report]:
        """All events of this name so far, waited for or not."""
        return [
            report
            for report in self.reports
            if report["report"] == "event"
            and report["name"] == name
            and all(report.get(key) == value for key, value in fields.items())
        ]

    @property
    def crashed(self) -> bool:
        """Whether an exception that nobody caught went through the program."""
        return any(report["report"] == "crash" for report in self.reports)

    async def wait_ended(self) -> None:
        """Wait until the program is gone and all that it said has been read."""
        with trio.fail_after(PATIENCE):
            while not self._ended:
                await self._news.wait()
            await self.process.wait()

    async def kill(self) -> None:
        """End the program without giving it a chance to say anything."""
        self.process.kill()
        await self.wait_ended()

    async def aclose(self) -> None:
        """End the program if it has not ended yet."""
        self.process.kill()
        await self.process.wait()

    async def read(self) -> None:
        """Read what the program says until it ends."""
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read_errors, self.process.stderr)
            rest = b""
            async for chunk in self.process.stdout:
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    report = json.loads(line)
                    self.reports.append(report)
                    self._fresh.append(report)
                self._announce()
        self._ended = True
        self._announce()

    async def _read_errors(self, stream: trio.abc.ReceiveStream) -> None:
        async for chunk in stream:
            self._stderr += chunk

    @property
    def stderr(self) -> str:
        """What was written to its standard error so far."""
        return self._stderr.decode(errors="replace")

    def _announce(self) -> None:
        self._news.set()
        self._news = trio.Event()

    def _story(self, headline: str) -> str:
        reports = "\n".join(f"  {report}" for report in self.reports[-40:])
        return f"{headline}\nlast reports:\n{reports}\nstderr:\n{self.stderr}"


async def start_node(nursery: trio.Nursery, modules: Path, directory: Path) -> NodePeer:
    """Start a node-ipc program and wait until it takes commands.

    Args:
        nursery: Where its output is read.
        modules: The ``node_modules`` directory with the node-ipc to use.
        directory: Where it runs. node-ipc deletes a file named like the host from there.
    """
    process = await trio.lowlevel.open_process(
        ["node", str(DRIVER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=directory,
        env=node_environment(modules),
    )
    peer = NodePeer(process)
    nursery.start_soon(peer.read)
    await peer.wait_for("ready")
    return peer


def node_environment(modules: Path) -> dict[str, str]:
    """The environment in which ``require('node-ipc')`` finds the version in ``modules``."""
    return {**os.environ, "NODE_PATH": str(modules)}


class Tap:
    """Sits on the wire, passes everything on and remembers it.

    Attributes:
        place: Where to connect in order to reach ``target`` through it.
        log: What went past, in order, as ``(direction, bytes)``; ``">"`` is from client to server.
        opened: When each connection was made, on trio's clock.
        chunk: Bytes passed on at a time, in writes of their own; ``None`` passes on what comes as it comes.
    """

    def __init__(self, place: Place, target: Place, chunk: int | None) -> None:
        self.place = place
        self.target = target
        self.log: list[tuple[str, bytes]] = []
        self.opened: list[float] = []
        self.chunk = chunk

    @property
    def sent(self) -> bytes:
        """All that clients sent."""
        return b"".join(data for direction, data in self.log if direction == ">")

    @property
    def answered(self) -> bytes:
        """All that the server sent."""
        return b"".join(data for direction, data in self.log if direction == "<")

    async def handle(self, client: trio.SocketStream) -> None:
        """Join one client to the server until both have finished."""
        self.opened.append(trio.current_time())
        try:
            server = await self.target.open()
        except OSError:
            await client.aclose()
            return
        async with client, server, trio.open_nursery() as nursery:
            nursery.start_soon(self._pump, ">", client, server, nursery.cancel_scope)
            nursery.start_soon(self._pump, "<", server, client, nursery.cancel_scope)

    async def _pump(
        self, direction: str, source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope
    ) -> None:
        try:
            async for data in source:
                self.log.append((direction, bytes(data)))
                step = self.chunk or len(data)
                for start in range(0, len(data), step):
                    await sink.send_all(data[start : start + step])
            await sink.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            scope.cancel()


async def start_tap(nursery: trio.Nursery, place: Place, target: Place, *, chunk: int | None = None) -> Tap:
    """Put a tap on ``place`` that leads to ``target``."""
    listener, place = await place.listen()
    tap = Tap(place, target, chunk)

    async def serve() -> None:
        await trio.serve_listeners(tap.handle, [listener])

    nursery.start_soon(serve)
    return tap


def frame(event: str, data: Any = ..., delimiter: bytes = b"\f") -> bytes:
    """The frame that node-ipc makes of an event; without ``data`` it has none."""
    envelope = {"type": event} if data is ... else {"type": event, "data": data}
    text = json.dumps(envelope, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace") + delimiter


class Heard:
    """Hears every event of a server, client or router, whatever its name, in order."""

    def __init__(self, owner: pyipc.Router | pyipc.Server | pyipc.Client) -> None:
        self._send, self._receive = trio.open_memory_channel[pyipc.Message[Any]](math.inf)
        owner.on("**", self._send.send_nowait)

    async def next(self) -> pyipc.Message[Any]:
        """Wait for the next event."""
        with trio.fail_after(PATIENCE):
            return await self._receive.receive()

    async def take(self, count: int) -> list[tuple[str, Any]]:
        """Wait for the next so many events; their names and data."""
        messages = [await self.next() for _ in range(count)]
        return [(message.event, message.data) for message in messages]

    @property
    def waiting(self) -> int:
        """Events that nobody has asked for yet."""
        return self._receive.statistics().current_buffer_used


def place_of(server: pyipc.Server) -> Place:
    """Where a server with one address listens."""
    (address,) = server.addresses
    text = str(address)
    if text.startswith("unix:"):
        return Place("unix", path=text.removeprefix("unix:"))
    return Place("tcp", port=int(text.rpartition(":")[2]))


async def eventually(condition: Callable[[], object], what: str = "it") -> None:
    """Wait until ``condition()`` is true; for what another process causes and nothing here announces."""
    with trio.move_on_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 - another process sets no event here
            await trio.sleep(0.005)
    assert condition(), f"{what} did not happen within {PATIENCE:g} s"
