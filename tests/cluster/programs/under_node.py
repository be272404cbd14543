"""What a Node program starts: does what it is told in messages, and answers in messages."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import time
from typing import TYPE_CHECKING, Any

import trio

import pyipc
from pyipc import cluster

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

TEXT = "é\u2028😀"


class Program:
    """The program of one worker."""

    def __init__(self, worker: cluster.Worker, nursery: trio.Nursery) -> None:
        self.worker = worker
        self.nursery = nursery
        self.count = 0
        self.returning = trio.Event()
        self.listeners: list[Any] = []

    async def hear(self, message: pyipc.Message[Any]) -> None:
        worker, send = self.worker, self.worker.send
        match message.data:
            case {"n": int(number), "text": str(text), "last": bool(last)}:
                self.count += 1
                if (number, text) != (self.count, TEXT):
                    await send({"disorder": [number, self.count]})
                elif last:
                    await send({"counted": self.count})
            case {"big": str(text)}:
                await send({"big": text})
            case {"dropped": str()}:
                pass
            case {"flood": int(count)}:
                for number in range(1, count + 1):
                    await send({"n": number, "text": TEXT, "last": number == count})
            case {"push": int(count), "size": int(size)}:
                self.nursery.start_soon(self.push, count, size)
            case {"sleep": seconds}:
                await trio.sleep(seconds)
            case "how large":
                await send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
            case {"echo": data}:
                await send({"echo": data})
            case {"ask": [str(event), data]}:
                await send(await worker.request(event, data, timeout=10))
            case {"serve": str(address)}:
                await self.nursery.start(self.serve, address)
            case {"serve http": str(address)}:
                await self.nursery.start(self.serve_http, address)
            case {"serve http, twice at once": str(address)}:
                async with trio.open_nursery() as nursery:
                    for _ in range(2):
                        nursery.start_soon(self.nursery.start, self.serve_http, address)
            case {"open, close and give up": str(address)}:
                await send([await self.open_and_close(address, cancelled) for cancelled in (False, True, False, True)])
            case {"last": int(count), "size": int(size)}:
                for _ in range(count):
                    await send({"big": "é😀" * size})
                self.returning.set()
            case {"listen and serve nobody": str(address)}:
                self.listeners = await worker.open_listeners(address)
                await send("listening")
            case {"wait for somebody": _}:
                await trio.sleep(0.3)  # in which Node hands over the first; the others wait with it
                await send("waited")
            case {"end": "return"}:
                self.returning.set()
            case {"end": "fail"}:
                self.nursery.start_soon(self.fail)
            case {"listen when you leave": str(address)}:
                await self.nursery.start(self.listen_late, address)
            case "leave":
                worker.disconnect()
            case "say goodbye when you leave":
                self.nursery.start_soon(self.say_goodbye)
            case "report when you leave":
                self.nursery.start_soon(self.report)
            case {"slowly": _}:
                await trio.sleep(0.01)
                self.count += 1
            case "hang up":
                await send("hang up")
                worker.disconnect()
            case "hang":
                time.sleep(60)  # noqa: ASYNC251 - that is what it is for
            case "who are you":
                await send(self.introduction())
            case "refuse":
                self.nursery.start_soon(self.refuse)

    def introduction(self) -> dict[str, Any]:
        told = [name for name in os.environ if name.startswith("NODE_") and name != "NODE_EXTRA_CA_CERTS"]
        return {
            "id": self.worker.id,
            "pid": os.getpid(),
            "role": self.worker.role,
            "is_worker": cluster.is_worker,
            "is_primary": cluster.is_primary,
            "told": told,
        }

    async def refuse(self) -> None:
        """Tell the errors of all that a Node program cannot do, and of messages that it would not get."""
        found = []
        attempts: list[Callable[[], Awaitable[object]]] = [
            lambda: self.worker.publish("topic"),
            lambda: self.entered(self.worker.subscribe("topic")),
            lambda: self.entered(self.worker.connect("2")),
            lambda: self.worker.to("2").send(1),
            lambda: self.worker.send({"cmd": "NODE_HANDLE"}),
            lambda: self.worker.send({"type": "pyipc.request", "data": {}}),
            lambda: self.worker.emit("x", confirm=True),
            lambda: self.worker.emit("x", attachments=[b"x"]),
        ]
        for attempt in attempts:
            try:
                await attempt()
                found.append("no error")
            except pyipc.IPCError as error:
                found.append(type(error).__name__)
        await self.worker.send(found)

    async def entered(self, manager: Any) -> None:
        async with manager:
            pass

    async def push(self, count: int, size: int) -> None:
        """Send much, and tell for how long one had to wait for room."""
        waited, text = 0.0, "x" * size
        for _ in range(count):
            began = trio.current_time()
            await self.worker.send({"big": text})
            waited = max(waited, trio.current_time() - began)
        await self.worker.send({"waited": waited})

    async def say_goodbye(self) -> None:
        async with self.worker.busy():
            await self.worker.wait_draining()
            await self.worker.send("goodbye")

    async def report(self) -> None:
        """Say to whoever reads the standard output of both how much was handled, at the very end."""
        try:
            await trio.sleep_forever()
        finally:
            print(json.dumps({"report": "left", "name": "one", "count": self.count}), flush=True)

    async def serve(self, address: str, *, task_status: trio.TaskStatus[None]) -> None:
        server = pyipc.Server(address)
        server.on("who", lambda message: self.worker.id)
        async with server:
            task_status.started()
            await self.worker.send({"addresses": [str(each) for each in server.addresses]})
            await trio.sleep_forever()

    async def open_and_close(self, address: str, is_cancelled: bool) -> bool:
        """Whether it is as expected: an address can be opened again after it was closed, or opening was cancelled."""
        with trio.CancelScope() as scope:
            if is_cancelled:
                scope.deadline = trio.current_time() + 0.001
            listeners = await self.worker.open_listeners(address)
            for listener in listeners:
                await listener.aclose()
            return True
        return scope.cancelled_caught

    async def fail(self) -> None:
        raise RuntimeError("as it was told to")

    async def listen_late(self, address: str, *, task_status: trio.TaskStatus[None]) -> None:
        async with self.worker.busy():
            await self.worker.send("waiting")
            task_status.started()
            await self.worker.wait_draining()
            try:
                await self.worker.open_listeners(address)
            except pyipc.IPCError as error:
                await self.worker.send({"failed": type(error).__name__})

    async def serve_http(self, address: str, *, task_status: trio.TaskStatus[None]) -> None:
        async def answer(stream: trio.abc.Stream) -> None:
            async with stream:
                async for data in stream:
                    if data == b"hello":
                        await stream.send_all(data)
                        continue
                    await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\npython")
                    return

        try:
            listeners = await self.worker.open_listeners(address)
        except pyipc.IPCError as error:
            await self.worker.send({"failed": type(error).__name__, "why": str(error)})
            task_status.started()
            return
        task_status.started()
        await self.worker.send({"listens": address})
        await trio.serve_listeners(answer, listeners)


async def main(worker: cluster.Worker) -> None:
    if "late" in sys.argv:
        await trio.sleep(0.5)  # what is sent meanwhile is early
    if "unready" in sys.argv:
        await worker.send(await worker.request("double", 21, timeout=10))
        stream = worker.expect("config")
        await worker.send((await stream.get(timeout=10)).data)
    async with trio.open_nursery() as nursery:
        program = Program(worker, nursery)
        if "mute" not in sys.argv:
            worker.on("message", program.hear)
            worker.on("add", lambda message: sum(message.data))
        with trio.CancelScope() as scope:
            nursery.start_soon(until, program.returning, scope)
            await worker.run()
        nursery.cancel_scope.cancel()


async def until(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        cluster.run_worker(main)
