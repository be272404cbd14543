"""Traces: which span a message comes from goes with it wherever it can, and is no reason not to send it where not."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pyipc
from tests.conformance.sides import until
from tests.conformance.subjects import Feature, lacks, needs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractContextManager

    from tests.conformance.sides import Stage

SPAN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER = "00-0af7651916cd43dd8448eb211c80319c-1111111111111111-01"


def listening() -> tuple[pyipc.Router, list[tuple[Any, str]]]:
    router, heard = pyipc.Router(), []

    @router.on("told")
    @router.on("asked")
    async def hear(message: pyipc.Message[Any]) -> str:
        heard.append((message.data, message.traceparent))
        return message.traceparent

    return router, heard


@needs(Feature.MESSAGES)
async def test_a_request_says_where_it_comes_from(stage: Stage) -> None:
    theirs, heard = listening()
    async with stage.open(theirs=theirs) as wire:
        assert await wire.ours.conn.request("asked", 1, traceparent=SPAN) == SPAN
        assert await wire.ours.conn.request("asked", 2) == ""
        assert await wire.ours.conn.request("asked", 3, traceparent=OTHER) == OTHER
    assert heard == [(1, SPAN), (2, ""), (3, OTHER)]


@needs(Feature.TRACES, Feature.DELIVERY)
async def test_an_event_says_where_it_comes_from(stage: Stage) -> None:
    theirs, heard = listening()
    async with stage.open(theirs=theirs) as wire:
        await wire.ours.conn.emit("told", 1, traceparent=SPAN)
        wire.ours.conn.emit_nowait("told", 2, traceparent=OTHER)
        await wire.ours.conn.emit("told", 3)
        await until(lambda: len(heard) == 3)
    assert heard == [(1, SPAN), (2, OTHER), (3, "")]


@lacks(Feature.TRACES)
@needs(Feature.MESSAGES)
async def test_where_it_cannot_an_event_goes_without(stage: Stage) -> None:
    theirs, heard = listening()
    async with stage.open(theirs=theirs) as wire:
        await wire.ours.conn.emit("told", 1, traceparent=SPAN)
        wire.ours.conn.emit_nowait("told", 2, traceparent=OTHER)
        await until(lambda: len(heard) == 2)
    assert heard == [(1, ""), (2, "")]


class Tracing(pyipc.Instrument):
    """Is always in the span of whatever it was told of last."""

    def __init__(self) -> None:
        self.present = SPAN
        self.handled: list[tuple[str, str]] = []

    def handling(self, kind: str, message: pyipc.Message[Any]) -> AbstractContextManager[None]:
        self.handled.append((kind, message.traceparent))
        return contextlib.nullcontext()

    def traceparent(self) -> str:
        return self.present


@needs(Feature.MESSAGES)
async def test_an_instrument_says_where_a_message_comes_from(stage: Stage) -> None:
    theirs, heard = listening()
    ours, other = Tracing(), Tracing()
    async with stage.open(theirs=theirs, our_options={"instrument": ours}, their_options={"instrument": other}) as wire:
        other.handled.clear()
        assert await wire.ours.conn.request("asked", 1) == SPAN
        assert await wire.ours.conn.request("asked", 2, traceparent=OTHER) == OTHER
        ours.present = ""
        assert await wire.ours.conn.request("asked", 3) == ""
    assert heard == [(1, SPAN), (2, OTHER), (3, "")]
    assert other.handled == [("request", SPAN), ("request", OTHER), ("request", "")]


@needs(Feature.TRACES, Feature.CONFIRM)
async def test_a_confirmed_event_says_where_it_comes_from(stage: Stage) -> None:
    theirs, heard = listening()
    ours = Tracing()
    async with stage.open(theirs=theirs, our_options={"instrument": ours}) as wire:
        await wire.ours.conn.emit("told", 1, confirm=True, traceparent=OTHER)
        await wire.ours.conn.emit("told", 2, confirm=True)
        await wire.ours.conn.emit("told", 3, confirm=True, attachments=[b"x"])
    assert heard == [(1, OTHER), (2, SPAN), (3, SPAN)]


@needs(Feature.TRACES, Feature.STREAMS)
async def test_a_stream_says_where_it_comes_from(stage: Stage) -> None:
    theirs = pyipc.Router()

    @theirs.on("rows")
    async def rows(message: pyipc.Message[Any]) -> AsyncIterator[str]:
        yield message.traceparent

    ours = Tracing()
    async with stage.open(theirs=theirs, our_options={"instrument": ours}) as wire:
        for given, expected in ((OTHER, OTHER), ("", SPAN)):
            async with wire.ours.conn.stream("rows", traceparent=given) as stream:
                assert [row async for row in stream] == [expected]


@needs(Feature.TRACES, Feature.TOPICS)
async def test_what_is_published_says_where_it_comes_from(stage: Stage) -> None:
    """From the client, from the server, and from a peer that has it by itself; what was kept says it no more."""
    tracing = Tracing()
    async with stage.open(our_options={"instrument": tracing}) as wire:
        async with wire.client.subscribe("t") as theirs, wire.server.subscribe("t") as own:
            await wire.client.publish("t", 1, traceparent=OTHER)
            await wire.server.publish("t", 2, traceparent=OTHER, retain=True)
            for subscription in (theirs, own):
                got = {(message.data, message.traceparent) for message in [await anext(subscription) for _ in range(2)]}
                assert got == {(1, OTHER), (2, OTHER)}
            await (wire.client if stage.role == "client" else wire.server).publish("t", 3)
            for subscription in (theirs, own):
                assert (await anext(subscription)).traceparent == SPAN
        async with wire.client.subscribe("t") as late:
            kept = await anext(late)
            assert (kept.data, kept.retained, kept.traceparent) == (2, True, "")


@needs(Feature.TRACES, Feature.DELIVERY)
async def test_what_has_attachments_says_where_it_comes_from(stage: Stage) -> None:
    theirs = pyipc.Router()
    heard: list[tuple[str, str, bytes]] = []

    @theirs.on("*")
    def hear(message: pyipc.Message[Any]) -> str:
        heard.append((message.event, message.traceparent, b"".join(message.attachments)))
        return message.traceparent

    async with stage.open(theirs=theirs) as wire:
        conn = wire.ours.conn
        assert await conn.request("asked", attachments=[b"a" * 100_000], traceparent=SPAN) == SPAN
        await conn.emit("told", attachments=[b"b", b"c"], traceparent=OTHER)
        conn.emit_nowait("told", attachments=[b"d"], traceparent=SPAN)
        await until(lambda: len(heard) == 3)
    assert heard == [("asked", SPAN, b"a" * 100_000), ("told", OTHER, b"bc"), ("told", SPAN, b"d")]
