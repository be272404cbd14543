"""Links that are streams behave as trio wants its own streams to, by trio's own checks."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import trio.testing

from tests.conformance.sides import open_pairs
from tests.conformance.subjects import Feature, needs
from tests.link_stream import HalfCloseableLinkStream, LinkStream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pyipc.transports import Link
    from tests.conformance.subjects import Subject

S = TypeVar("S", bound=LinkStream)


def maker(
    make: Callable[[], Awaitable[tuple[Link, Link]]], kind: type[S], *, turned: bool
) -> Callable[[], Awaitable[tuple[S, S]]]:
    """Pairs of streams, of which the first is the client's, or the server's."""

    async def make_streams() -> tuple[S, S]:
        client, server = await make()
        return (kind(server), kind(client)) if turned else (kind(client), kind(server))

    return make_streams


@needs(Feature.ORDER, Feature.DELIVERY, Feature.CHUNKS, Feature.MANY)
async def test_links_pass_the_checks_of_trio_for_streams(subject: Subject) -> None:
    async with open_pairs(subject) as make:
        for turned in (False, True):
            await trio.testing.check_two_way_stream(maker(make, LinkStream, turned=turned), None)


@needs(Feature.HALF_CLOSE, Feature.MANY)
async def test_links_pass_the_checks_of_trio_for_streams_that_can_be_half_closed(subject: Subject) -> None:
    async with open_pairs(subject) as make:
        for turned in (False, True):
            await trio.testing.check_half_closeable_stream(maker(make, HalfCloseableLinkStream, turned=turned), None)
