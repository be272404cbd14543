"""Handlers that refuse: what the caller gets, what is counted, and what is not logged."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import pyipc
from pyipc import Message
from pyipc.refusals import is_refusal, what_went_wrong
from pyipc.testing import pair

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.time_limit(30)


def plain(message: Message[Any]) -> None:
    raise pyipc.Refused("not-found", "there is no account 7", {"account": 7})


async def at_once(message: Message[Any]) -> None:
    plain(message)


async def after_a_while(message: Message[Any]) -> None:
    await trio.lowlevel.checkpoint()
    plain(message)


async def from_a_nursery(message: Message[Any]) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        async with trio.open_nursery():
            await after_a_while(message)


HANDLERS = [plain, at_once, after_a_while, from_a_nursery]


async def the_connection(server: pyipc.Server) -> pyipc.Connection:
    await trio.testing.wait_all_tasks_blocked()
    (connection,) = server.connections
    return connection


@pytest.mark.parametrize("handler", HANDLERS)
async def test_the_caller_gets_what_the_handler_refused_with(
    handler: Callable[[Message[Any]], object], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "pyipc")
    router = pyipc.Router()
    router.on("balance", handler)
    async with pair(router) as (client, server):
        for _ in range(2):
            with pytest.raises(pyipc.RemoteError) as refused:
                await client.request("balance")
            error = refused.value
            assert (error.code, error.message, error.data) == ("not-found", "there is no account 7", {"account": 7})
            assert str(error) == "not-found: there is no account 7"
        statistics = (await the_connection(server)).statistics()
        assert (statistics.refusals, statistics.handler_errors) == (2, 0)
    told = [record for record in caplog.records if "refused" in record.message]
    assert [(record.levelno, record.exc_info) for record in told] == [(logging.DEBUG, None)] * 2
    assert "'balance'" in told[0].message
    assert "'not-found'" in told[0].message
    assert "account" not in caplog.text  # neither the message nor the data, which are the peer's alone
    assert all(record.levelno < logging.WARNING for record in caplog.records)


@pytest.mark.parametrize("handler", HANDLERS)
async def test_nobody_hears_of_the_refusal_of_an_event(
    handler: Callable[[Message[Any]], object], caplog: pytest.LogCaptureFixture
) -> None:
    router = pyipc.Router()
    router.on("note", handler)
    heard: list[object] = []
    router.on("note", lambda message: heard.append(message.data))
    async with pair(router) as (client, server):
        await client.emit("note", 1)
        await client.flush()
        statistics = (await the_connection(server)).statistics()
        assert (statistics.refusals, statistics.handler_errors) == (1, 0)
    assert heard == [1]  # other handlers are called all the same
    assert caplog.records == []


def deep(levels: int) -> list[Any]:
    return [deep(levels - 1)] if levels else []


@pytest.mark.parametrize("data", [object(), "x" * 5_000, deep(80), {"self": 10**5_000}], ids=lambda data: type(data))
async def test_data_that_cannot_be_sent_is_left_out(data: Any) -> None:
    router = pyipc.Router()
    text = "it was " + "x" * 500

    @router.on("ask")
    def ask(message: Message[Any]) -> None:
        raise pyipc.Refused("gone", text, data)

    async with pair(router, server_options={"max_frame_size": 2_000}) as (client, _):
        with pytest.raises(pyipc.RemoteError) as refused:
            await client.request("ask")
        assert (refused.value.code, refused.value.message, refused.value.data) == ("gone", text, None)


async def test_a_message_that_is_too_long_arrives_in_part() -> None:
    router = pyipc.Router()

    @router.on("ask")
    def ask(message: Message[Any]) -> None:
        raise pyipc.Refused("gone", "x" * 5_000, [1])

    async with pair(router, server_options={"max_frame_size": 2_000}) as (client, _):
        with pytest.raises(pyipc.RemoteError) as refused:
            await client.request("ask")
        assert (refused.value.code, refused.value.message, refused.value.data) == ("gone", "x" * 256, None)


async def test_a_refusal_passes_through_a_handler_that_asks_another() -> None:
    """A handler's own request that was refused is a failure of it, unless it says otherwise."""
    near, far = pyipc.Router(), pyipc.Router()
    far.on("balance", plain)

    @near.on("as it is")
    async def as_it_is(message: Message[Any]) -> Any:
        return await message.connection.request("balance")

    @near.on("passed on")
    async def passed_on(message: Message[Any]) -> Any:
        try:
            return await message.connection.request("balance")
        except pyipc.RemoteError as error:
            raise pyipc.Refused(error.code, error.message, error.data) from error

    async with pair(near, client_router=far) as (client, _):
        with pytest.raises(pyipc.RemoteError) as failed:
            await client.request("as it is")
        assert failed.value.code == "handler-failed"
        with pytest.raises(pyipc.RemoteError) as refused:
            await client.request("passed on")
        assert (refused.value.code, refused.value.data) == ("not-found", {"account": 7})


class Wordless(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


async def test_an_error_that_cannot_be_described(caplog: pytest.LogCaptureFixture) -> None:
    router = pyipc.Router()

    @router.on("ask")
    def ask(message: Message[Any]) -> None:
        raise Wordless

    async with pair(router) as (client, server):
        with pytest.raises(pyipc.RemoteError) as failed:
            await client.request("ask")
        assert (failed.value.code, failed.value.message) == ("handler-failed", "Wordless")
        assert (await the_connection(server)).statistics().handler_errors == 1


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (pyipc.Refused("a", "b", [1]), ("a", "b", [1])),
        (ExceptionGroup("", [ExceptionGroup("", [pyipc.Refused("a", "b")])]), ("a", "b", None)),
        (pyipc.InvalidData("no number", "$.n"), ("invalid-data", "no number", {"path": "$.n"})),
        (LookupError("nothing"), ("handler-failed", "LookupError: nothing", None)),
        (ValueError("x" * 2_000), ("handler-failed", "ValueError: " + "x" * 988, None)),
        (
            ExceptionGroup("two", [pyipc.Refused("a", "b"), ValueError()]),
            ("handler-failed", "ExceptionGroup: two (2 sub-exceptions)", None),
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_peer_is_told(error: Exception, told: tuple[str, str, Any]) -> None:
    assert what_went_wrong(error) == told
    assert is_refusal(error) == (told[0] == "a")


def test_an_answer_that_is_too_large() -> None:
    code, message, _ = what_went_wrong(pyipc.MessageTooLarge(2_000, 1_000))
    assert (code, message.split(":")[0]) == ("reply-too-large", "MessageTooLarge")
