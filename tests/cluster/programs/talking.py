"""Workers that talk: what the tests of messages start. Each function is the program of a worker."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from typing import TYPE_CHECKING, Any

import trio

import pyipc
from pyipc import cluster

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pyipc.cluster import Worker

MEBIBYTE = "x" * 1_000_000
#: Names that Node's cluster keeps for itself, and those that this one uses on a connection of its own.
NAMES = ("NODE_CLUSTER", "NODE_ANYTHING", "online", "listening", "ready", "pulse", "leave", "drain", "wanted")


async def slow_to_keep(worker: Worker) -> None:
    """Answers all kinds of questions; from the second time on only after a while."""
    if worker.generation > 1:
        await trio.sleep(1)
    await answering(worker)


async def answering(worker: Worker) -> None:
    """Answers all kinds of questions."""
    kept: list[Any] = []
    cancelled = trio.Event()

    @worker.on("keep")
    def keep(message: pyipc.Message[Any]) -> None:
        kept.append(message.data)

    @worker.on("kept")
    def show(message: pyipc.Message[Any]) -> list[Any]:
        return kept

    @worker.on("add")
    def add(message: pyipc.Message[list[int]]) -> int:
        return sum(message.data)

    @worker.on("rows")
    async def rows(message: pyipc.Message[int]) -> AsyncIterator[int]:
        for number in range(message.data):
            yield number

    @worker.on("reversed")
    def reverse(message: pyipc.Message[None]) -> pyipc.Attached[int]:
        [given] = message.attachments
        return pyipc.Attached(len(given), [given[::-1]])

    @worker.on("digest")
    def digest(message: pyipc.Message[str]) -> str:
        return hashlib.sha256(message.data.encode()).hexdigest()

    @worker.on("for ever")
    async def wait(message: pyipc.Message[None]) -> None:
        try:
            await worker.emit("waiting")
            await trio.sleep_forever()
        finally:
            cancelled.set()

    @worker.on("cancelled")
    async def tell(message: pyipc.Message[None]) -> bool:
        await cancelled.wait()
        return True

    @worker.on("down")
    async def down(message: pyipc.Message[int]) -> int:
        """Ask the primary, which asks this worker, and so on."""
        return 0 if message.data == 0 else 1 + await worker.request("up", message.data - 1)

    @worker.on("fail")
    def fail(message: pyipc.Message[None]) -> None:
        raise pyipc.Refused("no", "not today")

    @worker.on("ask")
    async def ask(message: pyipc.Message[list[Any]]) -> Any:
        return await worker.request(*message.data)

    @worker.on("take rows")
    async def take_rows(message: pyipc.Message[int]) -> list[int]:
        async with worker.stream("rows", message.data) as found:
            return [number async for number in found]

    @worker.on("say")
    async def say(message: pyipc.Message[list[Any]]) -> None:
        for data in message.data:
            await worker.send(data)

    @worker.on("exit")
    def leave(message: pyipc.Message[int]) -> None:
        sys.exit(message.data)

    await worker.run()


async def named_alike(worker: Worker) -> None:
    """Asks the primary, under the same name, for the answer to each request."""

    async def ask(message: pyipc.Message[None]) -> Any:
        return await worker.request(message.event)

    for name in NAMES:
        worker.on(name, ask)
    await worker.run()


async def slow_to_listen(worker: Worker) -> None:
    """Takes its handlers one after the other, and needs the first message for the second."""
    async with worker.expect("config") as expected:
        config = (await expected.get()).data
    got: list[Any] = []
    for name in config:
        await trio.sleep(0.05)
        worker.on(name, lambda message: got.append([message.event, message.data]))
    worker.on("got", lambda message: got)
    await worker.run()


async def never_listening(worker: Worker) -> None:
    """Is ready without a handler."""
    await worker.run()


async def talkative(worker: Worker) -> None:
    """Talks before it is ready."""
    for number in range(100):
        await worker.emit("said", number)
        await worker.send(number)
    await worker.run()


async def curious(worker: Worker) -> None:
    """Cannot start without an answer."""
    told = await worker.request("settings")
    worker.on("told", lambda message: told)
    await worker.run()


async def ask_and_be_asked(worker: Worker) -> None:
    """Is asked for something before its primary answers, before it is ready."""
    worker.on("name", lambda message: worker.id)
    answer = await worker.request("who am i")
    worker.on("answer", lambda message: answer)
    await worker.run()


# --- last words ---


async def returning(worker: Worker) -> None:
    """Says much, and returns."""
    await say_much(worker)


async def raising(worker: Worker) -> None:
    """Says much, and fails."""
    await say_much(worker)
    raise ValueError("this is meant")


async def exiting(worker: Worker) -> None:
    """Says much, and exits."""
    await say_much(worker)
    sys.exit(3)


async def drained(worker: Worker) -> None:
    """Says much when it is to leave."""
    await worker.ready()
    await worker.wait_draining()
    async with worker.busy():
        await say_much(worker)
    await trio.sleep_forever()


async def say_much(worker: Worker) -> None:
    """Five messages of a million bytes, as in Node's worst case, and one to see the order."""
    await worker.ready()
    for number in range(5):
        await worker.send([number, MEBIBYTE])
    await worker.send("last")


