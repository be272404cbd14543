"""What the workers of the tests of jobs do, and what those tests wait for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import pyipc
from tests.cluster.fake_workers import FakeWorker

if TYPE_CHECKING:
    from pyipc import Message
    from pyipc.cluster.job import Job

__all__ = ["Work", "error_of", "settle"]


class Work:
    """Handlers that tell what they were given, and stay at it until they are told to go on."""

    def __init__(self) -> None:
        self.begun: list[Any] = []
        self.cancelled: list[Any] = []
        self.gates: dict[Any, trio.Event] = {}
        self.router = pyipc.Router()
        self.router.on("echo", self.echo)
        self.router.on("stay", self.stay)
        self.router.on("fail", self.fail)
        self.router.on("typed", self.typed)
        self.router.on("crop", self.crop)

    async def echo(self, message: Message[Any]) -> Any:
        self.begun.append(message.data)
        return message.data

    async def stay(self, message: Message[Any]) -> Any:
        self.begun.append(message.data)
        try:
            await self.gate(message.data).wait()
        except trio.Cancelled:
            self.cancelled.append(message.data)
            raise
        return message.data

    def fail(self, message: Message[Any]) -> None:
        self.begun.append(message.data)
        raise pyipc.Refused("no-such-thing", f"there is no {message.data}")

    def typed(self, message: Message[int]) -> int:
        return message.data

    def crop(self, message: Message[int]) -> pyipc.Attached[None]:
        return pyipc.Attached(None, [message.attachments[0][: message.data]])

    def gate(self, data: Any) -> trio.Event:
        return self.gates.setdefault(data, trio.Event())

    def worker(self, id: str, role: str = "") -> FakeWorker:
        return FakeWorker(id, self.router, role)


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked()


async def error_of(job: Job[Any]) -> Exception:
    try:
        result = await job.result()
    except Exception as error:
        return error
    pytest.fail(f"{job} has a result: {result!r}")
