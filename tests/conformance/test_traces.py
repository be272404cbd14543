"""Traces: which span a message comes from goes with it wherever it can, and is no reason not to send it where not."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pyipc
from tests.conformance.sides import until
from tests.conformance.subjects import Feature, lacks, needs

if TYPE_CHECKING:
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