# --- back-pressure ---


async def flooding(worker: Worker) -> None:
    """Sends more than anybody takes, and tells in a file how far it came."""
    await worker.ready()
    for number in range(200):
        await worker.emit("flood", [number, MEBIBYTE])
        await trio.Path(sys.argv[1]).write_text(str(number))
    await worker.run()


async def not_reading(worker: Worker) -> None:
    """Handles nothing of what comes until it is told by a file."""
    taken = 0

    @worker.on("flood")
    async def take(message: pyipc.Message[Any]) -> None:
        nonlocal taken
        while not await trio.Path(sys.argv[1]).exists():  # noqa: ASYNC110 - another process makes it
            await trio.sleep(0.01)
        taken += 1

    worker.on("taken", lambda message: taken)
    await worker.run()


# --- topics ---


async def subscribing(worker: Worker) -> None:
    """Subscribes, publishes, and may be slow to read."""
    got: list[list[Any]] = []
    news = trio.Event()

    async def collect(subscription: pyipc.Subscription) -> None:
        nonlocal news
        async for message in subscription:
            data = message.data if message.event != "news.large" else message.data[0]
            got.append([message.event, data])
            news.set()
            news = trio.Event()

    @worker.on("publish")
    async def publish(message: pyipc.Message[list[Any]]) -> None:
        await worker.publish(*message.data)

    @worker.on("got")
    async def show(message: pyipc.Message[int]) -> list[list[Any]]:
        while len(got) < message.data:
            await news.wait()
        return got

    @worker.on("got until")
    async def show_until(message: pyipc.Message[Any]) -> list[list[Any]]:
        while not got or got[-1][1] != message.data:
            await news.wait()
        return got

    @worker.on("sleep")
    def sleep(message: pyipc.Message[float]) -> None:
        time.sleep(message.data)  # the whole process

    async with worker.subscribe("news.*") as subscription, trio.open_nursery() as nursery:
        nursery.start_soon(collect, subscription)
        await worker.run()
        nursery.cancel_scope.cancel()


# --- workers among each other ---


async def colleague(worker: Worker) -> None:
    """Talks to others as it is told, and answers them."""
    heard: list[list[Any]] = []
    news = trio.Event()

    @worker.on("hear")
    def hear(message: pyipc.Message[Any]) -> None:
        nonlocal news
        heard.append([worker.sender_of(message), message.data])
        news.set()
        news = trio.Event()

    @worker.on("heard")
    async def show(message: pyipc.Message[int]) -> list[list[Any]]:
        while len(heard) < message.data:
            await news.wait()
        return heard

    @worker.on("who are you")
    def introduce(message: pyipc.Message[None]) -> list[Any]:
        return [worker.id, worker.generation, worker.sender_of(message)]

    @worker.on("rows")
    async def rows(message: pyipc.Message[int]) -> AsyncIterator[int]:
        for number in range(message.data):
            yield number

    @worker.on("size")
    def size(message: pyipc.Message[str]) -> int:
        return len(message.data)

    @worker.on("slow")
    async def slow(message: pyipc.Message[float]) -> int:
        await worker.emit("begun", worker.id)
        await trio.sleep(message.data)
        return worker.generation

    @worker.on("exit")
    def leave(message: pyipc.Message[int]) -> None:
        os._exit(message.data)

    @worker.on("tell")
    async def tell(message: pyipc.Message[list[Any]]) -> None:
        id, data = message.data
        await worker.to(id).emit("hear", data)

    @worker.on("ask")
    async def ask(message: pyipc.Message[list[Any]]) -> Any:
        id, event, data = message.data
        return await worker.to(id).request(event, data)

    @worker.on("ask role")
    async def ask_role(message: pyipc.Message[str]) -> Any:
        async with worker.connect(role=message.data) as client:
            return await client.request("who are you")

    @worker.on("try")
    async def try_all(message: pyipc.Message[str]) -> dict[str, Any]:
        async with worker.connect(message.data) as client:
            async with client.stream("rows", 3) as found:
                numbers = [number async for number in found]
            await client.emit("hear", "confirmed", confirm=True)
            async with client.subscribe("talk.*") as talk:
                await client.publish("talk.own", 5)
                published = (await talk.get()).data
            large = await client.request("size", "x" * 5_000_000)
        return {"rows": numbers, "published": published, "large": large}

    @worker.on("fail to reach")
    async def fail_to_reach(message: pyipc.Message[dict[str, Any]]) -> list[str]:
        errors = []
        try:
            async with worker.connect(**message.data):
                pass
        except cluster.UnknownWorker as error:
            errors.append(str(error))
        try:
            await worker.to(**message.data).emit("hear", 1)
        except cluster.UnknownWorker as error:
            errors.append(str(error))
        return errors

    @worker.on("ask up")
    async def ask_up(message: pyipc.Message[list[Any]]) -> int:
        """Two workers ask each other, again and again."""
        id, depth = message.data
        return 0 if depth == 0 else 1 + await worker.to(id).request("ask up", [worker.id, depth - 1])

    await worker.run()
    if worker.role == "last words":
        await worker.to("1").emit("hear", "goodbye")
